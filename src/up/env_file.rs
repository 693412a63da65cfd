//! `.env` files, read as foreman reads them.
//!
//! A line `KEY=VALUE`, with a key of letters, digits and `_` from the first column on, is a variable; every other line is passed
//! over. A value in single quotes is taken without them. In one in double quotes `\n` is a line end, and a backslash before any
//! other character goes. Nothing is expanded, and a `#` within a value belongs to it.

use thiserror::Error;

/// Maximum size of such a file, in bytes.
pub const MAX_SIZE: u64 = 1 << 20;

/// Reason why a file cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum EnvFileError {
    /// A value that the environment cannot hold.
    #[error("line {0}: a value must not contain a NUL character")]
    Nul(usize),
}

/// Contents of an environment file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EnvFile {
    /// Keys and values in the order of the file; of two with one key the later one counts.
    pub variables: Vec<(String, String)>,
    /// Lines, by number from 1, that are likely to mean something else than they do, and what they do.
    pub remarks: Vec<(usize, &'static str)>,
}

/// Reads the text of an environment file.
///
/// # Errors
/// Fails with [`EnvFileError`] when a value has a NUL byte.
pub fn parse(text: &str) -> Result<EnvFile, EnvFileError> {
    let mut file = EnvFile::default();
    for (at, line) in text.split('\n').enumerate() {
        let line = line.strip_suffix('\r').unwrap_or(line);
        let is_key =
            |key: &str| !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let Some((key, value)) = line.split_once('=').filter(|(key, _)| is_key(key)) else {
            file.remarks.extend(ignored(line).map(|why| (at + 1, why)));
            continue;
        };
        if value.contains('\0') {
            return Err(EnvFileError::Nul(at + 1));
        }
        file.remarks.extend(remark(value).map(|what| (at + 1, what)));
        file.variables.push((key.to_owned(), unquoted(value)));
    }
    Ok(file)
}

/// Returns why a line is ignored; `None`: it is empty or a comment.
fn ignored(line: &str) -> Option<&'static str> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        None
    } else if line.starts_with("export ") {
        Some("ignored: a line must be KEY=VALUE, without `export`")
    } else if line.contains('=') {
        Some(
            "ignored: a line must be KEY=VALUE, where the key begins the line, consists of letters, digits and _, and has no space after it",
        )
    } else {
        Some("ignored, because it is not KEY=VALUE")
    }
}

/// Returns a remark about a value that can be mistaken for another one.
fn remark(value: &str) -> Option<&'static str> {
    let first = value.chars().next()?;
    let is_quoted = value.len() > 1 && value.ends_with(first);
    if matches!(first, '"' | '\'') && !is_quoted {
        Some("the quotation mark is part of the value, because the value does not end with one")
    } else if !matches!(first, '"' | '\'') && value.contains(" #") {
        Some("the `#` and what follows are part of the value: a comment needs a line of its own")
    } else {
        None
    }
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
        parse(line).unwrap().variables.pop()
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

    #[test]
    fn what_is_not_as_it_looks_is_told() {
        let text = "A=1\n\n# comment\nexport B=2\nX = 5\nBAD\nC=\"unclosed\nD=x # c\nE=\"a # b\"\nF='\n";
        let remarks: Vec<(usize, &str)> = parse(text).unwrap().remarks;
        let words = [
            (4, "`export`"),
            (5, "no space"),
            (6, "not KEY=VALUE"),
            (7, "quotation mark"),
            (8, "`#`"),
            (10, "quotation mark"),
        ];
        assert_eq!(remarks.len(), words.len(), "{remarks:?}");
        for ((line, why), (expected, word)) in remarks.into_iter().zip(words) {
            assert!(line == expected && why.contains(word), "{line}: {why}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "[A-Z_='\"\\\\n# \r\n]{0,80}|\\PC{0,60}") {
            if let Ok(found) = parse(&text) {
                for (key, value) in found.variables {
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
