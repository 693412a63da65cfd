//! One word for one thing: no name stands for two types of the program.

use std::collections::BTreeMap;

use crate::source_tests::{code, program, root};

/// Names that every command line has, by the idiom of clap: each command's module has its own.
const IDIOMS: [&str; 2] = ["Arguments", "Command"];
/// Number of types that there are at least, so that the test does not pass because it found none.
const FEWEST: usize = 1000;

/// Returns the name of the type that a line declares at the top level of a file, if it declares one.
fn declared(line: &str) -> Option<&str> {
    let (words, _) = line.split_once(['<', '(', '{', ';', ':', '=']).unwrap_or((line, ""));
    let line = if words.trim_end() == "pub" {
        // Visible in one module: `pub(super) struct Name`.
        line.split_once(") ")?.1
    } else {
        line.strip_prefix("pub ").unwrap_or(line)
    };
    let (keyword, rest) = line.split_once(' ')?;
    let name = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next()?;
    ["struct", "enum", "union", "trait", "type"]
        .contains(&keyword)
        .then_some(name)
}

#[test]
fn no_name_stands_for_two_types() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for path in [program(&root().join("src")), program(&root().join("crates"))].concat() {
        let place = path
            .strip_prefix(root())
            .unwrap_or(&path)
            .to_string_lossy()
            .into_owned();
        for name in code(&path).lines().filter_map(declared) {
            places.entry(name.to_owned()).or_default().push(place.clone());
        }
    }
    let all = places.values().map(Vec::len).sum::<usize>();
    assert!(all > FEWEST, "{all} types were found");
    let is_shared = |(name, of): &(&String, &Vec<String>)| of.len() > 1 && !IDIOMS.contains(&name.as_str());
    let shared: Vec<String> = places
        .iter()
        .filter(is_shared)
        .map(|(name, of)| format!("{name}: {}", of.join(", ")))
        .collect();
    assert!(
        shared.is_empty(),
        "give each type a name of its own, such as `{{what it belongs to}}{{name}}`:\n{}",
        shared.join("\n")
    );
    for idiom in IDIOMS {
        assert!(
            places.get(idiom).is_some_and(|of| of.len() > 1),
            "{idiom} is no exception any more"
        );
    }
}

#[test]
fn declarations_of_types_are_found() {
    for (line, name) in [
        ("pub struct Plan {", Some("Plan")),
        ("struct Marker;", Some("Marker")),
        ("pub(super) struct Row(u32);", Some("Row")),
        ("pub(in crate::cli) enum Kind<'a> {", Some("Kind")),
        ("pub trait Kernel: Send {", Some("Kernel")),
        ("type Lines = Vec<String>;", Some("Lines")),
        ("    struct Inner;", None),
        ("pub fn plan() -> Plan {", None),
        ("use super::Plan;", None),
        ("impl Plan {", None),
    ] {
        assert_eq!(declared(line), name, "{line}");
    }
}
