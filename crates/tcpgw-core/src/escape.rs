//! Escaping of foreign text (names of processes, comments, file names) for terminals and logs.
//!
//! A terminal obeys control characters: a name can clear the screen, set its title, or print a line that looks like one
//! of tcpgw. [`text`] is for the place where such text comes in: its result is one line. [`Screen`] is for the place
//! where text goes out: even if a text was not escaped before, no control character reaches a terminal except line
//! ends, tabs and colours.
//!
//! Source: ECMA-48 (control functions), UAX #9 (directional formatting characters), UTS #55 (how they mislead readers).

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;

/// The longest sequence that selects a colour which is let pass.
const LONGEST_COLOR: usize = 16;

/// Returns the text on one line: control characters, and characters that reorder or hide text, are written as escapes
/// such as `\n` or `\u{1b}`.
pub fn text(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if is_risky(c) {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    safe
}

/// Prefixes of the lines with which tcpgw reports trouble.
const LABELS: [&str; 3] = ["error:", "warning:", "note:"];

/// Returns the lines of a text, each escaped as [`text`] does. A line that looks like an error, a warning or a note of
/// tcpgw is indented.
pub fn lines(given: &str) -> String {
    each_line(given, text)
}

/// Returns the lines of a text, which may contain colours. A line that looks like an error, a warning or a note of
/// tcpgw is indented.
pub fn indented(given: &str) -> String {
    each_line(given, str::to_owned)
}

fn each_line(given: &str, show: impl Fn(&str) -> String) -> String {
    let mut safe = String::with_capacity(given.len());
    for line in given.split_inclusive('\n') {
        let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
        if LABELS.iter().any(|label| uncolored(line).starts_with(label)) {
            safe.push_str("    ");
        }
        safe.push_str(&show(line));
        safe.push_str(end);
    }
    safe
}

/// Returns the line without the colour sequences that it begins with.
fn uncolored(mut line: &str) -> &str {
    while let Color::Whole(length) = color(line.as_bytes()) {
        line = &line[length..];
    }
    line
}

/// Returns a path, escaped as [`text`] does, for messages.
pub fn path(path: &Path) -> String {
    text(&path.to_string_lossy())
}

/// Returns whether a terminal would obey the character instead of showing it, or it would mislead a reader.
fn is_risky(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Syntax of the escapes that replace risky characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EscapeSyntax {
    Text,
    Json,
}

/// A terminal, pipe or file that people and programs read. Line ends, tabs and colours (SGR) pass; other control
/// characters, those that reorder or hide text, and bytes that are no UTF-8 are escaped.
#[derive(Debug)]
pub struct Screen<W: Write> {
    out: W,
    form: EscapeSyntax,
    /// The first bytes of a character or colour sequence whose end has not been written yet.
    rest: Vec<u8>,
}

impl<W: Write> Screen<W> {
    /// Creates a screen for text.
    pub fn text(out: W) -> Self {
        let form = EscapeSyntax::Text;
        Self {
            out,
            form,
            rest: Vec::new(),
        }
    }

    /// Creates a screen for JSON; escapes keep the document equal.
    pub fn json(out: W) -> Self {
        let form = EscapeSyntax::Json;
        Self {
            out,
            form,
            rest: Vec::new(),
        }
    }

    fn show(&self, bytes: &[u8], is_end: bool) -> (String, usize) {
        let mut shown = String::with_capacity(bytes.len());
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            match color(rest) {
                Color::Whole(length) if self.form == EscapeSyntax::Text => {
                    shown.extend(rest[..length].iter().map(|byte| char::from(*byte)));
                    at += length;
                    continue;
                }
                Color::Begun if self.form == EscapeSyntax::Text && !is_end => return (shown, at),
                _ => {}
            }
            let Some(valid) = rest.utf8_chunks().next() else { break };
            if let Some(c) = valid.valid().chars().next() {
                self.put(c, &mut shown);
                at += c.len_utf8();
            } else if !is_end && rest.len() < 4 && is_begun(rest) {
                return (shown, at);
            } else {
                for byte in valid.invalid() {
                    let _ = write!(shown, "\\x{byte:02x}");
                }
                at += valid.invalid().len();
            }
        }
        (shown, at)
    }

    fn put(&self, c: char, shown: &mut String) {
        if matches!(c, '\n' | '\t') || !is_risky(c) {
            shown.push(c);
        } else if self.form == EscapeSyntax::Text {
            shown.extend(c.escape_default());
        } else {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                let _ = write!(shown, "\\u{unit:04x}");
            }
        }
    }

    fn pass(&mut self, bytes: &[u8], is_end: bool) -> io::Result<()> {
        let is_plain = |byte: &u8| matches!(byte, b'\n' | b'\t' | b' '..=b'~');
        if self.rest.is_empty() && bytes.iter().all(is_plain) {
            return self.out.write_all(bytes);
        }
        let mut all = std::mem::take(&mut self.rest);
        all.extend_from_slice(bytes);
        let (shown, done) = self.show(&all, is_end);
        self.rest = all.split_off(done);
        self.out.write_all(shown.as_bytes())
    }
}

impl<W: Write> Write for Screen<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.pass(bytes, false)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.pass(&[], true)?;
        self.out.flush()
    }
}

enum Color {
    Whole(usize),
    Begun,
    No,
}

/// Parses a colour sequence (`ESC [`, digits and semicolons, `m`) at the start of the bytes.
fn color(bytes: &[u8]) -> Color {
    let is_inner = |byte: &&u8| matches!(byte, b'0'..=b'9' | b';');
    match bytes {
        [0x1b] => Color::Begun,
        [0x1b, b'[', rest @ ..] => {
            let inner = rest.iter().take_while(is_inner).count();
            match rest.get(inner) {
                _ if inner > LONGEST_COLOR => Color::No,
                Some(b'm') => Color::Whole(inner + 3),
                None => Color::Begun,
                Some(_) => Color::No,
            }
        }
        _ => Color::No,
    }
}

/// Returns whether the bytes may be the start of a character of more than one byte.
fn is_begun(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_spelled_out() {
        for (given, shown) in [
            ("nginx", "nginx"),
            ("größe 名前", "größe 名前"),
            ("a\u{1b}]0;title\u{7}b", r"a\u{1b}]0;title\u{7}b"),
            ("x\nerror: y", r"x\nerror: y"),
            ("\u{9b}2J\u{7f}", r"\u{9b}2J\u{7f}"),
            ("a\u{202e}b\u{200b}", r"a\u{202e}b\u{200b}"),
        ] {
            assert_eq!(text(given), shown);
        }
        assert_eq!(path(Path::new("/a\rb")), r"/a\rb");
    }

    #[test]
    fn lines_stay_lines_and_none_passes_for_an_error() {
        assert_eq!(
            lines("services +1\nerror: x\n\u{1b}[2J\rwarning: y\n"),
            "services +1\n    error: x\n\\u{1b}[2J\\rwarning: y\n"
        );
        assert_eq!(lines("a"), "a");
        assert_eq!(
            indented("\u{1b}[1merror:\u{1b}[0m x\nnote: y"),
            "    \u{1b}[1merror:\u{1b}[0m x\n    note: y"
        );
    }

    fn through(pieces: &[&[u8]], make: fn(Vec<u8>) -> Screen<Vec<u8>>) -> String {
        let mut screen = make(Vec::new());
        for piece in pieces {
            screen.write_all(piece).unwrap();
        }
        screen.flush().unwrap();
        String::from_utf8(screen.out).unwrap()
    }

    #[test]
    fn lines_and_colors_pass_and_nothing_else() {
        let given = "\u{1b}[1;31merror:\u{1b}[0m a\tb\n\u{1b}[2J\u{1b}]0;x\u{7}ü\u{9b}m\r";
        let shown = "\u{1b}[1;31merror:\u{1b}[0m a\tb\n\\u{1b}[2J\\u{1b}]0;x\\u{7}ü\\u{9b}m\\r";
        assert_eq!(through(&[given.as_bytes()], Screen::text), shown);
        assert_eq!(through(&[b"\xff\x1b"], Screen::text), "\\xff\\u{1b}");
    }

    #[test]
    fn json_stays_the_same_document() {
        let value = serde_json::json!({"name": "a\u{1b}[2J\u{9b}\u{202e}\u{e0041}\n\"ü"});
        let text = through(&[value.to_string().as_bytes()], Screen::json);
        assert!(!text.chars().any(is_risky), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }

    proptest! {
        #[test]
        fn it_matters_not_in_how_many_pieces_text_comes(
            bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(0x1b), Just(b'['), Just(b'm'), Just(0xc2)], 0..40),
            at in prop::collection::vec(0_usize..40, 0..4),
        ) {
            let mut at: Vec<usize> = at.into_iter().filter(|at| *at <= bytes.len()).collect();
            at.sort_unstable();
            let mut pieces = Vec::new();
            let mut from = 0;
            for to in at.into_iter().chain([bytes.len()]) {
                pieces.push(&bytes[from..to]);
                from = to;
            }
            for make in [Screen::text, Screen::json] {
                prop_assert_eq!(through(&pieces, make), through(&[&bytes], make));
            }
        }

        #[test]
        fn nothing_risky_is_left(text: String) {
            prop_assert!(!super::text(&text).chars().any(is_risky));
        }
    }
}
