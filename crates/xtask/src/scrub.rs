//! Rust source without its comments and literals, so that rules look at code only.

/// `source` with the inside of comments, strings and characters replaced by spaces; lines stay where they are.
pub(crate) fn code_of(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut out = String::with_capacity(source.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = skip(bytes, at);
        if end > at {
            out.extend(
                source[at..end]
                    .chars()
                    .map(|c| if c == '\n' { '\n' } else { ' ' }),
            );
            at = end;
            continue;
        }
        // Whole words are taken at once, so that the r of `for"x"` is not taken for a raw string.
        let mut end = at + source[at..].chars().next().map_or(1, char::len_utf8);
        if is_word(bytes[at]) {
            while end < bytes.len() && is_word(bytes[end]) {
                end += 1;
            }
        }
        out.push_str(&source[at..end]);
        at = end;
    }
    out
}

/// Whether a byte can be part of an identifier.
pub(crate) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Where the comment or literal that begins at `at` ends; `at` itself if none does.
fn skip(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    if rest.starts_with(b"//") {
        return at + rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len());
    }
    if rest.starts_with(b"/*") {
        return at + block_comment(rest);
    }
    let prefix = match rest {
        [b'b' | b'c', b'r', b'"' | b'#', ..] => 2,
        [b'r', b'"' | b'#', ..] => 1,
        [b'b' | b'c', b'"', ..] => return at + 1 + quoted(&rest[1..], b'"'),
        [b'b', b'\'', ..] => return at + 1 + quoted(&rest[1..], b'\''),
        [b'"', ..] => return at + quoted(rest, b'"'),
        [b'\'', ..] => return at + character(rest),
        _ => return at,
    };
    at + raw(rest, prefix)
}

/// The length of a block comment, which may hold others.
fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest[at..].starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

/// The length of a literal with escapes that begins and ends with `quote`.
fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// The length of a character literal, or 0 if this is a lifetime.
fn character(rest: &[u8]) -> usize {
    match rest {
        [_, b'\\', ..] => quoted(rest, b'\''),
        [_, first, ..] => {
            let length = match first {
                0..0x80 => 1,
                0x80..0xE0 => 2,
                0xE0..0xF0 => 3,
                _ => 4,
            };
            if rest.get(1 + length) == Some(&b'\'') {
                length + 2
            } else {
                0
            }
        }
        _ => 0,
    }
}

/// The length of a raw string whose quote or `#` is at `prefix`, or 0 for a raw identifier.
fn raw(rest: &[u8], prefix: usize) -> usize {
    let hashes = rest[prefix..].iter().take_while(|&&b| b == b'#').count();
    let start = prefix + hashes + 1;
    if rest.get(start - 1) != Some(&b'"') {
        return 0;
    }
    let mut end = vec![b'"'];
    end.resize(1 + hashes, b'#');
    rest[start..]
        .windows(end.len())
        .position(|window| window == end)
        .map_or(rest.len(), |i| start + i + end.len())
}

#[cfg(test)]
mod tests {
    use super::code_of;

    fn words(source: &str) -> String {
        code_of(source).split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn comments_go() {
        assert_eq!(words("a // unsafe\nb /* x /* y */ z */ c"), "a b c");
    }

    #[test]
    fn literals_go() {
        assert_eq!(
            words(r##"f("a \" b", 'x', '\'', b"c", b'd', r"e\", r#"f"g"#, "é", 'é')"##),
            "f( , , , , , , , , )"
        );
    }

    #[test]
    fn lifetimes_and_raw_names_stay() {
        assert_eq!(
            words("fn f<'a>(x: &'a str) { r#type }"),
            "fn f<'a>(x: &'a str) { r#type }"
        );
        assert_eq!(words("for\"x\" in"), "for in");
    }

    #[test]
    fn lines_stay() {
        assert_eq!(code_of("\"a\nb\"\n/*\n*/x").matches('\n').count(), 3);
    }

    #[test]
    fn an_open_end_is_no_panic() {
        for source in ["\"", "'", "/*", "r#\"", "b'", "'\\", "\"\\"] {
            code_of(source);
        }
    }
}
