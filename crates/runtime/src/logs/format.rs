//! The formats of log records.
//!
//! `json-file` is Docker's: an object per line with `log`, `stream`, `attrs` and `time`. `local` is ours: a
//! length, nanoseconds since 1970, a byte for the stream, the message, and the length again, so that a file can
//! be read from its end.

use std::collections::BTreeMap;
use std::io::Write;

use bytes::Bytes;
use serde::Deserialize;
use tripod_agent::ports::{LogLine, OutputStream};
use tripod_model::Time;

/// Appends `data` as the inside of a JSON string, as Go's encoder writes it: bytes that are not UTF-8 become
/// U+FFFD; `<`, `>`, `&`, U+2028 and U+2029 are escaped.
pub(crate) fn json_escape(out: &mut Vec<u8>, data: &[u8]) {
    for chunk in data.utf8_chunks() {
        let text = chunk.valid();
        let bytes = text.as_bytes();
        let mut from = 0;
        let mut i = 0;
        while i < bytes.len() {
            let (escape, width): (&[u8], usize) = match bytes[i] {
                b'"' => (b"\\\"", 1),
                b'\\' => (b"\\\\", 1),
                b'\n' => (b"\\n", 1),
                b'\r' => (b"\\r", 1),
                b'\t' => (b"\\t", 1),
                b'<' => (b"\\u003c", 1),
                b'>' => (b"\\u003e", 1),
                b'&' => (b"\\u0026", 1),
                c @ 0..0x20 => {
                    out.extend_from_slice(&bytes[from..i]);
                    let _ = write!(out, "\\u{c:04x}");
                    i += 1;
                    from = i;
                    continue;
                }
                0xe2 if bytes[i..].starts_with(&[0xe2, 0x80, 0xa8]) => (b"\\u2028", 3),
                0xe2 if bytes[i..].starts_with(&[0xe2, 0x80, 0xa9]) => (b"\\u2029", 3),
                _ => {
                    i += 1;
                    continue;
                }
            };
            out.extend_from_slice(&bytes[from..i]);
            out.extend_from_slice(escape);
            i += width;
            from = i;
        }
        out.extend_from_slice(&bytes[from..]);
        for _ in chunk.invalid() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
}

/// Appends a record of the `json-file` driver. `attrs` is the rendered object or empty.
pub(crate) fn json_record(out: &mut Vec<u8>, stream: OutputStream, at: Time, data: &[u8], attrs: &str) {
    out.extend_from_slice(b"{\"log\":\"");
    json_escape(out, data);
    out.extend_from_slice(match stream {
        OutputStream::Stdout => b"\",\"stream\":\"stdout\"" as &[u8],
        OutputStream::Stderr => b"\",\"stream\":\"stderr\"",
    });
    if !attrs.is_empty() {
        out.extend_from_slice(b",\"attrs\":");
        out.extend_from_slice(attrs.as_bytes());
    }
    let _ = writeln!(out, ",\"time\":\"{at}\"}}");
}

/// Appends a record of the `local` driver.
pub(crate) fn local_record(out: &mut Vec<u8>, stream: OutputStream, at: Time, data: &[u8]) {
    let len = (LOCAL_HEAD + data.len()) as u32;
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(
        &i64::try_from(at.as_nanosecond())
            .unwrap_or(i64::MAX)
            .to_le_bytes(),
    );
    out.push(if stream == OutputStream::Stdout { 1 } else { 2 });
    out.extend_from_slice(data);
    out.extend_from_slice(&len.to_le_bytes());
}

/// Bytes of time and stream.
pub(crate) const LOCAL_HEAD: usize = 9;

/// Reads the body of a `local` record (without the lengths).
pub(crate) fn parse_local(body: &[u8]) -> Option<LogLine> {
    let (nanos, rest) = body.split_first_chunk::<8>()?;
    let (stream, data) = rest.split_first()?;
    Some(LogLine {
        stream: if *stream == 1 {
            OutputStream::Stdout
        } else {
            OutputStream::Stderr
        },
        at: Time::from_nanosecond(i64::from_le_bytes(*nanos).into()).ok()?,
        data: Bytes::copy_from_slice(data),
        attrs: None,
    })
}

#[derive(Deserialize)]
struct JsonLine<'a> {
    #[serde(borrow, default)]
    log: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    stream: std::borrow::Cow<'a, str>,
    #[serde(default)]
    attrs: Option<BTreeMap<String, String>>,
    time: Time,
}

/// Reads a line of the `json-file` driver; `None` when it is not one (a torn write).
pub(crate) fn parse_json(line: &[u8]) -> Option<LogLine> {
    let l: JsonLine<'_> = serde_json::from_slice(line).ok()?;
    Some(LogLine {
        stream: if l.stream == "stderr" {
            OutputStream::Stderr
        } else {
            OutputStream::Stdout
        },
        at: l.time,
        data: Bytes::copy_from_slice(l.log.as_bytes()),
        attrs: l.attrs.map(|a| {
            a.iter()
                .map(|(k, v)| format!("{k}={v}"))
                .collect::<Vec<_>>()
                .join(",")
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_file_is_dockers() {
        let at: Time = "2026-11-23T08:00:00.120000001Z".parse().unwrap();
        let mut out = Vec::new();
        json_record(
            &mut out,
            OutputStream::Stderr,
            at,
            b"a<b>&\"\x01\xff\xe2\x80\xa8\n",
            "{\"k\":\"v\"}",
        );
        assert_eq!(
            String::from_utf8(out.clone()).unwrap(),
            "{\"log\":\"a\\u003cb\\u003e\\u0026\\\"\\u0001\\ufffd\\u2028\\n\",\"stream\":\"stderr\",\"attrs\":{\"k\":\"v\"},\"time\":\"2026-11-23T08:00:00.120000001Z\"}\n"
        );
        let line = parse_json(out.trim_ascii_end()).unwrap();
        assert_eq!(line.stream, OutputStream::Stderr);
        assert_eq!(line.at, at);
        assert_eq!(&line.data[..], "a<b>&\"\x01\u{fffd}\u{2028}\n".as_bytes());
        assert_eq!(line.attrs.as_deref(), Some("k=v"));
    }

    #[test]
    fn torn_lines_are_not_records() {
        assert!(parse_json(b"{\"log\":\"abc").is_none());
        assert!(parse_local(b"abc").is_none());
    }

    #[test]
    fn local_round_trip() {
        let at: Time = "2026-11-23T08:00:00.5Z".parse().unwrap();
        let mut out = Vec::new();
        local_record(&mut out, OutputStream::Stdout, at, b"hello\n");
        let n = u32::from_le_bytes(out[..4].try_into().unwrap()) as usize;
        assert_eq!(out.len(), n + 8);
        let line = parse_local(&out[4..4 + n]).unwrap();
        assert_eq!((line.at, &line.data[..]), (at, &b"hello\n"[..]));
    }
}
