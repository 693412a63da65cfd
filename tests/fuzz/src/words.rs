//! Single values as text: endpoints, addresses, networks, durations, marks, names in the kernel.

use std::fmt::Display;

use ipnet::IpNet;
use tcpgw_core::model::{Endpoint, FlowMark, address, duration, network};
use tcpgw_core::ruleset::name::{RoundRobinChain, SetName};
use tcpgw_core::ruleset::room::Room;

/// Checks that any text is read as a value that is shown as it is read, or gets its own refusal.
pub fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    one(text);
    text.split([' ', '\n']).for_each(one);
    check_networks(text);
}

fn one(text: &str) {
    shown_as_read(text, str::parse::<Endpoint>);
    shown_as_read(text, address::parse);
    shown_as_read(text, network::parse);
    shown_as_read(text, str::parse::<FlowMark>);
    match duration::parse(text) {
        Ok(length) => assert_eq!(duration::parse(&duration::show(length)), Ok(length)),
        Err(error) => refused(&error),
    }
    if let Ok(address) = address::parse(text) {
        let refused = address::refusal_as_local(address).is_some();
        assert!(!refused || address::refusal_as_backend(address).is_some());
    }
    if let Ok(room) = text.parse::<Room>() {
        assert_eq!(room.to_string().parse::<Room>().ok(), Some(room));
    }
    assert!(SetName::parse(text).is_none_or(|set| set.to_string() == text));
    assert!(RoundRobinChain::parse(text).is_none_or(|chain| chain.to_string() == text));
}

fn shown_as_read<T, E>(text: &str, parse: impl Fn(&str) -> Result<T, E>)
where
    T: Display + PartialEq + std::fmt::Debug,
    E: Display,
{
    match parse(text) {
        Ok(value) => assert_eq!(parse(&value.to_string()).ok(), Some(value)),
        Err(error) => refused(&error),
    }
}

fn refused(error: &impl Display) {
    let text = error.to_string();
    assert!(!text.is_empty() && !text.contains(char::is_control), "{text:?}");
}

/// Checks that a list of networks covers the same addresses as its fewest networks.
fn check_networks(text: &str) {
    let networks: Vec<IpNet> = text
        .split([' ', '\n'])
        .filter_map(|text| network::parse(text).ok())
        .collect();
    let fewest = network::aggregate(&networks);
    for net in &networks {
        assert_eq!(
            fewest.iter().filter(|of| of.contains(net)).count(),
            1,
            "{net} in {fewest:?}"
        );
    }
    assert!(fewest.iter().zip(fewest.iter().skip(1)).all(|(a, b)| a < b));
    assert_eq!(network::aggregate(&fewest), fewest);
}
