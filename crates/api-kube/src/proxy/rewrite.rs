//! Links in what a proxied server answers: those to the server itself lead through the proxy again.

use std::borrow::Cow;

/// The longest tag that is looked at, in bytes; a longer one passes as it is.
const LONGEST: usize = 64 << 10;

/// Attributes that hold a link, by element (HTML).
const LINKS: [(&str, &[&str]); 24] = [
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["formaction", "src", "usemap"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];

/// Where links of the server lead to.
#[derive(Debug, Clone)]
pub(super) struct Way {
    /// Path of the API server that stands for the root of the proxied server.
    pub(super) prefix: String,
    /// Host that the client asked, with its port; links to it are the server's own.
    pub(super) host: String,
}

impl Way {
    /// A link as the client has to follow it: an absolute path gets the prefix, what is relative or leads elsewhere
    /// stays.
    pub(super) fn link<'a>(&self, link: &'a str) -> Cow<'a, str> {
        let (rest, host) = match link.split_once("://") {
            Some((scheme, rest)) if scheme.chars().all(|c| c.is_ascii_alphanumeric()) => {
                let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
                (&rest[end..], Some(&rest[..end]))
            }
            _ => match link.strip_prefix("//") {
                Some(rest) => {
                    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
                    (&rest[end..], Some(&rest[..end]))
                }
                None => (link, None),
            },
        };
        let elsewhere = host.is_some_and(|h| h != self.host);
        if elsewhere || !rest.starts_with('/') || rest.starts_with(&self.prefix) {
            return link.into();
        }
        format!("{}{rest}", self.prefix).into()
    }
}

/// Rewrites a document piece by piece.
#[derive(Debug)]
pub(super) struct Document {
    way: Way,
    /// The beginning of a tag whose end has not come yet.
    open: Vec<u8>,
}

impl Document {
    pub(super) fn new(way: Way) -> Self {
        Self {
            way,
            open: Vec::new(),
        }
    }

    /// Takes a piece; what can be sent on.
    pub(super) fn push(&mut self, piece: &[u8]) -> Vec<u8> {
        let mut input = std::mem::take(&mut self.open);
        input.extend_from_slice(piece);
        let mut out = Vec::with_capacity(input.len());
        let mut rest = input.as_slice();
        while let Some(at) = rest.iter().position(|b| *b == b'<') {
            out.extend_from_slice(&rest[..at]);
            rest = &rest[at..];
            // A sign for "less than" begins no tag.
            if rest
                .get(1)
                .is_some_and(|b| !b.is_ascii_alphabetic() && !b"/!?".contains(b))
            {
                out.push(b'<');
                rest = &rest[1..];
                continue;
            }
            match end_of_tag(rest) {
                Some(end) => {
                    self.tag(&rest[..end], &mut out);
                    rest = &rest[end..];
                }
                None if rest.len() < LONGEST => {
                    self.open = rest.to_vec();
                    return out;
                }
                None => break,
            }
        }
        out.extend_from_slice(rest);
        out
    }

    /// What is left at the end.
    pub(super) fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.open)
    }

    fn tag(&self, tag: &[u8], out: &mut Vec<u8>) {
        let Ok(text) = std::str::from_utf8(tag) else {
            out.extend_from_slice(tag);
            return;
        };
        let name_end = text[1..]
            .find(|c: char| !c.is_ascii_alphanumeric())
            .map_or(text.len(), |i| i + 1);
        let name = text[1..name_end].to_ascii_lowercase();
        let Some((_, attributes)) = LINKS.iter().find(|(n, _)| *n == name) else {
            out.extend_from_slice(tag);
            return;
        };
        out.extend_from_slice(&tag[..name_end]);
        let mut rest = &text[name_end..];
        while let Some((before, value, after)) = attribute(rest) {
            let name = before.trim_end().trim_end_matches('=').trim_end();
            let name = name.rsplit(char::is_whitespace).next().unwrap_or_default();
            let holds = attributes.contains(&name.to_ascii_lowercase().as_str());
            out.extend_from_slice(before.as_bytes());
            let quote = value.chars().next().filter(|c| ['"', '\''].contains(c));
            let bare = value.trim_matches(['"', '\'']);
            if holds {
                let quote = quote.map(String::from).unwrap_or_default();
                out.extend_from_slice(format!("{quote}{}{quote}", self.way.link(bare)).as_bytes());
            } else {
                out.extend_from_slice(value.as_bytes());
            }
            rest = after;
        }
        out.extend_from_slice(rest.as_bytes());
    }
}

/// One past the `>` of the tag that begins here; quoted ones do not count.
fn end_of_tag(text: &[u8]) -> Option<usize> {
    let mut quote = None;
    for (i, byte) in text.iter().enumerate() {
        match (quote, byte) {
            (None, b'>') => return Some(i + 1),
            // Only values are quoted: an apostrophe in a comment's or declaration's text is none.
            (None, b'"' | b'\'') if i > 0 && text[..i].trim_ascii_end().ends_with(b"=") => {
                quote = Some(*byte);
            }
            (Some(q), b) if q == *b => quote = None,
            _ => {}
        }
    }
    None
}

/// Up to a value (with its name and `=`), the value with its quotes, and what follows.
fn attribute(text: &str) -> Option<(&str, &str, &str)> {
    let equals = text.find('=')?;
    let skipped = text[equals + 1..].len() - text[equals + 1..].trim_start().len();
    let start = equals + 1 + skipped;
    let rest = &text[start..];
    let length = match rest.chars().next()? {
        quote @ ('"' | '\'') => rest[1..].find(quote)? + 2,
        _ => rest
            .find(|c: char| c.is_whitespace() || c == '>')
            .unwrap_or(rest.len()),
    };
    Some((&text[..start], &rest[..length], &rest[length..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way() -> Way {
        Way {
            prefix: "/p/proxy".into(),
            host: "api:6443".into(),
        }
    }

    #[test]
    fn links() {
        for (link, want) in [
            ("/a", "/p/proxy/a"),
            ("/", "/p/proxy/"),
            ("a/b", "a/b"),
            ("../a", "../a"),
            ("#x", "#x"),
            ("/p/proxy/a", "/p/proxy/a"),
            ("http://elsewhere/a", "http://elsewhere/a"),
            ("https://api:6443/a?b", "/p/proxy/a?b"),
            ("mailto:a@b", "mailto:a@b"),
        ] {
            assert_eq!(way().link(link), want);
        }
    }

    #[test]
    fn documents() {
        let whole = "<p title='/a'>1 < 2 <a class=x href=\"/rewriteme\">test</a><IMG src=/i alt='>'><!-- it's --><a href='/b'>";
        let want = "<p title='/a'>1 < 2 <a class=x href=\"/p/proxy/rewriteme\">test</a><IMG src=/p/proxy/i alt='>'><!-- it's --><a href='/p/proxy/b'>";
        for size in [1, 3, 7, whole.len()] {
            let mut document = Document::new(way());
            let mut out = Vec::new();
            for piece in whole.as_bytes().chunks(size) {
                out.extend(document.push(piece));
            }
            out.extend(document.finish());
            assert_eq!(String::from_utf8(out).unwrap(), want, "pieces of {size}");
        }
    }
}
