//! Filter patterns: of terms (`ERROR`, `"two words"`, `-without`, `?either ?or`, `%regex%`), of JSON
//! (`{ $.status = 5* }`), and of fields between spaces (`[ip, user, ..., status >= 500]`).

mod conditions;

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::Value;

use conditions::Condition;

/// A parsed pattern.
#[derive(Debug, Clone)]
pub(super) enum Pattern {
    Terms(Terms),
    Json(Condition),
    Fields(Vec<Field>),
}

/// A field of a space-delimited pattern.
#[derive(Debug, Clone)]
pub(super) enum Field {
    /// Any number of fields.
    Rest,
    One(Condition),
}

#[derive(Debug, Clone)]
enum Term {
    Text(String),
    Regex(Regex),
}

impl Term {
    fn is_in(&self, line: &str) -> bool {
        match self {
            Self::Text(text) => line.contains(text.as_str()),
            Self::Regex(regex) => regex.is_match(line),
        }
    }
}

/// Terms that a line has or has not.
#[derive(Debug, Clone, Default)]
pub(super) struct Terms {
    all: Vec<Term>,
    any: Vec<Term>,
    none: Vec<Term>,
}

impl Terms {
    fn parse(text: &str) -> Result<Self, String> {
        let mut out = Self::default();
        let mut rest = text;
        while !rest.is_empty() {
            let sign = rest.chars().next().filter(|c| "-?".contains(*c));
            rest = &rest[usize::from(sign.is_some())..];
            let unclosed = "a quotation mark is not closed";
            let (term, after) = if let Some(quoted) = rest.strip_prefix('"') {
                let (inside, after) = quoted.split_once('"').ok_or(unclosed)?;
                (Term::Text(inside.to_owned()), after)
            } else if let Some(regex) = rest.strip_prefix('%') {
                let (inside, after) = regex
                    .split_once('%')
                    .ok_or("a regular expression is not closed")?;
                (Term::Regex(Regex::new(inside).map_err(|e| e.to_string())?), after)
            } else {
                let (word, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
                (Term::Text(word.to_owned()), after)
            };
            if matches!(&term, Term::Text(t) if t.is_empty()) {
                return Err("a term is empty".into());
            }
            match sign {
                Some('-') => &mut out.none,
                Some(_) => &mut out.any,
                None => &mut out.all,
            }
            .push(term);
            rest = after.trim_start();
        }
        Ok(out)
    }

    fn matches(&self, line: &str) -> bool {
        let has = |t: &Term| t.is_in(line);
        self.all.iter().all(has)
            && !self.none.iter().any(has)
            && (self.any.is_empty() || !self.all.is_empty() || self.any.iter().any(has))
    }
}

impl Pattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// What of it is not understood.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Some(inside) = text.strip_prefix('{') {
            let inside = inside.strip_suffix('}').ok_or("a brace is not closed")?;
            let condition = conditions::parse(inside)?;
            return match condition.names().iter().find(|n| !n.starts_with('$')) {
                Some(name) => Err(format!("the selector '{name}' does not begin with $")),
                None => Ok(Self::Json(condition)),
            };
        }
        if let Some(inside) = text.strip_prefix('[') {
            let inside = inside.strip_suffix(']').ok_or("a bracket is not closed")?;
            let field = |text: &str| match text.trim() {
                "..." => Ok(Field::Rest),
                "" => Err("a field has no name".to_owned()),
                text => Ok(Field::One(conditions::parse(text)?)),
            };
            return Ok(Self::Fields(
                inside.split(',').map(field).collect::<Result<_, _>>()?,
            ));
        }
        Ok(Self::Terms(Terms::parse(text)?))
    }

    /// Whether a line has what it asks for.
    pub(super) fn matches(&self, line: &str) -> bool {
        self.extract(line).is_some()
    }

    /// The values of what the pattern names, when the line has what it asks for.
    pub(super) fn extract(&self, line: &str) -> Option<BTreeMap<String, String>> {
        match self {
            Self::Terms(terms) => terms.matches(line).then(BTreeMap::new),
            Self::Json(condition) => {
                let value: Value = serde_json::from_str(line).ok().filter(Value::is_object)?;
                let look = |name: &str| select(&value, name);
                if !condition.holds(&look) {
                    return None;
                }
                let named = condition.names().into_iter();
                let found = named.filter_map(|n| Some((n.to_owned(), text(look(n).first()?))));
                Some(found.collect())
            }
            Self::Fields(fields) => by_fields(fields, line),
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// What stands at a path, `$.a.b[0].c`; all elements for `[*]`.
fn select<'a>(value: &'a Value, path: &str) -> Vec<&'a Value> {
    let mut found = vec![value];
    for part in path.trim_start_matches('$').split('.').filter(|p| !p.is_empty()) {
        let (name, indices) = part.split_once('[').unwrap_or((part, ""));
        if !name.is_empty() {
            found = found.into_iter().filter_map(|v| v.get(name)).collect();
        }
        for index in indices.split('[').filter(|i| !i.is_empty()) {
            let index = index.trim_end_matches(']');
            found = match index.parse::<usize>() {
                Ok(at) => found.into_iter().filter_map(|v| v.get(at)).collect(),
                Err(_) if index == "*" => found.into_iter().filter_map(Value::as_array).flatten().collect(),
                Err(_) => Vec::new(),
            };
        }
    }
    found
}

/// The fields of a line: words, or what stands in quotation marks or brackets.
fn fields_of(line: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() {
        let end = match rest.chars().next() {
            Some('"') => Some('"'),
            Some('[') => Some(']'),
            _ => None,
        };
        let (field, after) = match end.and_then(|e| rest[1..].split_once(e)) {
            Some(found) => found,
            None => rest.split_once(char::is_whitespace).unwrap_or((rest, "")),
        };
        out.push(field.to_owned());
        rest = after.trim_start();
    }
    out
}

fn by_fields(fields: &[Field], line: &str) -> Option<BTreeMap<String, String>> {
    let mut words = fields_of(line);
    let rest = fields.iter().position(|f| matches!(f, Field::Rest));
    match rest {
        Some(at) => {
            let more = (words.len() + 1).checked_sub(fields.len())?;
            words.drain(at..at + more);
        }
        None if words.len() != fields.len() => return None,
        None => {}
    }
    let named = fields.iter().filter_map(|f| match f {
        Field::Rest => None,
        Field::One(condition) => Some(condition),
    });
    let mut out = BTreeMap::new();
    for (condition, word) in named.zip(words) {
        let value = Value::String(word.clone());
        if !condition.holds(&|_| vec![&value]) {
            return None;
        }
        if let Some(name) = condition.names().first() {
            out.insert(format!("${}", name.trim_start_matches('$')), word);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms() {
        let line = "2026 ERROR one two three";
        for (pattern, is) in [
            ("", true),
            ("ERROR", true),
            ("ERROR two", true),
            ("ERROR four", false),
            ("\"one two\"", true),
            ("\"two one\"", false),
            ("ERROR -three", false),
            ("?four ?two", true),
            ("?four ?five", false),
            ("%ERR[A-Z]+ one%", true),
            ("%^ERROR%", false),
        ] {
            assert_eq!(Pattern::parse(pattern).unwrap().matches(line), is, "{pattern}");
        }
        for bad in [
            "\"open",
            "{ $.a = 1",
            "{ a = 1 }",
            "[a, b",
            "%open",
            "{ $.a = }",
            "{ ($.a = 1 }",
            "{ $.a IS RED }",
        ] {
            assert!(Pattern::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn json() {
        let line =
            r#"{"status":503,"user":"ann","ok":false,"none":null,"list":[{"a":1},{"a":2}],"ip":"10.0.0.7"}"#;
        for (pattern, is) in [
            ("{ $.status = 503 }", true),
            ("{ $.status = 5* }", true),
            ("{ $.status >= 500 && $.user = \"ann\" }", true),
            ("{ $.status < 500 || $.user = a* }", true),
            ("{ ($.status < 500 || $.status > 599) && $.user = ann }", false),
            ("{ $.user != ann }", false),
            ("{ $.user = \"*nn\" }", true),
            ("{ $.ok IS FALSE }", true),
            ("{ $.ok IS TRUE }", false),
            ("{ $.none IS NULL }", true),
            ("{ $.absent NOT EXISTS }", true),
            ("{ $.user NOT EXISTS }", false),
            ("{ $.list[1].a = 2 }", true),
            ("{ $.list[*].a = 1 }", true),
            ("{ $.list[2].a = 1 }", false),
            ("{ $.ip = %^10\\.0% }", true),
        ] {
            assert_eq!(Pattern::parse(pattern).unwrap().matches(line), is, "{pattern}");
        }
        assert!(!Pattern::parse("{ $.a = 1 }").unwrap().matches("no json"));
        let values = Pattern::parse("{ $.status = * }").unwrap().extract(line).unwrap();
        assert_eq!(values["$.status"], "503");
    }

    #[test]
    fn fields() {
        let line = r#"127.0.0.1 - ann [10/Oct/2000:13:25:15 -0700] "GET /index.html HTTP/1.0" 404 1534"#;
        for (pattern, is) in [
            ("[ip, id, user, time, request, status, size]", true),
            ("[ip, id, user, time, request, status = 4*, size]", true),
            ("[ip, id, user, time, request, status = 2*, size]", false),
            ("[ip, user]", false),
            ("[..., status = 404, size > 1000]", true),
            ("[..., size > 2000]", false),
            ("[ip = 127*, ...]", true),
            (
                "[ip, id, user, time, request = *html*, status = 404 || status = 410, size]",
                true,
            ),
        ] {
            assert_eq!(Pattern::parse(pattern).unwrap().matches(line), is, "{pattern}");
        }
        let values = Pattern::parse("[..., status, size]")
            .unwrap()
            .extract(line)
            .unwrap();
        assert_eq!(
            (values["$status"].as_str(), values["$size"].as_str()),
            ("404", "1534")
        );
    }
}
