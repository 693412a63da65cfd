//! `.env` files, read as foreman reads them.
//!
//! A line `KEY=VALUE`, with a key of letters, digits and `_` from the first column on, is a variable; every other line is passed
//! over. A value in single quotes is taken without them. In one in double quotes `\n` is a line end, and a backslash before any
//! other character goes. Nothing is expanded, and a `#` within a value belongs to it.

use thiserror::Error;

/// Maximum size of such a file, in bytes.
pub const MAX_SIZE: u64 = 1 << 20;

/// Why a file cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum EnvFileError {
    /// A value that the environment cannot hold.
    #[error("line {0}: a value must not contain a NUL character")]
    Nul(usize),
}

/// Reads the text of a file: keys and values in its order; the later of two with one key counts.
///
/// # Errors
/// [`EnvFileError`].
pub fn parse(text: &str) -> Result<Vec<(String, String)>, EnvFileError> {
    let mut variables = Vec::new();
    for (at, line) in text.split('\n').enumerate() {
        let line = line.strip_suffix('\r').unwrap_or(line);
        let Some((key, value)) = line.split_once('=') else {
            continue;
        };
        let is_key = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !is_key {
            continue;
        }
        if value.contains('\0') {
            return Err(EnvFileError::Nul(at + 1));
        }
        variables.push((key.to_owned(), unquoted(value)));
    }
    Ok(variables)
}

fn unquoted(value: &str) -> String {
    let within = |quote: char| value.strip_prefix(quote)?.strip_suffix(quote);
    if let Some(inner) = within('\'') {
        return inner.to_owned();
    }
    let Some(inner) = within('"') else {
        return value.to_owned();
    };
    // First `\n`, then what else is escaped: foreman's two passes, of which the second takes no line end.
    let first = inner.replace("\\n", "\n");
    let mut plain = String::with_capacity(first.len());
    let mut chars = first.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, chars.peek()) {
            ('\\', Some(next)) if *next != '\n' => plain.extend(chars.next()),
            _ => plain.push(c),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value(line: &str) -> Option<(String, String)> {
        parse(line).unwrap().pop()
    }

    #[test]
    fn values_are_read_as_foreman_reads_them() {
        for (line, expected) in [
            ("A=b", Some(("A", "b"))),
            ("A=", Some(("A", ""))),
            ("1A_b=c=d", Some(("1A_b", "c=d"))),
            ("A= b # c ", Some(("A", " b # c "))),
            ("A='b'", Some(("A", "b"))),
            ("A='b'c'", Some(("A", "b'c"))),
            ("A='", Some(("A", "'"))),
            ("A='$HOME \\n'", Some(("A", "$HOME \\n"))),
            (r#"A="b\nc\"d\\e""#, Some(("A", "b\nc\"d\\e"))),
            (r#"A="b\\n""#, Some(("A", "b\\\n"))),
            (r#"A="b" "#, Some(("A", "\"b\" "))),
            (r#"A="b\""#, Some(("A", "b\\"))),
            ("A=b\r", Some(("A", "b"))),
            ("export A=b", None),
            (" A=b", None),
            ("# A=b", None),
            ("A-B=c", None),
            ("=c", None),
            ("A", None),
        ] {
            let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
            assert_eq!(value(line), expected, "{line:?}");
        }
        assert_eq!(parse("A=1\nB=a\0b"), Err(EnvFileError::Nul(2)));
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "[A-Z_='\"\\\\n# \r\n]{0,80}|\\PC{0,60}") {
            if let Ok(found) = parse(&text) {
                for (key, value) in found {
                    prop_assert!(!key.is_empty() && !key.contains('='));
                    prop_assert!(!value.contains('\0'));
                }
            }
        }

        #[test]
        fn what_is_single_quoted_is_read_back(text in "[^\0\r\n]{0,40}") {
            prop_assert_eq!(value(&format!("K='{text}'")), Some(("K".to_owned(), text)));
        }
    }
}
