//! The defaults that documents give are those of the program.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use tcpgw_core::model::PortRange;

use super::daemon::{DEFAULT_STATE, DaemonSection, DaemonSettings};
use super::given::SettingsSources;
use super::*;

const REFERENCE: &str = include_str!("../../docs/reference/configuration.md");
const EXAMPLE: &str = include_str!("../../examples/config.toml");
/// Keys whose default is not a value.
const WITHOUT_VALUE: [&str; 16] = [
    "addon",
    "daemon.flow_log",
    "daemon.socket_group",
    "daemon.socket_readonly",
    "daemon.socket_readonly_group",
    "docker.socket",
    "fences.backends",
    "fences.max_backends",
    "fences.max_services",
    "hooks",
    "idle_timeout",
    "web.behind_proxy",
    "web.listen",
    "web.tls_cert",
    "web.tls_key",
    "web.token_file",
];

fn read(text: &str) -> (Config, DaemonSettings) {
    let config =
        Config::parse(Path::new("config.toml"), text.as_bytes()).unwrap_or_else(|error| panic!("{error}: {text}"));
    let settings = SettingsSources::default().merge(&config);
    let mut config = Config {
        text: None,
        daemon: DaemonSection::default(),
        ..config
    };
    let ports = config.fences.ports.take();
    config.fences.ports = ports.or_else(|| Some(vec![PortRange::DEFAULT]));
    (config, settings)
}

/// Returns the settings that are in effect on a machine with a state file at its default path.
fn defaults() -> DaemonSettings {
    DaemonSettings {
        state: Some(DEFAULT_STATE.into()),
        ..DaemonSettings::default()
    }
}

/// Keys and defaults in the table of the reference; `None`: the default is described in words only.
fn rows() -> Vec<(&'static str, Option<&'static str>)> {
    let rows = REFERENCE.lines().filter_map(|line| {
        let (key, rest) = line.strip_prefix("| `")?.split_once("` |")?;
        let default = rest.trim_end().strip_suffix('|')?.rsplit('|').next()?;
        Some((key, default.split('`').nth(1)))
    });
    rows.collect()
}

#[test]
fn the_reference_has_the_defaults_of_the_program() {
    let mut without_value = Vec::new();
    let mut count = 0;
    for (key, value) in rows() {
        let Some(value) = value else {
            without_value.push(key);
            continue;
        };
        let (config, settings) = read(&format!("{key} = {value}"));
        assert_eq!(config, read("").0, "{key} = {value}");
        let state = settings.state.clone();
        let shown = DaemonSettings {
            state: state.or_else(|| (key != "daemon.state").then(|| DEFAULT_STATE.into())),
            ..settings
        };
        assert_eq!(shown, defaults(), "{key} = {value}");
        count += 1;
    }
    without_value.sort_unstable();
    assert_eq!(without_value, WITHOUT_VALUE);
    assert!(count >= 15, "only {count} defaults");
}

#[test]
fn the_example_has_the_defaults_of_the_program_where_it_says_so() {
    let (config, settings) = read(EXAMPLE);
    let group = Some("tcpgw".to_owned());
    assert_eq!(
        settings,
        DaemonSettings {
            socket_group: group,
            socket_readonly: Some("/run/tcpgw/readonly.sock".into()),
            socket_readonly_group: Some("tcpgw-monitoring".into()),
            flow_log: Some(crate::config::daemon::FlowLogTarget::File(
                "/var/log/tcpgw/flows.log".into(),
            )),
            ..defaults()
        }
    );
    assert_eq!(config.flow_mark, Config::default().flow_mark);
    let addon = config.addon.expect("a section");
    assert_eq!(addon.quarantine, Duration::from_secs(3600));
    assert_eq!(addon.plans.by_name("free").expect("a plan").limit.burst, 5120);
    let comment = EXAMPLE
        .lines()
        .find(|line| line.starts_with("# Public ports"))
        .expect("a comment");
    assert!(comment.ends_with("Default: 1024-65535."), "{comment}");
    assert_eq!(PortRange::DEFAULT.to_string(), "1024-65535");
}

/// Returns the keys that the program knows in a section, given by its heading; without one, those at the top of the file.
fn keys(heading: &str) -> Vec<String> {
    let text = format!("{heading}\nno_such_key = 1");
    let error = Config::parse(Path::new("config.toml"), text.as_bytes()).expect_err("an unknown key");
    let message = error.to_string();
    let (_, expected) = message
        .split_once("unknown field `no_such_key`, expected ")
        .expect(heading);
    expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn the_example_and_the_reference_have_every_key_of_the_program() {
    let guides = [
        include_str!("../../docs/guides/hooks.md"),
        include_str!("../../docs/guides/addon.md"),
    ];
    let mut section = String::new();
    let mut settings = BTreeSet::new();
    for line in EXAMPLE.lines() {
        let line = line.trim_start_matches("# ");
        if line.starts_with('[') {
            section = line.trim_matches(['[', ']']).to_owned();
            settings.insert((String::new(), section.clone()));
            if let Some((outer, inner)) = section.split_once('.') {
                settings.insert((outer.to_owned(), inner.to_owned()));
            }
        }
        // A comment may name a key that takes the place of the next one.
        for (at, _) in line.match_indices(" = ") {
            let name = line[..at]
                .rsplit(|letter: char| !(letter.is_alphanumeric() || letter == '_'))
                .next();
            settings.insert((section.clone(), name.unwrap_or_default().to_owned()));
        }
    }
    let headings = [
        "",
        "[fences]",
        "[daemon]",
        "[web]",
        "[docker]",
        "[[hooks]]",
        "[addon]",
        "[[addon.plans]]",
    ];
    let mut count = 0;
    for heading in headings {
        let section = heading.trim_matches(['[', ']']).to_owned();
        for key in keys(heading) {
            let place = if section.is_empty() {
                key.clone()
            } else {
                format!("{section}.{key}")
            };
            let is_section = ["fences", "daemon", "web", "docker"].contains(&place.as_str());
            let names = [format!("`{key}`"), format!("`{place}`")];
            let has_row = |guide: &str| {
                let mut cells = guide
                    .lines()
                    .filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
                cells.any(|cell| names.iter().any(|name| cell.contains(name)))
            };
            let is_described = rows().iter().any(|(row, _)| *row == place) || guides.into_iter().any(has_row);
            assert!(is_described || is_section, "{place} is in no table of the documents");
            assert!(
                settings.contains(&(section.clone(), key)),
                "{place} is not in examples/config.toml"
            );
            count += 1;
        }
    }
    assert!(count > 50, "only {count} keys");
}
