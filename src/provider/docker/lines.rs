//! Lines of the stream of the engine's events, in bounded memory.

/// Size of the longest event that is read, in bytes. An event has all labels of its container.
pub(super) const LONGEST_EVENT: usize = 4 << 20;
/// Size of the beginning and of the end that are kept of a longer one, in bytes.
const KEPT: usize = 1024;

/// Lines of a stream that arrives in pieces.
#[derive(Debug, Default)]
pub(super) struct StreamLines {
    /// Text that is no whole line yet.
    buffer: Vec<u8>,
    /// Number of bytes of it that have no end of a line.
    searched: usize,
    /// Beginning and last bytes of a line that is too long, whose end has not arrived.
    cut: Option<(Vec<u8>, Vec<u8>)>,
}

/// A line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum StreamLine {
    /// The line.
    Whole(Vec<u8>),
    /// Beginning and end of a line that is too long.
    TooLong { head: Vec<u8>, tail: Vec<u8> },
}

impl StreamLines {
    /// Adds what has arrived.
    pub(super) fn push(&mut self, data: &[u8]) {
        self.buffer.extend_from_slice(data);
    }

    /// Returns the next line that is not empty.
    pub(super) fn next(&mut self) -> Option<StreamLine> {
        loop {
            let rest = self.buffer.get(self.searched..).unwrap_or_default();
            let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
                self.searched = self.buffer.len();
                if self.cut.is_some() || self.buffer.len() > LONGEST_EVENT {
                    let text = std::mem::take(&mut self.buffer);
                    self.searched = 0;
                    self.cut(&text);
                }
                return None;
            };
            let line: Vec<u8> = self.buffer.drain(..=self.searched + end).collect();
            self.searched = 0;
            if self.cut.is_some() || line.len() > LONGEST_EVENT {
                self.cut(&line);
                let (head, tail) = self.cut.take().unwrap_or_default();
                return Some(StreamLine::TooLong { head, tail });
            }
            if !line.trim_ascii().is_empty() {
                return Some(StreamLine::Whole(line));
            }
        }
    }

    /// Adds text to a line that is too long.
    fn cut(&mut self, text: &[u8]) {
        let (_, tail) = self.cut.get_or_insert_with(|| {
            let head = text.get(..KEPT).unwrap_or(text);
            (head.to_vec(), Vec::new())
        });
        tail.extend_from_slice(text.get(text.len().saturating_sub(KEPT)..).unwrap_or_default());
        tail.drain(..tail.len().saturating_sub(KEPT));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_the_same_in_pieces_of_any_size_and_those_that_are_too_long_take_no_memory() {
        let long = format!("head{}tail\n", "x".repeat(2 * LONGEST_EVENT));
        let text = ["a\n\n", &long, "b\n", &long, "c\nd"].concat();
        for size in [1000, 65_536, 64 << 20] {
            let (mut lines, mut found) = (StreamLines::default(), Vec::new());
            for piece in text.as_bytes().chunks(size) {
                lines.push(piece);
                while let Some(line) = lines.next() {
                    found.push(match line {
                        StreamLine::Whole(line) => String::from_utf8(line).unwrap(),
                        StreamLine::TooLong { head, tail } => {
                            assert!(head.len() <= KEPT && tail.len() <= KEPT);
                            assert!(head.starts_with(b"headx") && tail.ends_with(b"xtail\n"));
                            "long".to_owned()
                        }
                    });
                }
                assert!(lines.buffer.len() <= LONGEST_EVENT);
            }
            assert_eq!(found, ["a\n", "long", "b\n", "long", "c\n"], "{size}");
        }
    }
}
