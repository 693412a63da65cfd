//! The reference in docs/ has every option, every parameter of the API and every key of the status, docs/operating/operating.md every kind of problem.

use clap::{Command, CommandFactory};
use serde_json::Value;

use super::Cli;
use crate::api::OPENAPI;
use tcpgw_core::problem::Kind;

const MANUAL: &str = concat!(
    include_str!("../../docs/reference/commands.md"),
    include_str!("../../docs/reference/configuration.md"),
    include_str!("../../docs/reference/status.md"),
    include_str!("../../docs/guides/daemon.md"),
    include_str!("../../docs/reference/api.md"),
);
const OPERATING: &str = include_str!("../../docs/operating/operating.md");
/// Where the options of these commands are, by the beginnings of the lines.
const OPTIONS_OF: &[(&str, &[&str])] = &[
    ("apply", &["| `--"]),
    ("diff", &["| `--"]),
    ("teardown", &["| `--"]),
    ("status", &["| `--"]),
    ("flows", &["`--service S`"]),
    ("who", &["With `--backend`", "$ tcpgw who"]),
    ("events", &["| `tcpgw events`"]),
    ("service add", &["| `tcpgw service add"]),
    ("service set", &["| `tcpgw service set", "| `tcpgw service add"]),
    ("service rm", &["| `tcpgw service rm"]),
];

/// The lines that begin so, or all.
fn lines(beginnings: &[&str]) -> String {
    let lines = MANUAL.lines();
    let lines = lines.filter(|line| beginnings.iter().any(|beginning| line.starts_with(beginning)));
    lines.collect::<Vec<_>>().join("\n")
}

/// Whether an option is there, and not only one that begins with its name.
fn has_option(text: &str, option: &str) -> bool {
    let mut ends = text.match_indices(option).map(|(at, _)| &text[at + option.len()..]);
    ends.any(|rest| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '-'))
}

/// What the manual lacks of the options of a command, and of those below it.
fn missing(command: &Command, name: &str, lacks: &mut Vec<String>) {
    let own = || {
        command
            .get_arguments()
            .filter(|option| !option.is_global_set() && !option.is_hide_set())
    };
    let text = match name {
        // Each is a key of the configuration.
        "daemon" => String::new(),
        _ => match OPTIONS_OF.iter().find(|(of, _)| *of == name) {
            Some((_, beginnings)) => lines(beginnings),
            None => lines(&[&format!("| `tcpgw {name}"), &format!("| `tcpgw {name}`")]),
        },
    };
    for option in own().filter_map(|option| option.get_long()) {
        let is_there = if name == "daemon" {
            let key = option.strip_prefix("no-").unwrap_or(option).replace('-', "_");
            MANUAL.contains(&format!("| `daemon.{key}` |"))
        } else {
            has_option(&text, &format!("--{option}"))
        };
        if !is_there && option != "help" && option != "version" {
            lacks.push(format!("{name}: --{option}"));
        }
    }
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        missing(sub, format!("{name} {}", sub.get_name()).trim(), lacks);
    }
}

#[test]
fn it_has_every_option() {
    let mut lacks = Vec::new();
    missing(&Cli::command(), "", &mut lacks);
    assert_eq!(lacks, Vec::<String>::new());
}

#[test]
fn it_has_every_option_of_all_commands_and_every_variable() {
    for option in Cli::command().get_arguments() {
        if let Some(long) = option.get_long().filter(|_| !option.is_hide_set()) {
            let is_there = lines(&["| `-"]).contains(&format!("`--{long}"))
                || option
                    .get_short()
                    .is_some_and(|short| lines(&["| `-"]).contains(&format!("`-{short}")));
            assert!(is_there, "--{long}");
        }
        if let Some(variable) = option.get_env() {
            let variable = variable.to_str().expect("text");
            assert!(MANUAL.contains(&format!("`{variable}`")), "{variable}");
        }
    }
    assert!(OPERATING.contains("`TCPGW_RUN_DIR`"));
}

/// What the first column of the tables of a page names: `daemon.state` is `state`.
fn keys_of(page: &str) -> Vec<&str> {
    let rows = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    rows.map(|(key, _)| key.rsplit_once('.').map_or(key, |(_, key)| key))
        .collect()
}

#[test]
fn pages_of_section_5_have_every_key() {
    let pages = [
        (
            include_str!("../../dist/man/tcpgw.toml.5"),
            keys_of(include_str!("../../docs/reference/configuration.md")),
        ),
        (
            include_str!("../../dist/man/tcpgw.json.5"),
            keys_of(include_str!("../../docs/reference/state-file.md")),
        ),
    ];
    for (page, keys) in pages {
        assert!(keys.len() > 15, "{keys:?}");
        for key in keys {
            let is_there = page.lines().any(|line| {
                let names = line.strip_prefix(".B").unwrap_or_default();
                names
                    .split([' ', '\"', ','])
                    .any(|name| name.replace("\\-", "-") == key)
            });
            // [addon] is a section.
            assert!(
                is_there || page.contains(&format!("[{key}]\n")) || page.contains(&format!("[{key}]\"\n")),
                "{key}"
            );
        }
    }
}

#[test]
fn it_has_every_kind_of_problem() {
    let rows = OPERATING.lines().filter(|line| line.starts_with("| `"));
    let rows = rows.collect::<Vec<_>>().join("\n");
    for kind in Kind::ALL {
        let name = format!("`{}`", kind.id().replace('-', "_"));
        assert!(rows.contains(&name), "{name}");
    }
}

#[test]
fn it_has_every_parameter_of_the_api() {
    let document: Value = serde_json::from_str(OPENAPI).expect("JSON");
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            let method = method.to_uppercase();
            // Two routes may share a row, and its second path may be short for it.
            let last = path.rsplit_once('/').map_or("", |(_, last)| last);
            let rows = MANUAL.lines().filter(|line| {
                let route = line.split('|').nth(1).unwrap_or_default();
                line.starts_with("| `")
                    && route.contains(&method)
                    && (route.contains(&format!("{path}`")) || route.contains(&format!("`/{last}`")))
            });
            let row = rows.collect::<Vec<_>>().join("\n");
            assert!(!row.is_empty(), "{method} {path}");
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let name = parameter["name"].as_str().expect("a name");
                if parameter["in"] == "query" && !row.contains("as `PATCH`") {
                    assert!(row.contains(&format!("`{name}`")), "{method} {path}: {name}");
                }
            }
        }
    }
}

#[test]
fn it_has_every_key_of_the_status() {
    let document: Value = serde_json::from_str(OPENAPI).expect("JSON");
    let begin = MANUAL.find("\n## `tcpgw status`").expect("a section");
    let end = MANUAL.find("\n## `tcpgw flows`").expect("a section");
    let section = &MANUAL[begin..end];
    let mut keys = Vec::new();
    gather(
        &document,
        &document["components"]["schemas"]["Status"],
        &mut Vec::new(),
        &mut keys,
    );
    assert!(keys.len() > 50, "{keys:?}");
    let lacks = keys.iter().filter(|key| !section.contains(&format!("`{key}`")));
    assert_eq!(lacks.collect::<Vec<_>>(), Vec::<&String>::new());
}

/// The names of all properties in a schema, those in the schemas that it refers to included.
fn gather(document: &Value, schema: &Value, seen: &mut Vec<String>, keys: &mut Vec<String>) {
    if let Some(name) = schema["$ref"].as_str().and_then(|name| name.rsplit('/').next()) {
        if !seen.iter().any(|known| known == name) {
            seen.push(name.to_owned());
            gather(document, &document["components"]["schemas"][name], seen, keys);
        }
        return;
    }
    for (key, property) in schema["properties"].as_object().into_iter().flatten() {
        keys.push(key.clone());
        gather(document, property, seen, keys);
    }
    for list in ["oneOf", "anyOf", "allOf"] {
        for one in schema[list].as_array().into_iter().flatten() {
            gather(document, one, seen, keys);
        }
    }
    if schema["items"].is_object() {
        gather(document, &schema["items"], seen, keys);
    }
}
