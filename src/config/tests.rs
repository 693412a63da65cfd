use super::*;
use tcpgw_core::model;

fn read(text: &str) -> Result<Config, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    std::fs::write(&path, text).unwrap();
    Config::load(Some(&path)).map(|config| Config {
        file: Some("config.toml".into()),
        text: None,
        ..config
    })
}

fn state(port: u16, backend: &str) -> State {
    let text = format!(r#"{{"version":1,"services":[{{"name":"a","port":{port},"backends":["{backend}"]}}]}}"#);
    model::parse(text.as_bytes()).unwrap()
}

fn refusals(config: &Config, state: &State) -> Vec<String> {
    config.check(state).iter().map(ToString::to_string).collect()
}

#[test]
fn an_empty_file_is_the_default() {
    let config = read("").unwrap();
    assert_eq!(
        config,
        Config {
            file: config.file.clone(),
            ..Config::default()
        }
    );
    assert_eq!(config.flow_mark.value(), 0x0080_0000);
    assert_eq!(config.flow_mark.mask(), 0x0080_0000);
}

#[test]
fn only_the_default_path_may_be_missing() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("none.toml");
    assert_eq!(Config::read_or_copy(&missing, &missing).unwrap(), Config::default());
    let error = Config::load(Some(&missing)).unwrap_err().to_string();
    assert!(error.ends_with("no such file"), "{error}");
    let error = Config::read_or_copy(dir.path(), &missing).unwrap_err().to_string();
    assert!(error.ends_with("is a directory, not a file"), "{error}");
}

#[test]
fn every_setting_is_read() {
    let config = read(
        r#"
        flow_mark = "0x100/0xf00"
        protect_backends = true
        idle_timeout = "2h"
        [fences]
        ports = ["2000-3000", 443, "80"]
        backends = ["10.1.0.0/16", "10.0.0.0/16", "2001:db8::/32"]
        max_services = 5
        max_backends = 6
        "#,
    )
    .unwrap();
    assert_eq!(config.flow_mark, FlowMark::new(0x100, 0xf00).unwrap());
    assert_eq!(joined(config.fences.ports.as_deref().unwrap()), "2000-3000, 443, 80");
    assert_eq!(
        joined(config.fences.backends.as_deref().unwrap()),
        "10.0.0.0/15, 2001:db8::/32"
    );
    assert_eq!(config.fences.max_services.unwrap().get(), 5);
    assert_eq!(config.fences.max_backends.unwrap().get(), 6);
    assert!(config.protect_backends);
    assert_eq!(config.idle_timeout, Some(std::time::Duration::from_secs(7200)));
}

#[test]
fn an_idle_timeout_is_one_that_a_service_may_have() {
    for (text, why) in [
        (
            "\"0s\"",
            "must be a duration of whole seconds from 1s to 480h, not \"0s\"",
        ),
        ("\"1500ms\"", "must be a duration of whole seconds"),
        ("\"481h\"", "must be a duration of whole seconds"),
        ("\"60\"", "has no unit"),
        ("60", "invalid type"),
    ] {
        let error = read(&format!("idle_timeout = {text}")).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    assert_eq!(read("").unwrap().idle_timeout, None);
}

#[test]
fn a_single_value_needs_no_list() {
    let ports = |text: &str| joined(&read(text).unwrap().fences.ports.unwrap());
    assert_eq!(ports("fences.ports = \"1-1023\""), "1-1023");
    assert_eq!(ports("fences.ports = 443"), "443");
    let config = read("flow_mark = 0x10\nfences.backends = \"10.0.0.1\"").unwrap();
    assert_eq!(config.flow_mark, FlowMark::new(0x10, 0x10).unwrap());
    assert_eq!(joined(&config.fences.backends.unwrap()), "10.0.0.1/32");
}

#[test]
fn wrong_settings_name_the_line_and_what_is_accepted() {
    let cases = [
        ("fences = 1", "line 1, column 10"),
        ("\nportz = 1", "line 2, column 1"),
        ("[fences]\nport = 1", "unknown field `port`"),
        ("[fences", "line 1"),
        ("flow_mark = 1\nflow_mark = 1", "duplicate key"),
        ("fences.ports = []", "is empty, which would refuse everything"),
        ("fences.ports = 0", "must be a port from 1 to 65535"),
        ("fences.ports = [65536]", "must be a port from 1 to 65535"),
        (
            "fences.ports = \"3000-2000\"",
            "must be a port from 1 to 65535, or a range",
        ),
        ("fences.ports = \"0-10\"", "must be a port"),
        ("fences.ports = \"1-\"", "must be a port"),
        ("fences.ports = \"+1\"", "must be a port"),
        ("fences.ports = 1.5", "one value or a list"),
        ("fences.ports = [true]", "a port from 1 to 65535"),
        ("fences.ports = {}", "a port from 1 to 65535"),
        ("fences.backends = [\"10.0.0.1/8\"]", "the network is 10.0.0.0/8"),
        ("fences.backends = []", "is empty"),
        ("fences.backends = [1]", "expected a string"),
        ("fences.max_services = 0", "nonzero"),
        ("fences.max_services = -1", "line 1"),
        ("fences.max_backends = \"1\"", "line 1"),
        ("flow_mark = 0", "must not be zero"),
        ("flow_mark = -1", "32 bits"),
        ("flow_mark = 0x100000000", "32 bits"),
        ("flow_mark = \"x\"", "must be a number like 0x00800000"),
        ("flow_mark = \"0x3/0x1\"", "outside the mask"),
        ("flow_mark = true", "a number like 0x00800000"),
    ];
    for (text, message) in cases {
        let error = read(text).unwrap_err().to_string();
        assert!(error.contains(message), "{text:?}: {error}");
        assert!(
            error.contains("config.toml: ") && error.contains("line "),
            "{text:?}: {error}"
        );
    }
}

#[test]
fn what_is_not_text_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    std::fs::write(&path, b"\xff").unwrap();
    let error = Config::load(Some(&path)).unwrap_err().to_string();
    assert!(error.ends_with("must be TOML in UTF-8"), "{error}");
}

#[test]
fn the_default_fence_keeps_the_system_ports() {
    let config = Config::default();
    assert_eq!(
        refusals(&config, &state(1023, "10.0.0.1:1")),
        [
            "service \"a\", port: 1023 is refused; the default of fences.ports (not set in /etc/tcpgw/config.toml) \
          allows 1024-65535"
        ]
    );
    assert_eq!(refusals(&config, &state(1024, "10.0.0.1:1")), [""; 0]);
    assert_eq!(refusals(&config, &state(65535, "10.0.0.1:1")), [""; 0]);
}

#[test]
fn each_refusal_names_its_fence() {
    let config = read("fences.ports = [\"1-10\", 20]\nfences.backends = [\"10.0.0.0/8\", \"2001:db8::/32\"]").unwrap();
    assert_eq!(refusals(&config, &state(10, "10.255.0.1:1")), [""; 0]);
    assert_eq!(refusals(&config, &state(20, "[2001:db8::1]:1")), [""; 0]);
    assert_eq!(
        refusals(&config, &state(11, "11.0.0.1:1")),
        [
            "service \"a\", port: 11 is refused; fences.ports in config.toml allows 1-10, 20",
            "service \"a\", backends: 11.0.0.1:1 is refused; fences.backends in config.toml allows \
             10.0.0.0/8, 2001:db8::/32",
        ]
    );
    let only_four = read("fences.backends = \"0.0.0.0/0\"").unwrap();
    assert_eq!(refusals(&only_four, &state(2000, "[2001:db8::1]:1")).len(), 1);
}

#[test]
fn sizes_are_fenced() {
    let two = br#"{"version":1,"services":[{"name":"a","port":2000,"backends":["10.0.0.1:1","10.0.0.2:1"]},
        {"name":"b","port":2001,"backends":["10.0.0.3:1"]}]}"#;
    let two = model::parse(two).unwrap();
    let tight = read("[fences]\nmax_services = 1\nmax_backends = 2").unwrap();
    assert_eq!(
        refusals(&tight, &two),
        [
            "services: there are 2 services; fences.max_services in config.toml allows 1",
            "services: there are 3 backends; fences.max_backends in config.toml allows 2",
        ]
    );
    let exact = read("[fences]\nmax_services = 2\nmax_backends = 3").unwrap();
    assert_eq!(refusals(&exact, &two), [""; 0]);
}
