//! The defaults that documents give are those of the program.

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
