//! Words of findings: lists, ranges of ports, and words for a shell.

use std::fmt::Display;
use std::net::SocketAddr;

use tcpgw_core::summary::{ServiceSummary, Summary};
use tcpgw_core::words::first_and_more;

/// Maximum number of items that a message names.
pub(super) const SHOWN: usize = 5;

/// Returns a list for people: `a, b, c and 7 more`.
pub(super) fn some<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    first_and_more(items, SHOWN)
}

/// Returns the name and port of a service.
pub(super) fn named_service(service: &ServiceSummary) -> String {
    let name = service.name.as_deref().unwrap_or("(unnamed)");
    format!("{name} :{}", service.port)
}

/// Returns words for the services of some backends, to be put behind these: `, of web :2001 and 2 more`.
pub(super) fn of_services(services: &Summary, is_concerned: impl Fn(SocketAddr) -> bool) -> String {
    let services = services.services.iter();
    let concerned = services.filter(|service| service.backends().any(&is_concerned));
    let names: Vec<String> = concerned.map(named_service).collect();
    if names.is_empty() {
        String::new()
    } else {
        format!(", of {}", some(&names))
    }
}

/// Returns the name of an interface's setting for `sysctl`, where a dot in the interface's name is written as a slash
/// (`sysctl(8)`).
pub(super) fn sysctl(family: &str, link: &str, setting: &str) -> String {
    quoted(&format!("net.{family}.conf.{}.{setting}", link.replace('.', "/")))
}

/// Returns a word for a command line, quoted if a shell would not take it as one word.
pub(super) fn quoted(word: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./@:,=+".contains(letter);
    if word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Returns ports as ranges.
pub(super) fn ranges(ports: &std::collections::BTreeSet<u16>) -> Vec<(u16, u16)> {
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for port in ports {
        match ranges.last_mut() {
            Some((_, to)) if to.checked_add(1) == Some(*port) => *to = *port,
            _ => ranges.push((*port, *port)),
        }
    }
    ranges
}

pub(super) fn range_list(ranges: &[(u16, u16)], separator: &str) -> String {
    let text = |(from, to): &(u16, u16)| {
        if from == to {
            from.to_string()
        } else {
            format!("{from}-{to}")
        }
    };
    ranges.iter().map(text).collect::<Vec<_>>().join(separator)
}
