//! The reference in docs/ has every key of the configuration, every kind of problem and every key of the status.
//!
//! Commands and the API have pages that are made: `reference_tests`.

use clap::CommandFactory as _;
use serde_json::Value;

use super::command::Cli;
use crate::api::OPENAPI;
use tcpgw_core::problem::ProblemKind;

const CONFIGURATION: &str = include_str!("../../docs/reference/configuration.md");
const STATUS: &str = include_str!("../../docs/reference/status.md");
const PROBLEMS: &str = include_str!("../../docs/reference/problems.md");
const INSTALL: &str = include_str!("../../docs/operating/install.md");

#[test]
fn each_option_of_the_daemon_is_a_key_of_the_configuration() {
    let program = Cli::command();
    let daemon = program.find_subcommand("daemon").expect("a command");
    let own = daemon
        .get_arguments()
        .filter(|option| !option.is_global_set() && !option.is_hide_set());
    let mut options = 0;
    for option in own
        .filter_map(|option| option.get_long())
        .filter(|option| *option != "help")
    {
        let key = option.strip_prefix("no-").unwrap_or(option).replace('-', "_");
        assert!(CONFIGURATION.contains(&format!("| `daemon.{key}` |")), "{key}");
        options += 1;
    }
    assert!(options > 10, "only {options} options");
    assert!(INSTALL.contains("`TCPGW_RUN_DIR`"));
}

/// Returns the names in the first column of the tables of a page: `daemon.state` is `state`.
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
        (include_str!("../../dist/man/tcpgw.toml.5"), keys_of(CONFIGURATION)),
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
    let rows = PROBLEMS.lines().filter(|line| line.starts_with("| `"));
    let rows = rows.collect::<Vec<_>>().join("\n");
    for kind in ProblemKind::ALL {
        let name = format!("`{}`", kind.id().replace('-', "_"));
        assert!(rows.contains(&name), "{name}");
    }
}

#[test]
fn it_has_every_key_of_the_status() {
    let document: Value = serde_json::from_str(OPENAPI).expect("JSON");
    let begin = STATUS.find("\n## `tcpgw status`").expect("a section");
    let end = STATUS.find("\n## `tcpgw flows`").expect("a section");
    let section = &STATUS[begin..end];
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

/// Collects the names of all properties in a schema, and in the schemas that it refers to.
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
