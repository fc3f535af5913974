//! Cuts a byte stream into the messages that Docker's log drivers see: lines, and pieces of 16 KiB of lines that
//! are longer. A piece that does not end a line carries no line end.

/// Longest message without its line end.
pub(crate) const MAX_MESSAGE: usize = 16 * 1024;

/// The unfinished line of one stream.
#[derive(Default)]
pub(crate) struct Splitter {
    partial: Vec<u8>,
}

impl Splitter {
    /// Hands every message that `data` completes to `emit`.
    pub(crate) fn push(&mut self, mut data: &[u8], mut emit: impl FnMut(&[u8])) {
        while !data.is_empty() {
            let room = MAX_MESSAGE - self.partial.len();
            let window = &data[..data.len().min(room + 1)];
            let line_end = window.iter().position(|b| *b == b'\n').map(|n| n + 1);
            // A message that is just full waits for its next byte, which may be the line end.
            let Some(take) = line_end.or_else(|| (data.len() > room).then_some(room)) else {
                self.partial.extend_from_slice(data);
                return;
            };
            if self.partial.is_empty() {
                emit(&data[..take]);
            } else {
                self.partial.extend_from_slice(&data[..take]);
                emit(&self.partial);
                self.partial.clear();
            }
            data = &data[take..];
        }
    }

    /// The stream ended: what is left is a message too.
    pub(crate) fn finish(&mut self, emit: impl FnOnce(&[u8])) {
        if !self.partial.is_empty() {
            emit(&self.partial);
            self.partial = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(chunks: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut s = Splitter::default();
        let mut out = Vec::new();
        for c in chunks {
            s.push(c, |m| out.push(m.to_vec()));
        }
        s.finish(|m| out.push(m.to_vec()));
        out
    }

    #[test]
    fn lines_over_several_reads() {
        assert_eq!(
            split(&[b"a\nb", b"c\n\nd"]),
            [b"a\n".to_vec(), b"bc\n".to_vec(), b"\n".to_vec(), b"d".to_vec()]
        );
    }

    #[test]
    fn long_lines_are_cut_at_16_kib() {
        let mut long = vec![b'x'; MAX_MESSAGE * 2 + 5];
        long.push(b'\n');
        let sizes: Vec<_> = split(&[&long]).iter().map(Vec::len).collect();
        assert_eq!(sizes, [MAX_MESSAGE, MAX_MESSAGE, 6]);
        let sizes: Vec<_> = long.chunks(1000).collect::<Vec<_>>();
        let sizes: Vec<_> = split(&sizes).iter().map(Vec::len).collect();
        assert_eq!(sizes, [MAX_MESSAGE, MAX_MESSAGE, 6]);
    }

    #[test]
    fn a_line_of_exactly_16_kib_stays_whole() {
        let mut line = vec![b'x'; MAX_MESSAGE];
        line.push(b'\n');
        assert_eq!(split(&[&line]).len(), 1);
        assert_eq!(split(&[&line[..MAX_MESSAGE], b"\n"]).len(), 1);
    }
}
