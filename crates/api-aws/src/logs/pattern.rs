//! Filter patterns of terms: `ERROR`, `"two words"`, `-without`, `?either ?or`.

/// A parsed pattern.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Pattern {
    all: Vec<String>,
    any: Vec<String>,
    none: Vec<String>,
}

impl Pattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// What of it is not understood.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.starts_with(['{', '[', '%']) {
            return Err(
                "JSON, space-delimited and regular-expression patterns are not supported by this endpoint"
                    .into(),
            );
        }
        let mut out = Self::default();
        let mut rest = text;
        while !rest.is_empty() {
            let sign = rest.chars().next().filter(|c| "-?".contains(*c));
            rest = &rest[usize::from(sign.is_some())..];
            let (term, after) = match rest.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"').ok_or("a quotation mark is not closed")?,
                None => rest.split_once(char::is_whitespace).unwrap_or((rest, "")),
            };
            if term.is_empty() {
                return Err("a term is empty".into());
            }
            match sign {
                Some('-') => &mut out.none,
                Some(_) => &mut out.any,
                None => &mut out.all,
            }
            .push(term.to_owned());
            rest = after.trim_start();
        }
        Ok(out)
    }

    /// Whether a line has what it asks for.
    pub(super) fn matches(&self, line: &str) -> bool {
        let has = |t: &String| line.contains(t.as_str());
        self.all.iter().all(has)
            && !self.none.iter().any(has)
            && (self.any.is_empty() || !self.all.is_empty() || self.any.iter().any(has))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms() {
        for (pattern, line, is) in [
            ("", "anything", true),
            ("ERROR", "an ERROR here", true),
            ("ERROR", "an error here", false),
            ("a b", "b and a", true),
            ("\"a b\"", "b and a", false),
            ("?x ?y", "only y", true),
            ("?x ?y", "none", false),
            ("ERROR -debug", "ERROR debug", false),
        ] {
            assert_eq!(
                Pattern::parse(pattern).unwrap().matches(line),
                is,
                "{pattern} {line}"
            );
        }
        assert!(Pattern::parse("{ $.a = 1 }").is_err());
        assert!(Pattern::parse("\"open").is_err());
    }
}
