//! Problems of an input: all of them at once, each with its place.
//!
//! Owns how places and lists of problems are shown. Knows nothing of what is checked.

use std::error::Error;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Number of problems of one input that are kept; further ones are only counted.
pub const MAX_PROBLEMS: usize = 100;

const MAX_QUOTED_CHARS: usize = 64;

/// An error in an input, or a warning about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputProblem {
    /// Place of the problem: a JSON path, a line and column, or a service by name.
    pub place: String,
    /// Description of what is wrong and what is accepted, as a lowercase fragment.
    pub message: String,
}

impl fmt::Display for InputProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// The first [`MAX_PROBLEMS`] problems of one input, and how many more there are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputProblems {
    problems: Vec<InputProblem>,
    more: usize,
}

impl InputProblems {
    /// Adds a problem. Formats nothing once the list is full.
    pub fn add(&mut self, place: &dyn fmt::Display, message: impl fmt::Display) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(InputProblem {
                place: place.to_string(),
                message: message.to_string(),
            });
        } else {
            self.more += 1;
        }
    }

    /// Adds a problem in front of all others, so that it is shown even if the list is full.
    pub fn add_first(&mut self, place: &dyn fmt::Display, message: impl fmt::Display) {
        if self.problems.len() == MAX_PROBLEMS {
            self.problems.pop();
            self.more += 1;
        }
        self.problems.insert(
            0,
            InputProblem {
                place: place.to_string(),
                message: message.to_string(),
            },
        );
    }

    /// Returns whether there is no problem.
    pub fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// Returns the number of problems, including those that were not kept.
    pub fn total(&self) -> usize {
        self.problems.len() + self.more
    }

    /// Returns the problems that were kept, in the order of the input.
    pub fn iter(&self) -> std::slice::Iter<'_, InputProblem> {
        self.problems.iter()
    }

    /// Returns `Ok` when there is no problem, otherwise the problems as an error.
    pub fn into_result(self) -> Result<(), Self> {
        if self.is_empty() { Ok(()) } else { Err(self) }
    }
}

impl<'a> IntoIterator for &'a InputProblems {
    type Item = &'a InputProblem;
    type IntoIter = std::slice::Iter<'a, InputProblem>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl FromIterator<InputProblem> for InputProblems {
    fn from_iter<I: IntoIterator<Item = InputProblem>>(iter: I) -> Self {
        let mut problems = Self::default();
        for problem in iter {
            problems.add(&problem.place, &problem.message);
        }
        problems
    }
}

impl fmt::Display for InputProblems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        if self.more > 0 {
            write!(f, "\nand {} more", self.more)?;
        }
        Ok(())
    }
}

impl Error for InputProblems {}

/// A JSON path that is formatted only when it is shown.
#[derive(Debug, Clone, Copy)]
pub(crate) enum JsonPath<'a> {
    Document,
    Key(&'a JsonPath<'a>, &'a str),
    Index(&'a JsonPath<'a>, usize),
}

impl<'a> JsonPath<'a> {
    pub(crate) fn key(&'a self, key: &'a str) -> JsonPath<'a> {
        JsonPath::Key(self, key)
    }

    pub(crate) fn index(&'a self, index: usize) -> JsonPath<'a> {
        JsonPath::Index(self, index)
    }
}

impl fmt::Display for JsonPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            JsonPath::Document => f.write_str("document"),
            JsonPath::Index(JsonPath::Document, i) => write!(f, "[{i}]"),
            JsonPath::Index(parent, i) => write!(f, "{parent}[{i}]"),
            JsonPath::Key(JsonPath::Document, key) if is_plain(key) => f.write_str(key),
            JsonPath::Key(JsonPath::Document, key) => write!(f, "[{}]", Quoted(key)),
            JsonPath::Key(parent, key) if is_plain(key) => write!(f, "{parent}.{key}"),
            JsonPath::Key(parent, key) => write!(f, "{parent}[{}]", Quoted(key)),
        }
    }
}

fn is_plain(key: &str) -> bool {
    (1..=MAX_QUOTED_CHARS).contains(&key.len())
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// Text of the input in quotes: escaped, so that it cannot control a terminal, and cut when it is long.
pub(crate) struct Quoted<'a>(pub(crate) &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(MAX_QUOTED_CHARS) {
            Some((end, _)) => write!(f, "{:?}...", &self.0[..end]),
            None => write!(f, "{:?}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_reads_as_a_json_path() {
        let services = JsonPath::Document.key("services");
        let service = services.index(3);
        assert_eq!(service.key("port").to_string(), "services[3].port");
        assert_eq!(service.key("a.b\u{1b}").to_string(), r#"services[3]["a.b\u{1b}"]"#);
        assert_eq!(JsonPath::Document.to_string(), "document");
        assert_eq!(JsonPath::Document.key("").to_string(), r#"[""]"#);
        assert_eq!(JsonPath::Document.index(1).to_string(), "[1]");
    }

    #[test]
    fn the_list_is_bounded_and_counts_the_rest() {
        let mut problems = InputProblems::default();
        for i in 0..MAX_PROBLEMS + 5 {
            problems.add(&i, "is odd");
        }
        problems.add_first(&"line 1 column 2", "no");
        assert_eq!(problems.iter().count(), MAX_PROBLEMS);
        assert_eq!(problems.total(), MAX_PROBLEMS + 6);
        let text = problems.to_string();
        assert!(text.starts_with("line 1 column 2: no\n0: is odd\n"), "{text}");
        assert!(text.ends_with("\nand 6 more"), "{text}");
    }

    #[test]
    fn problems_are_data() {
        let problems: InputProblems = [InputProblem {
            place: "a".into(),
            message: "b".into(),
        }]
        .into_iter()
        .collect();
        let json = serde_json::to_string(&problems).unwrap();
        assert_eq!(json, r#"{"problems":[{"place":"a","message":"b"}],"more":0}"#);
        assert_eq!(problems.clone().into_result(), Err(problems));
        assert_eq!(InputProblems::default().into_result(), Ok(()));
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        let long = "ä".repeat(100);
        assert_eq!(
            Quoted(&long).to_string(),
            format!("\"{}\"...", "ä".repeat(MAX_QUOTED_CHARS))
        );
    }
}
