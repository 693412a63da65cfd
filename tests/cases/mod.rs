//! The golden cases of `rules/`: what a state becomes, as nft text.
//!
//! Most of a ruleset is the same for every state, so that part is written down once: `rules/skeleton.nft` is the whole
//! ruleset of a state without services, and `rules/cases/NAME/ruleset.nft` has the blocks (a set, a map, a chain, whole)
//! that are new or different in that case. Blocks keep the order of the program's output, and none is ever missing, so
//! [`compose`] gives the whole ruleset back, byte by byte.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

pub(crate) const CLOSING: &str = "}\n";

/// A golden case.
pub(crate) struct Case {
    pub(crate) name: String,
    dir: PathBuf,
}

/// Returns all cases, by name.
pub(crate) fn all() -> Vec<Case> {
    let dir = rules().join("cases");
    let mut cases: Vec<Case> = fs::read_dir(&dir)
        .expect("rules/cases is there")
        .map(|entry| entry.expect("rules/cases can be listed").path())
        .map(|dir| Case {
            name: dir.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            dir,
        })
        .collect();
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(cases.len() >= 10, "cases are missing");
    cases
}

impl Case {
    pub(crate) fn state(&self) -> PathBuf {
        self.dir.join("state.json")
    }

    pub(crate) fn ruleset_file(&self) -> PathBuf {
        self.dir.join("ruleset.nft")
    }

    /// Returns the whole ruleset that the files promise.
    pub(crate) fn ruleset(&self) -> String {
        compose(&read(&skeleton_file()), &read(&self.ruleset_file()))
    }
}

pub(crate) fn skeleton_file() -> PathBuf {
    rules().join("skeleton.nft")
}

pub(crate) fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.to_string_lossy()))
}

/// Returns the skeleton with the blocks of a case in it: in the place of those of the same name, new objects behind the other
/// objects, new sets behind the other sets, new chains behind the other chains.
pub(crate) fn compose(skeleton: &str, case: &str) -> String {
    let (head, blocks) = split(skeleton);
    let (_, own) = split(case);
    let known: BTreeMap<&str, &str> = own.iter().map(|block| (title(block), *block)).collect();
    let new = |kind: Kind| {
        own.iter()
            .filter(move |block| kind_of(block) == kind)
            .filter(|block| !blocks.iter().any(|other| title(other) == title(block)))
    };
    let old = |kind: Kind| {
        let of_kind = blocks.iter().filter(move |block| kind_of(block) == kind);
        of_kind.map(|block| known.get(title(block)).unwrap_or(block))
    };
    let mut text = head.to_owned();
    for kind in [Kind::Object, Kind::Set, Kind::Chain] {
        text.extend(old(kind).chain(new(kind)).copied());
    }
    text + CLOSING
}

/// Splits a listing into the text before the first block, and the blocks, each with the empty line after it.
pub(crate) fn split(text: &str) -> (&str, Vec<&str>) {
    let body = text.strip_suffix(CLOSING).expect("a table ends with a brace");
    let mut starts: Vec<usize> = body.match_indices('\t').map(|(at, _)| at).collect();
    starts.retain(|at| is_title(line_at(body, *at)) && (*at == 0 || body.as_bytes()[at - 1] == b'\n'));
    let head = &body[..starts.first().copied().unwrap_or(body.len())];
    let ends = starts.iter().skip(1).copied().chain([body.len()]);
    (
        head,
        starts.iter().zip(ends).map(|(start, end)| &body[*start..end]).collect(),
    )
}

fn line_at(text: &str, at: usize) -> &str {
    text[at..].lines().next().unwrap_or_default()
}

fn title(block: &str) -> &str {
    line_at(block, 0)
}

fn is_title(line: &str) -> bool {
    line.ends_with(" {") && line.starts_with('\t') && !line.starts_with("\t\t")
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Object,
    Set,
    Chain,
}

fn kind_of(block: &str) -> Kind {
    if block.starts_with("\tchain ") {
        Kind::Chain
    } else if block.starts_with("\tct timeout ") {
        Kind::Object
    } else {
        Kind::Set
    }
}

fn rules() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("rules")
}
