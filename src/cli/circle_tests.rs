//! No two files use each other, straight or through others: what both need has a file below both.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::source_tests::{code, program, root};

/// Modules whose own file may be used by the files in their folder, although it uses these: it defines a type whose methods are in
/// several files, each with the values that it is about.
const SHARED_TYPES: [&str; 1] = ["control::core"];

/// The source of one crate.
struct Source {
    /// The code of each module that has a file, by its path: `control::core`. The crate's own is the empty path.
    modules: BTreeMap<String, String>,
    /// Names that modules hand on (`pub use`): module and name, to the path that is handed on.
    handed_on: BTreeMap<(String, String), Vec<String>>,
}

/// Returns the path of the module that a file contains.
fn module_of(src: &Path, file: &Path) -> String {
    let inside = file.strip_prefix(src).expect("below src").with_extension("");
    let names = inside.iter().map(|name| name.to_string_lossy().into_owned());
    let names: Vec<String> = names
        .filter(|name| !["mod", "lib", "main"].contains(&name.as_str()))
        .collect();
    names.join("::")
}

/// Returns the paths that a tree of `use` stands for: `a::{b, c::d}` for `a::b` and `a::c::d`.
fn expanded(tree: &str) -> Vec<String> {
    let Some((prefix, rest)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap_or_default();
        return vec![path.trim().trim_end_matches("::self").to_owned()];
    };
    let (mut depth, mut begin, mut paths) = (0, 0, Vec::new());
    let inside = rest.trim_end().trim_end_matches('}');
    let inside = format!("{inside},");
    for (at, letter) in inside.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                let part = inside.get(begin..at).unwrap_or_default().trim();
                begin = at + 1;
                let parts = expanded(part).into_iter().filter(|part| !part.is_empty());
                paths.extend(parts.map(|part| match part.as_str() {
                    "self" => prefix.trim().trim_end_matches("::").to_owned(),
                    part => format!("{}{part}", prefix.trim()),
                }));
            }
            _ => {}
        }
    }
    paths
}

/// Returns the paths of the `use` declarations, those that are handed on and the others, and the code without them.
fn declarations(code: &str) -> (Vec<String>, Vec<String>, String) {
    let (mut public, mut private, mut rest) = (Vec::new(), Vec::new(), String::new());
    let mut lines = code.lines();
    while let Some(line) = lines.next() {
        let start = line.trim_start();
        let is_public = start.starts_with("pub") && start.contains(" use ");
        if !is_public && !start.starts_with("use ") {
            rest.push_str(line);
            rest.push('\n');
            continue;
        }
        let mut whole = line.to_owned();
        while !whole.contains(';') {
            whole.push_str(lines.next().expect("the end of a declaration"));
        }
        let (_, tree) = whole.split_once("use ").expect("a tree");
        let paths = expanded(tree.split(';').next().unwrap_or_default());
        if is_public {
            public.extend(paths);
        } else {
            private.extend(paths);
        }
    }
    (public, private, rest)
}

/// Returns the paths in code that begin with `start`: `crate::a::B`.
fn paths_from(code: &str, start: &str) -> Vec<String> {
    let is_word = |letter: char| letter.is_alphanumeric() || letter == '_';
    let found = code.match_indices(start).filter(|(at, _)| {
        let before = code.get(..*at).unwrap_or_default();
        !before.ends_with(is_word) && !before.ends_with(':') && !before.ends_with("(in ")
    });
    let path = |(at, _): (usize, &str)| {
        let rest = code.get(at..).unwrap_or_default();
        let end = rest
            .find(|letter| !is_word(letter) && letter != ':')
            .unwrap_or(rest.len());
        rest.get(..end).unwrap_or_default().trim_end_matches(':').to_owned()
    };
    found.map(path).collect()
}

impl Source {
    fn read(src: &Path) -> Self {
        let files = program(src).into_iter();
        let modules: BTreeMap<String, String> = files.map(|file| (module_of(src, &file), code(&file))).collect();
        let mut source = Self {
            modules,
            handed_on: BTreeMap::new(),
        };
        for (module, code) in &source.modules {
            for path in declarations(code).0 {
                if let Some(path) = source.absolute(module, &path)
                    && let Some(name) = path.last()
                {
                    source.handed_on.insert((module.clone(), name.clone()), path);
                }
            }
        }
        source
    }

    /// Returns a path from the crate on; `None`: it leads elsewhere.
    fn absolute(&self, module: &str, path: &str) -> Option<Vec<String>> {
        let mut names: Vec<&str> = module.split("::").filter(|name| !name.is_empty()).collect();
        let mut rest = path.split("::").peekable();
        match *rest.peek()? {
            "crate" => {
                names.clear();
                rest.next();
            }
            "self" => drop(rest.next()),
            "super" => {
                while rest.next_if_eq(&"super").is_some() {
                    names.pop();
                }
            }
            child => {
                names.push(child);
                let is_child = self.modules.contains_key(&names.join("::"));
                names.pop();
                is_child.then_some(())?;
            }
        }
        names.extend(rest);
        Some(names.into_iter().map(str::to_owned).collect())
    }

    /// Returns the module whose file defines what a path leads to.
    fn definer(&self, path: &[String]) -> String {
        let mut path = path.to_vec();
        for _ in 0..8 {
            let is_module = |length: &usize| self.modules.contains_key(&path[..*length].join("::"));
            let length = (0..=path.len()).rev().find(is_module).unwrap_or(0);
            let module = path[..length].join("::");
            let Some(name) = path.get(length) else { return module };
            match self.handed_on.get(&(module.clone(), name.clone())) {
                Some(further) => {
                    let behind = path.split_off(length + 1);
                    path = further.iter().cloned().chain(behind).collect();
                }
                None => return module,
            }
        }
        String::new()
    }

    /// Returns the modules that each module uses.
    fn uses(&self) -> BTreeMap<&str, BTreeSet<String>> {
        let used = |module: &str, code: &str| {
            let (_, mut paths, rest) = declarations(code);
            paths.extend(
                ["crate::", "super::", "self::"]
                    .iter()
                    .flat_map(|start| paths_from(&rest, start)),
            );
            let children = rest.lines().filter_map(|line| {
                let (_, name) = line.strip_suffix(';')?.split_once("mod ")?;
                Some(format!("{name}::"))
            });
            paths.extend(children.flat_map(|child| paths_from(&rest, &child)));
            let absolute = paths.iter().filter_map(|path| self.absolute(module, path));
            let used = absolute.map(|path| self.definer(&path));
            used.filter(|used| used != module && !is_shared_type(module, used))
                .collect()
        };
        let modules = self.modules.iter();
        modules
            .map(|(module, code)| (module.as_str(), used(module, code)))
            .collect()
    }
}

fn is_shared_type(module: &str, used: &str) -> bool {
    SHARED_TYPES.contains(&used) && module.starts_with(&format!("{used}::"))
}

/// Returns everything that `from` leads to.
fn reached<'u>(uses: &'u BTreeMap<&str, BTreeSet<String>>, from: &str) -> BTreeSet<&'u str> {
    let (mut reached, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(module) = open.pop() {
        for next in uses.get(module).into_iter().flatten() {
            if reached.insert(next.as_str()) {
                open.push(next);
            }
        }
    }
    reached
}

/// Returns the circles of a crate: each with the modules in it, in order.
fn circles(src: &Path) -> BTreeSet<Vec<String>> {
    let source = Source::read(src);
    let uses = source.uses();
    let reached: BTreeMap<&str, BTreeSet<&str>> = uses.keys().map(|module| (*module, reached(&uses, module))).collect();
    let leads = |from: &str, to: &str| reached.get(from).is_some_and(|reached| reached.contains(to));
    let in_circles = uses.keys().filter(|module| leads(module, module));
    in_circles
        .map(|module| {
            let others = uses.keys().filter(|other| leads(module, other) && leads(other, module));
            others.map(|other| (*other).to_owned()).collect()
        })
        .collect()
}

#[test]
fn no_two_files_use_each_other() {
    let mut all = Vec::new();
    for src in ["src", "crates/tcpgw-core/src", "crates/tcpgw-kernel/src"] {
        all.extend(
            circles(&root().join(src))
                .into_iter()
                .map(|circle| format!("{src}: {}", circle.join(" "))),
        );
    }
    assert_eq!(all, Vec::<String>::new());
}

#[test]
fn uses_are_followed_to_the_file_that_defines() {
    let files = [
        ("", "mod a;\nmod b;"),
        (
            "a",
            "mod deep;\npub use self::deep::{Deep, Other};\nfn f() { deep::g() }",
        ),
        ("a::deep", "use crate::b::{self, One as Two};"),
        ("b", "use super::a::Deep;\nuse std::fmt;\nfn f() -> crate::a::Other { }"),
    ];
    let mut source = Source {
        modules: files
            .iter()
            .map(|(module, code)| ((*module).into(), (*code).into()))
            .collect(),
        handed_on: BTreeMap::new(),
    };
    for name in ["Deep", "Other"] {
        let path = ["a", "deep", name].map(str::to_owned).to_vec();
        source.handed_on.insert(("a".into(), name.into()), path);
    }
    let uses = source.uses();
    let of = |module: &str| {
        uses.get(module)
            .into_iter()
            .flatten()
            .map(String::as_str)
            .collect::<Vec<_>>()
    };
    assert_eq!(of("a"), ["a::deep"]);
    assert_eq!(of("a::deep"), ["b"]);
    assert_eq!(of("b"), ["a::deep"]);
    assert_eq!(reached(&uses, "b"), BTreeSet::from(["a::deep", "b"]));
}
