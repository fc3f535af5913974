//! The languages of the page: English, and Chinese by the table in `words`.

use std::collections::HashMap;
use std::sync::OnceLock;

use crate::words::WORDS;

/// A language.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Lang {
    /// English: the texts in the code.
    #[default]
    En,
    /// Simplified Chinese.
    Zh,
}

impl Lang {
    /// What `Accept-Language` prefers.
    pub(crate) fn accepted(header: &str) -> Self {
        let mut best = (0.0, Self::En);
        for part in header.split(',') {
            let (tag, parameters) = part.split_once(';').unwrap_or((part, ""));
            let quality = parameters
                .trim()
                .strip_prefix("q=")
                .map_or(1.0, |q| q.parse().unwrap_or(0.0));
            let lang = match tag.trim().split('-').next().unwrap_or_default() {
                "zh" => Self::Zh,
                "en" => Self::En,
                _ => continue,
            };
            if quality > best.0 {
                best = (quality, lang);
            }
        }
        best.1
    }

    /// The tag of BCP 47.
    pub(crate) fn tag(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::Zh => "zh-CN",
        }
    }

    /// An English text in this language; as it is when there is no translation.
    pub(crate) fn t(self, english: &str) -> &str {
        static TABLE: OnceLock<HashMap<&'static str, &'static str>> = OnceLock::new();
        match self {
            Self::En => english,
            Self::Zh => TABLE
                .get_or_init(|| WORDS.iter().copied().collect())
                .get(english)
                .copied()
                .unwrap_or(english),
        }
    }

    /// A text with values in the places of `{}`, in order.
    pub(crate) fn fill(self, english: &str, values: &[&str]) -> String {
        let mut parts = self.t(english).split("{}");
        let mut text = parts.next().unwrap_or_default().to_owned();
        for (part, value) in parts.zip(values) {
            text.push_str(value);
            text.push_str(part);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_browser_chooses() {
        for (header, lang) in [
            ("", Lang::En),
            ("zh-CN,zh;q=0.9,en;q=0.8", Lang::Zh),
            ("en-US,en;q=0.9,zh;q=0.8", Lang::En),
            ("de-DE,zh;q=0.7,en;q=0.3", Lang::Zh),
            ("fr", Lang::En),
        ] {
            assert_eq!(Lang::accepted(header), lang, "{header}");
        }
    }

    #[test]
    fn values_take_their_places() {
        assert_eq!(Lang::En.fill("{} of {} ready", &["1", "2"]), "1 of 2 ready");
    }

    /// Every text of the templates and the code that is translated has a translation.
    #[test]
    fn every_text_is_translated() {
        let mut missing = std::collections::BTreeSet::new();
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut todo = vec![root.join("src"), root.join("templates")];
        while let Some(dir) = todo.pop() {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    todo.push(path);
                    continue;
                }
                let text = std::fs::read_to_string(&path).unwrap();
                let text = text.split("#[cfg(test)]").next().unwrap_or_default();
                for opening in [".t(\"", ".fill(\"", " tr(\"", "(tr(\""] {
                    for found in text.split(opening).skip(1) {
                        let word = found.split('"').next().unwrap_or_default();
                        if Lang::Zh.t(word) == word && word.chars().any(char::is_alphabetic) {
                            missing.insert(word.to_owned());
                        }
                    }
                }
            }
        }
        assert!(missing.is_empty(), "without translation: {missing:#?}");
    }
}
