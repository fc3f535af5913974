//! Query parameters and filters, read as the real daemon reads them.

use std::collections::BTreeMap;

use serde::Deserialize;
use tripod_model::Time;

use crate::fault::Fault;

/// The query of a request.
#[derive(Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(query: &str) -> Self {
        Self(form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }

    /// The first value of a parameter.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The first value of a parameter, or nothing.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }

    /// All values of a parameter.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }

    /// Everything but a few words is true.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.flag_or(name, false)
    }

    /// The same with a value for a parameter that is not there.
    pub(crate) fn flag_or(&self, name: &str, default: bool) -> bool {
        match self.get(name) {
            None => default,
            Some(v) => !matches!(
                v.trim().to_ascii_lowercase().as_str(),
                "" | "0" | "no" | "false" | "none"
            ),
        }
    }

    /// A whole number; an empty one is none.
    pub(crate) fn int(&self, name: &str) -> Result<Option<i64>, Fault> {
        match self.text(name) {
            "" => Ok(None),
            v => v.parse().map(Some).map_err(|_| {
                Fault::bad(format_args!(
                    "invalid value for {name}: strconv.Atoi: parsing \"{v}\": invalid syntax"
                ))
            }),
        }
    }

    /// A point in time: seconds with a fraction, or RFC 3339; `0` and nothing are none.
    pub(crate) fn time(&self, name: &str) -> Result<Option<Time>, Fault> {
        match self.text(name) {
            "" | "0" => Ok(None),
            v => parse_time(v)
                .map(Some)
                .ok_or_else(|| Fault::bad(format_args!("invalid value for \"{name}\": {v}"))),
        }
    }

    /// The filters, checked against those that the request knows.
    pub(crate) fn filters(&self, accepted: &[&str]) -> Result<Filters, Fault> {
        let filters = Filters::parse(self.text("filters"))?;
        match filters.0.keys().find(|k| !accepted.contains(&k.as_str())) {
            Some(unknown) => Err(Fault::bad(format_args!("invalid filter '{unknown}'"))),
            None => Ok(filters),
        }
    }
}

/// `1699999999.123456789` or RFC 3339.
pub(crate) fn parse_time(text: &str) -> Option<Time> {
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    if digits(seconds) && (fraction.is_empty() || digits(fraction)) {
        let nanos: i32 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
        return Time::new(seconds.parse().ok()?, nanos).ok();
    }
    if let Ok(t) = text.parse::<Time>() {
        return Some(t);
    }
    // Go's shorter forms: a date, or a date and time without a zone.
    text.parse::<jiff::civil::DateTime>()
        .or_else(|_| text.parse::<jiff::civil::Date>().map(Into::into))
        .ok()?
        .to_zoned(jiff::tz::TimeZone::UTC)
        .ok()
        .map(|z| z.timestamp())
}

/// Filters: for each name the values of which one must hold.
#[derive(Debug, Default, Clone)]
pub(crate) struct Filters(BTreeMap<String, Vec<String>>);

#[derive(Deserialize)]
#[serde(untagged)]
enum Values {
    List(Vec<String>),
    Set(BTreeMap<String, bool>),
}

impl Filters {
    pub(crate) fn parse(text: &str) -> Result<Self, Fault> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let map: BTreeMap<String, Values> =
            serde_json::from_str(text).map_err(|e| Fault::bad(format_args!("invalid filter: {e}")))?;
        Ok(Self(
            map.into_iter()
                .map(|(name, values)| match values {
                    Values::List(v) => (name, v),
                    Values::Set(v) => (
                        name,
                        v.into_iter().filter(|(_, on)| *on).map(|(v, _)| v).collect(),
                    ),
                })
                .collect(),
        ))
    }

    /// The values of a filter.
    pub(crate) fn values(&self, name: &str) -> &[String] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// Each name with each of its values.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (String, String)> {
        self.0
            .iter()
            .flat_map(|(name, values)| values.iter().map(|v| (name.clone(), v.clone())))
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        !self.values(name).is_empty()
    }

    /// Whether there is no such filter, or one of its values fits.
    pub(crate) fn any(&self, name: &str, fits: impl FnMut(&str) -> bool) -> bool {
        let values = self.values(name);
        values.is_empty() || values.iter().map(String::as_str).any(fits)
    }

    /// Whether there is no such filter, or one of its values is the text, or an expression that matches in it.
    pub(crate) fn matches(&self, name: &str, text: &str) -> bool {
        self.any(name, |pattern| {
            pattern == text || regex::Regex::new(pattern).is_ok_and(|e| e.is_match(text))
        })
    }

    /// Whether all labels asked for (`name` or `name=value`) are there, and none of those of `label!`.
    pub(crate) fn labels(&self, labels: &BTreeMap<String, String>) -> bool {
        let holds = |wanted: &String| match wanted.split_once('=') {
            None => labels.contains_key(wanted),
            Some((name, value)) => labels.get(name).is_some_and(|v| v == value),
        };
        self.values("label").iter().all(holds) && !self.values("label!").iter().any(holds)
    }

    /// A filter with one truth value.
    pub(crate) fn flag(&self, name: &str) -> Result<Option<bool>, Fault> {
        match self.values(name) {
            [] => Ok(None),
            [one] if matches!(one.as_str(), "1" | "true" | "True" | "TRUE" | "t" | "T") => Ok(Some(true)),
            [one] if matches!(one.as_str(), "0" | "false" | "False" | "FALSE" | "f" | "F") => Ok(Some(false)),
            values => Err(Fault::bad(format_args!("invalid filter '{name}={values:?}'"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_and_numbers() {
        let q = Query::parse("a=1&b=no&c=&d=yes&n=12&bad=x");
        assert!(q.flag("a") && !q.flag("b") && !q.flag("c") && q.flag("d") && !q.flag("zz"));
        assert_eq!(q.int("n").unwrap(), Some(12));
        assert_eq!(q.int("bad").unwrap_err().status.as_u16(), 400);
    }

    #[test]
    fn times() {
        let t = |s: &str| parse_time(s).map(|t| t.as_nanosecond());
        assert_eq!(t("1.5"), Some(1_500_000_000));
        assert_eq!(t("1700000000"), Some(1_700_000_000_000_000_000));
        assert_eq!(t("1.000000007"), Some(1_000_000_007));
        assert_eq!(t("1970-01-01T00:00:01Z"), Some(1_000_000_000));
        assert_eq!(t("1970-01-02"), Some(86_400_000_000_000));
        assert_eq!(t("soon"), None);
    }

    #[test]
    fn filter_forms() {
        for text in [r#"{"label":["a=b"]}"#, r#"{"label":{"a=b":true,"c":false}}"#] {
            let f = Filters::parse(text).unwrap();
            assert_eq!(f.values("label"), ["a=b"]);
            assert!(f.labels(&BTreeMap::from([("a".into(), "b".into())])));
            assert!(!f.labels(&BTreeMap::new()));
        }
        assert!(Filters::parse("{").is_err());
        let q = Query::parse("filters=%7B%22nope%22%3A%5B%22x%22%5D%7D");
        assert_eq!(q.filters(&["id"]).unwrap_err().message, "invalid filter 'nope'");
    }
}
