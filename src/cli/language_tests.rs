//! Doc comments say first what an item is or does: none begins with a pronoun or a question word, and none refers to the item before
//! it. Sections about errors say when they occur.
//!
//! Doc comments of clap are the command line's help.

use std::fs;

use crate::source_tests::{files, root, rust};

/// Words that a summary does not begin with, since they stand for something that the reader has to guess.
const RIDDLES: &[&str] = &[
    "Who", "What", "How", "Which", "Why", "That", "It", "Whose", "So", "Of", "To", "By", "Somebody", "Nobody",
    "Nothing", "Whoever", "Those",
];
/// Beginnings of summaries that refer to another item.
const REFERENCES: &[&str] = &[
    "The same,",
    "The same with",
    "Does the same",
    "Does it",
    "Does so",
    "Likewise",
];
/// Number of summaries that there are at least, so that the test does not pass because it found none.
const FEWEST: usize = 4000;
/// Number of sections about errors that there are at least.
const FEWEST_SECTIONS: usize = 300;

#[test]
fn no_summary_begins_with_a_riddle() {
    let sources = [rust(&root().join("src")), rust(&root().join("crates"))].concat();
    let (mut seen, mut riddles) = (0, Vec::new());
    for path in sources {
        let text = fs::read_to_string(&path).expect("a text");
        let mut is_begun = false;
        for (number, line) in text.lines().enumerate() {
            let line = line.trim_start();
            let comment = line.strip_prefix("///").or_else(|| line.strip_prefix("//!"));
            if let Some(summary) = comment.filter(|_| !is_begun) {
                seen += 1;
                let first = summary.split_whitespace().next().unwrap_or_default();
                let first = first.trim_end_matches(|letter: char| !letter.is_alphanumeric());
                let refers = REFERENCES.iter().any(|words| summary.trim_start().starts_with(words));
                if RIDDLES.contains(&first) || refers {
                    riddles.push(format!("{}:{}:{summary}", path.to_string_lossy(), number + 1));
                }
            }
            is_begun = comment.is_some();
        }
    }
    assert!(seen > FEWEST, "{seen} summaries were found");
    assert!(riddles.is_empty(), "{}", riddles.join("\n"));
}

#[test]
fn sections_about_errors_say_when_they_occur() {
    let sources = [rust(&root().join("src")), rust(&root().join("crates"))].concat();
    let (mut seen, mut vague) = (0, Vec::new());
    for path in sources {
        let text = fs::read_to_string(&path).expect("a text");
        let comments = text
            .lines()
            .map(|line| line.trim_start().strip_prefix("///").map(str::trim));
        let mut is_heading_last = false;
        for (number, comment) in comments.enumerate() {
            match comment {
                Some("# Errors") => is_heading_last = true,
                Some("") => {}
                Some(sentence) if is_heading_last => {
                    seen += 1;
                    is_heading_last = false;
                    if !["Fails ", "Never fails"]
                        .iter()
                        .any(|words| sentence.starts_with(words))
                    {
                        vague.push(format!("{}:{}: {sentence}", path.to_string_lossy(), number + 1));
                    }
                }
                _ => is_heading_last = false,
            }
        }
    }
    assert!(seen > FEWEST_SECTIONS, "{seen} sections were found");
    assert!(
        vague.is_empty(),
        "begin them with \"Fails when\":\n{}",
        vague.join("\n")
    );
}

#[test]
fn begin_is_a_verb() {
    let places = [
        "src",
        "crates",
        "docs",
        "rules",
        "scripts",
        "README.md",
        "CONTRIBUTING.md",
    ];
    let mut texts = places
        .iter()
        .flat_map(|place| files(&root().join(place)))
        .collect::<Vec<_>>();
    texts.retain(|path| !path.ends_with("language_tests.rs"));
    let mut nouns = Vec::new();
    for path in texts {
        let text = fs::read(&path).expect("a file");
        for (number, line) in String::from_utf8_lossy(&text).lines().enumerate() {
            let mut words = line.split(|letter: char| !letter.is_alphanumeric());
            let mut before = "";
            let is_noun = words.any(|word| {
                let found = word == "begin" && ["the", "a", "its", "from"].contains(&before);
                before = word;
                found
            });
            if is_noun {
                nouns.push(format!("{}:{}:{line}", path.to_string_lossy(), number + 1));
            }
        }
    }
    assert!(
        nouns.is_empty(),
        "write beginning, start or first row:\n{}",
        nouns.join("\n")
    );
}
