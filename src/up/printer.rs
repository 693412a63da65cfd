//! The output of processes as foreman prints it: whole lines, each after the time and the name of its process.

use std::collections::BTreeMap;

/// Bytes after which a line without an end is cut.
pub const LONGEST_LINE: usize = 64 << 10;
/// Least width of names (foreman).
const LEAST_WIDTH: usize = 6;
/// Colours of process types, in turn (foreman): cyan, yellow, green, magenta, red, blue.
const COLORS: [u8; 6] = [36, 33, 32, 35, 31, 34];
const WHITE: u8 = 37;

/// Format of printed lines.
#[derive(Debug, Clone)]
pub struct LinePrinter {
    width: usize,
    /// Colours by process type; `None`: no colours.
    colors: Option<BTreeMap<String, u8>>,
}

impl LinePrinter {
    /// Returns the printer for these process types, given with their numbers of instances.
    pub fn new<'t>(types: impl IntoIterator<Item = (&'t str, u32)>, colors: bool) -> Self {
        let types: Vec<(&str, u32)> = types.into_iter().collect();
        let most = types.iter().map(|(_, number)| *number).max().unwrap_or_default();
        let index = most.to_string().len() + 1;
        let longest = types.iter().map(|(name, _)| name.len() + index).max();
        let colors = colors.then(|| {
            let names = types.iter().map(|(name, _)| (*name).to_owned());
            names.zip(COLORS.into_iter().cycle()).collect()
        });
        Self {
            width: longest.unwrap_or_default().max(LEAST_WIDTH),
            colors,
        }
    }

    /// Returns a line as it is printed, with its end. `name` is that of a process, `tcp.1`, or `system`; the line passes as it is.
    pub fn line(&self, time: &str, name: &str, line: &[u8]) -> Vec<u8> {
        let kind = name.split('.').next().unwrap_or_default();
        let width = self.width;
        let head = match &self.colors {
            None => format!("{time} {name:<width$} | "),
            Some(colors) => {
                let color = colors.get(kind).copied().unwrap_or(WHITE);
                format!("\u{1b}[{color}m{time} {name:<width$} | \u{1b}[0m")
            }
        };
        [head.as_bytes(), line, b"\n"].concat()
    }
}

/// Splitter of a process's output into lines.
#[derive(Debug, Default)]
pub struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    /// Takes some output, and passes on the lines that end in it, without their ends.
    pub fn push(&mut self, mut output: &[u8], mut each: impl FnMut(&[u8])) {
        while let Some(end) = output.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = output.split_at(end);
            self.rest.extend_from_slice(line);
            each(chomp(&self.rest));
            self.rest.clear();
            output = rest.get(1..).unwrap_or_default();
        }
        self.rest.extend_from_slice(output);
        while self.rest.len() >= LONGEST_LINE {
            let rest = self.rest.split_off(LONGEST_LINE);
            each(&self.rest);
            self.rest = rest;
        }
    }

    /// Passes on the rest without a line end, if there is any.
    pub fn end(&mut self, mut each: impl FnMut(&[u8])) {
        if !self.rest.is_empty() {
            each(chomp(&self.rest));
            self.rest.clear();
        }
    }
}

fn chomp(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_padded_as_foreman_pads_them() {
        let rendered = |types: &[(&str, u32)], name: &str| {
            let printer = LinePrinter::new(types.iter().copied(), false);
            String::from_utf8(printer.line("12:00:00", name, b"x")).unwrap()
        };
        assert_eq!(rendered(&[("web", 1)], "web.1"), "12:00:00 web.1  | x\n");
        assert_eq!(
            rendered(&[("web", 1), ("worker", 2)], "web.1"),
            "12:00:00 web.1    | x\n"
        );
        assert_eq!(
            rendered(&[("web", 10), ("worker", 2)], "system"),
            "12:00:00 system    | x\n"
        );
    }

    #[test]
    fn colours_are_by_type() {
        let printer = LinePrinter::new([("web", 1), ("tcp", 1)], true);
        let line = |name| String::from_utf8(printer.line("12:00:00", name, b"x")).unwrap();
        assert_eq!(line("web.1"), "\u{1b}[36m12:00:00 web.1  | \u{1b}[0mx\n");
        assert_eq!(line("tcp.2"), "\u{1b}[33m12:00:00 tcp.2  | \u{1b}[0mx\n");
        assert_eq!(line("system"), "\u{1b}[37m12:00:00 system | \u{1b}[0mx\n");
    }

    #[test]
    fn output_is_cut_into_lines() {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        for part in ["a", "b\r\nc\n\nd", "e"] {
            lines.push(part.as_bytes(), |line| {
                found.push(String::from_utf8(line.to_vec()).unwrap());
            });
        }
        lines.end(|line| found.push(String::from_utf8(line.to_vec()).unwrap()));
        lines.end(|_| panic!("nothing is left"));
        assert_eq!(found, ["ab", "c", "", "de"]);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_nothing_grows(parts in prop::collection::vec(prop::collection::vec(0..4u8, 0..40_000), 0..6)) {
            let parts: Vec<Vec<u8>> = parts.into_iter().map(|part| part.into_iter().map(|byte| b"ab\nc"[usize::from(byte)]).collect()).collect();
            let mut lines = Lines::default();
            let mut found = Vec::new();
            for part in &parts {
                lines.push(part, |line| { assert!(line.len() <= LONGEST_LINE); found.extend_from_slice(line); });
            }
            lines.end(|line| found.extend_from_slice(line));
            let expected: Vec<u8> = parts.concat().into_iter().filter(|byte| *byte != b'\n').collect();
            prop_assert_eq!(found, expected);
        }
    }
}
