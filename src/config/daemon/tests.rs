use std::path::Path;

use super::*;
use crate::config::Config;
use crate::config::given::SettingsSources;

fn read(text: &str) -> Result<DaemonSettings, String> {
    let config = Config::parse(Path::new("config.toml"), text.as_bytes()).map_err(|error| error.to_string())?;
    Ok(SettingsSources::default().merge(&config))
}

#[test]
fn nothing_said_is_the_default() {
    let settings = read("").unwrap();
    assert_eq!(settings, DaemonSettings::default());
    assert_eq!(
        settings,
        DaemonSettings {
            state: None,
            socket: "/run/tcpgw/tcpgw.sock".into(),
            socket_group: None,
            socket_mode: 0o660,
            socket_readonly: None,
            socket_readonly_group: None,
            socket_readonly_mode: 0o660,
            log_format: LogFormat::Text,
            log_level: LogLevel::Info,
            owner: true,
            check_interval: Some(Duration::from_secs(60)),
            all_failed: AllFailed::Keep,
            max_probes: NonZeroUsize::new(4096).unwrap(),
            allow_empty: false,
            take_over: false,
            count_traffic: false,
            flow_log: None,
            store: "/var/lib/tcpgw/tcpgw.db".into(),
        }
    );
}

const ALL: &str = r#"
[daemon]
state = "/etc/tcpgw/state.json"
socket = "/run/x.sock"
socket_group = "deploy"
socket_mode = "0600"
socket_readonly = "/run/r.sock"
socket_readonly_group = "monitoring"
socket_readonly_mode = "0640"
log_format = "json"
log_level = "debug"
owner = false
check_interval = "0s"
all_failed = "empty"
max_probes = 16384
allow_empty = true
take_over = true
count_traffic = true
flow_log = "journald"
store = "/var/lib/x.db"
"#;

fn all() -> DaemonSettings {
    DaemonSettings {
        state: Some("/etc/tcpgw/state.json".into()),
        socket: "/run/x.sock".into(),
        socket_group: Some("deploy".into()),
        socket_mode: 0o600,
        socket_readonly: Some("/run/r.sock".into()),
        socket_readonly_group: Some("monitoring".into()),
        socket_readonly_mode: 0o640,
        log_format: LogFormat::Json,
        log_level: LogLevel::Debug,
        owner: false,
        check_interval: None,
        all_failed: AllFailed::Empty,
        max_probes: NonZeroUsize::new(16384).unwrap(),
        allow_empty: true,
        take_over: true,
        count_traffic: true,
        flow_log: Some(FlowLogTarget::Journald),
        store: "/var/lib/x.db".into(),
    }
}

#[test]
fn every_key_is_read() {
    assert_eq!(read(ALL).unwrap(), all());
}

#[test]
fn what_was_given_goes_before_the_file_key_by_key() {
    let config = Config::parse(Path::new("config.toml"), ALL.as_bytes()).unwrap();
    let given = SettingsSources {
        config: None,
        section: DaemonSection {
            owner: Some(true),
            max_probes: Some("7".parse().unwrap()),
            ..DaemonSection::default()
        },
        ..SettingsSources::default()
    };
    let expected = DaemonSettings {
        owner: true,
        max_probes: NonZeroUsize::new(7).unwrap(),
        ..all()
    };
    assert_eq!(given.merge(&config), expected);
    let all_given = SettingsSources {
        config: None,
        section: config.daemon.clone(),
        ..SettingsSources::default()
    };
    assert_eq!(all_given.merge(&Config::default()), all());
}

#[test]
fn wrong_values_name_the_line_and_what_is_accepted() {
    let cases = [
        ("stat = \"/x\"", "unknown field `stat`"),
        ("state = \"x.json\"", "must be an absolute path"),
        ("state = \"\"", "must be an absolute path"),
        ("store = \"x.db\"", "must be an absolute path"),
        ("socket = \"x.sock\"", "must be an absolute path"),
        ("socket_group = \"\"", "must be the name of a group"),
        ("socket_group = \"a b\"", "must be the name of a group"),
        ("socket_group = \"a:b\"", "must be the name of a group"),
        ("socket_group = 0", "the name of a group"),
        ("socket_mode = \"0666\"", "would let every user"),
        ("socket_mode = \"602\"", "would let every user"),
        ("socket_mode = 660", "a mode in quotes"),
        ("socket_mode = \"66\"", "octal digits"),
        ("socket_mode = \"0x1\"", "octal digits"),
        ("socket_mode = \"+660\"", "octal digits"),
        ("socket_mode = \"0680\"", "octal digits"),
        ("socket_mode = \"4660\"", "octal digits"),
        ("socket_readonly = \"r.sock\"", "must be an absolute path"),
        ("socket_readonly_group = 0", "the name of a group"),
        ("socket_readonly_mode = \"0666\"", "would let every user"),
        ("log_format = \"xml\"", "expected `text` or `json`"),
        ("log_level = \"INFO\"", "expected one of `error`, `warn`, `info`"),
        ("owner = \"yes\"", "expected a boolean"),
        ("check_interval = 60", "a duration in quotes"),
        ("check_interval = \"60\"", "has no unit"),
        ("check_interval = \"999ms\"", "must be 1s to 24h, or 0s for never"),
        ("check_interval = \"25h\"", "must be 1s to 24h, or 0s for never"),
        ("all_failed = \"drop\"", "expected `keep` or `empty`"),
        ("flow_log = \"flows.log\"", "must be an absolute path, or \"journald\""),
        ("flow_log = true", "an absolute path, or \"journald\""),
        ("max_probes = 0", "from 1 to 16384"),
        ("max_probes = 16385", "from 1 to 16384"),
        ("max_probes = -1", "from 1 to 16384"),
        ("max_probes = \"1\"", "expected i64"),
    ];
    for (text, message) in cases {
        let error = read(&format!("[daemon]\n{text}\n")).unwrap_err();
        assert!(error.contains(message), "{text}: {error}");
        assert!(
            error.contains("config.toml: ") && error.contains("line 2"),
            "{text}: {error}"
        );
    }
    let long = format!("[daemon]\nsocket = \"/{}\"", "x".repeat(107));
    assert!(read(&long).unwrap_err().contains("is longer than the 107 bytes"));
}

#[test]
fn a_reload_takes_what_it_can_and_names_the_rest() {
    let old = DaemonSettings::default();
    let (now, waiting) = old.reloaded(all());
    assert_eq!(
        waiting,
        [
            "socket",
            "socket_group",
            "socket_mode",
            "log_format",
            "owner",
            "max_probes",
            "store"
        ]
    );
    let expected = DaemonSettings {
        socket: old.socket.clone(),
        socket_group: None,
        socket_mode: old.socket_mode,
        log_format: old.log_format,
        owner: true,
        max_probes: old.max_probes,
        store: old.store.clone(),
        ..all()
    };
    assert_eq!(now, expected);
    assert_eq!(old.reloaded(old.clone()), (old, vec![]));
}

#[test]
fn it_is_read_again_from_where_it_came() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.toml");
    let given = SettingsSources {
        config: Some(file.clone()),
        ..SettingsSources::default()
    };
    assert!(given.load().is_err(), "a file that was named must be there");
    std::fs::write(&file, "[daemon]\nmax_probes = 5").unwrap();
    assert_eq!(given.load().unwrap().0.max_probes.get(), 5);
    std::fs::write(&file, "[daemon]\nmax_probes = 6\n[fences]\nports = 443").unwrap();
    let (settings, config) = given.load().unwrap();
    assert_eq!(settings.max_probes.get(), 6);
    assert!(config.fences.ports.is_some());
    assert_eq!(given.file(), file);
}
