//! Configuration files.

use std::path::Path;

use tcpgw::config::Config;

use super::sample::sample;

/// Checks that any text is a configuration or is refused with a place, and that its fences can judge states.
pub fn check(bytes: &[u8]) {
    let config = match Config::parse(Path::new("config.toml"), bytes) {
        Ok(config) => config,
        Err(error) => return assert!(error.to_string().starts_with("config.toml: ")),
    };
    let (ports, networks) = (&config.fences.ports, &config.fences.backends);
    assert!(ports.as_ref().is_none_or(|ports| !ports.is_empty()));
    assert!(networks.as_ref().is_none_or(|networks| !networks.is_empty()));
    assert!(config.flow_mark.value() != 0 && config.flow_mark.value() & !config.flow_mark.mask() == 0);
    assert_eq!(config.flow_mark.to_string().parse(), Ok(config.flow_mark));
    for problem in config.check(&sample().state) {
        let text = problem.to_string();
        assert!(
            text.contains("config.toml") && !text.contains(char::is_control),
            "{text:?}"
        );
    }
}
