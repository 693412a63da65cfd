//! Links of the documents of the source lead somewhere, and the book has every page.

use std::fs;
use std::path::{Path, PathBuf};

/// Largest size of the README, so that it is read to its end.
const MAX_LINES: usize = 200;
const MAX_BYTES: usize = 12 * 1024;

/// Returns the targets of the links of a document in Markdown.
pub(crate) fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| rest.split(')').next())
}

/// Returns true when a document has exactly one section with that anchor. A link leads to the first of several only.
pub(crate) fn has_section(text: &str, anchor: &str) -> bool {
    let mut is_code = false;
    let titles = text.lines().filter(|line| {
        is_code ^= line.trim_start().starts_with("```");
        !is_code && line.starts_with('#')
    });
    let is_it = |line: &&str| -> bool {
        let plain = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
        let title: String = line.trim_start_matches('#').trim().chars().filter(plain).collect();
        title.to_lowercase().replace(' ', "-") == anchor
    };
    titles.filter(is_it).count() == 1
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn name(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).to_string_lossy().into_owned()
}

/// Collects the documents in a directory and below it, except those that builds and programs have made.
fn documents(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory").flatten() {
        let path = entry.path();
        let is_made = ["target", "node_modules", ".git"]
            .iter()
            .any(|made| path.ends_with(made));
        if path.is_dir() && !is_made {
            documents(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

/// Returns the JSON blocks of a document.
fn json_blocks(text: &str) -> impl Iterator<Item = &str> {
    let blocks = text.split("```json\n").skip(1);
    blocks.map(|rest| rest.split("\n```").next().unwrap_or(rest))
}

#[test]
fn every_json_block_is_json_and_every_state_file_among_them_is_accepted() {
    let (mut all, mut states, mut others) = (Vec::new(), 0, 0);
    documents(root(), &mut all);
    for path in &all {
        let text = fs::read_to_string(path).expect("text");
        for block in json_blocks(&text) {
            let at = format!("{}: {block}", name(path));
            if block.trim_start().starts_with("{\"version\"") {
                tcpgw_core::model::parse(block.as_bytes()).unwrap_or_else(|problems| panic!("{at}\n{problems}"));
                states += 1;
                continue;
            }
            // One value, or lines of JSON.
            let is_json = |text: &str| serde_json::from_str::<serde_json::Value>(text).is_ok();
            let is_lines = || block.lines().all(is_json);
            assert!(is_json(block) || is_lines(), "{at}");
            others += 1;
        }
    }
    assert!(states > 4 && others > 1, "{states} state files, {others} others");
}

#[test]
fn every_relative_link_leads_to_a_file_and_a_section() {
    let (mut all, mut seen, mut broken) = (Vec::new(), 0, Vec::new());
    documents(root(), &mut all);
    assert!(all.len() > 20, "{all:?}");
    for path in &all {
        let text = fs::read_to_string(path).expect("text");
        for link in links(&text).filter(|link| !link.contains("://")) {
            seen += 1;
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let to = match file {
                "" => path.clone(),
                file => path.parent().unwrap_or(root()).join(file),
            };
            let is_there = to.exists()
                && (anchor.is_empty() || fs::read_to_string(&to).is_ok_and(|there| has_section(&there, anchor)));
            if !is_there {
                broken.push(format!("{}: {link}", name(path)));
            }
        }
    }
    assert!(seen > 100, "only {seen} links");
    assert_eq!(broken, Vec::<String>::new());
}

#[test]
fn the_book_has_every_page_once() {
    let docs = root().join("docs");
    let summary = fs::read_to_string(docs.join("SUMMARY.md")).expect("a table of contents");
    let mut listed: Vec<PathBuf> = links(&summary).map(|link| docs.join(link)).collect();
    listed.sort();
    let mut pages = Vec::new();
    documents(&docs, &mut pages);
    pages.retain(|page| !page.ends_with("SUMMARY.md"));
    pages.sort();
    assert_eq!(listed, pages);
    for page in pages {
        let text = fs::read_to_string(&page).expect("text");
        assert!(text.starts_with("# "), "{} has no title", name(&page));
    }
}

#[test]
fn the_readme_is_short() {
    let readme = fs::read_to_string(root().join("README.md")).expect("a README");
    let (lines, bytes) = (readme.lines().count(), readme.len());
    assert!(lines <= MAX_LINES && bytes <= MAX_BYTES, "{lines} lines, {bytes} bytes");
}
