//! The Procfile: the names of an app's process types, and the command of each.
//!
//! Lines are read as foreman reads them: `NAME: COMMAND` with a name of letters, digits, `_` and `-` at the beginning of a line;
//! every other line is ignored. Stricter than foreman are the lengths, and that a name stands there once.

use std::fmt;

use thiserror::Error;

/// Maximum size of a Procfile, in bytes.
pub const MAX_SIZE: u64 = 1 << 20;
/// Maximum number of process types.
pub const MAX_TYPES: usize = 64;
/// Maximum length of a name, in bytes.
pub const MAX_NAME: usize = 32;
/// Maximum length of a command, in bytes. The kernel's limit for one argument is 128 KiB (`execve(2)`).
pub const MAX_COMMAND: usize = 64 << 10;

/// The name of a process type, such as `web`: letters, digits, `_` and `-`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TypeName(Box<str>);

impl TypeName {
    /// Returns the name, if it is one.
    pub fn new(text: &str) -> Option<Self> {
        let is_name = (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(is_of_name);
        is_name.then(|| Self(text.into()))
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TypeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A process type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessType {
    /// Name of the type.
    pub name: TypeName,
    /// Command for `sh -c`.
    pub command: String,
}

/// A Procfile that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Procfile {
    /// The process types, in the order of the file; at least one.
    pub types: Vec<ProcessType>,
    /// The numbers of lines, from 1, that were ignored although they are neither empty nor comments.
    pub ignored: Vec<usize>,
}

/// Reason why a Procfile cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProcfileError {
    /// A name occurs twice.
    #[error("line {line}: {name} is defined already, on line {first}: give each process type a name of its own")]
    Twice {
        /// Name that occurs twice.
        name: TypeName,
        /// Line of the second occurrence.
        line: usize,
        /// Line of the first occurrence.
        first: usize,
    },
    /// A name is too long.
    #[error("line {0}: the name of a process type must have {MAX_NAME} characters at most")]
    LongName(usize),
    /// A command is too long.
    #[error("line {0}: a command must have {MAX_COMMAND} bytes at most: put it into a script")]
    LongCommand(usize),
    /// A command cannot be run.
    #[error("line {0}: a command must not contain a NUL character")]
    Nul(usize),
    /// The file has too many process types.
    #[error("there are more than {MAX_TYPES} process types")]
    TooMany,
    /// The file has no process type.
    #[error("defines no process type: write a line such as `tcp: npm run start-tcp`")]
    Empty,
}

impl Procfile {
    /// Reads the text of a Procfile.
    ///
    /// # Errors
    /// Fails with [`ProcfileError`] when the text has no process type or too many, a name twice, or a name or command
    /// that cannot be used.
    pub fn parse(text: &str) -> Result<Self, ProcfileError> {
        let (mut types, mut lines, mut ignored) = (Vec::<ProcessType>::new(), Vec::new(), Vec::new());
        for (at, line) in text.split('\n').enumerate() {
            let at = at + 1;
            let line = line.strip_suffix('\r').unwrap_or(line);
            let Some((name, command)) = entry(line) else {
                if !line.trim().is_empty() && !line.trim_start().starts_with('#') {
                    ignored.push(at);
                }
                continue;
            };
            let name = TypeName::new(name).ok_or(ProcfileError::LongName(at))?;
            if command.len() > MAX_COMMAND {
                return Err(ProcfileError::LongCommand(at));
            }
            if command.contains('\0') {
                return Err(ProcfileError::Nul(at));
            }
            if let Some(first) = types.iter().position(|known| known.name == name) {
                let first = lines[first];
                return Err(ProcfileError::Twice { name, line: at, first });
            }
            if types.len() == MAX_TYPES {
                return Err(ProcfileError::TooMany);
            }
            lines.push(at);
            types.push(ProcessType {
                name,
                command: command.to_owned(),
            });
        }
        if types.is_empty() {
            return Err(ProcfileError::Empty);
        }
        Ok(Self { types, ignored })
    }
}

/// Splits a line into name and command, by the pattern `/^([A-Za-z0-9_-]+):\s*(.+)$/`.
fn entry(line: &str) -> Option<(&str, &str)> {
    let (name, rest) = line.split_once(':')?;
    // White space as foreman's `\s` has it.
    let command = rest.trim_start_matches([' ', '\t', '\r', '\u{b}', '\u{c}']);
    let is_entry = !name.is_empty() && name.bytes().all(is_of_name) && !command.is_empty();
    is_entry.then_some((name, command))
}

fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(text: &str) -> Vec<(String, String)> {
        let file = Procfile::parse(text).unwrap();
        file.types
            .into_iter()
            .map(|one| (one.name.to_string(), one.command))
            .collect()
    }

    #[test]
    fn lines_are_read_as_foreman_reads_them() {
        let text = "# comment\nweb: npm start\r\ntcp:\tnpm run start-tcp  \n\nnot a line\nworker-2_x:a: b\n web2: x\n:x\nempty:\n";
        let file = Procfile::parse(text).unwrap();
        let found: Vec<_> = file
            .types
            .iter()
            .map(|one| (one.name.as_str(), one.command.as_str()))
            .collect();
        assert_eq!(
            found,
            [
                ("web", "npm start"),
                ("tcp", "npm run start-tcp  "),
                ("worker-2_x", "a: b")
            ]
        );
        assert_eq!(file.ignored, [5, 7, 8, 9]);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_its_line() {
        for (text, message) in [
            ("", "defines no process type"),
            ("web npm start", "defines no process type"),
            ("web: a\ntcp: b\nweb: c", "line 3: web is defined already, on line 1"),
            ("web: a\0b", "line 1: a command must not contain a NUL"),
        ] {
            let error = Procfile::parse(text).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
        let long = format!("{}: x", "n".repeat(MAX_NAME + 1));
        assert_eq!(Procfile::parse(&long), Err(ProcfileError::LongName(1)));
        let long = format!("x: {}", "n".repeat(MAX_COMMAND + 1));
        assert_eq!(Procfile::parse(&long), Err(ProcfileError::LongCommand(1)));
        let many: Vec<String> = (0..=MAX_TYPES).map(|at| format!("p{at}: x")).collect();
        assert_eq!(Procfile::parse(&many.join("\n")), Err(ProcfileError::TooMany));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[a-z0-9_:# \r\n\t-]{0,120}|\\PC{0,60}") {
            if let Ok(file) = Procfile::parse(&text) {
                prop_assert!(!file.types.is_empty() && file.types.len() <= MAX_TYPES);
                for one in &file.types {
                    prop_assert!(TypeName::new(one.name.as_str()).is_some());
                    prop_assert!(!one.command.is_empty() && !one.command.contains('\n'));
                }
            }
        }

        #[test]
        fn what_is_written_is_read_back(names in prop::collection::btree_set("[A-Za-z0-9_-]{1,8}", 1..8), command in "[!-~][ -~]{0,30}") {
            let lines: Vec<String> = names.iter().map(|name| format!("{name}: {command}")).collect();
            let expected: Vec<_> = names.into_iter().map(|name| (name, command.clone())).collect();
            prop_assert_eq!(shown(&lines.join("\n")), expected);
        }
    }
}
