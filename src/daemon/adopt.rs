//! Services out of what the kernel holds, for a daemon that takes over what an earlier run or the CLI has left.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

use ipnet::IpNet;

use super::roster::overlap;
use crate::model::{
    Access, Backend, BackendState, Balance, Endpoint, Health, Limit, LimitDirection, Listen, Refusal, Service,
    SourceMode,
};
use crate::summary::{ServiceSummary, Settings, Summary, balance_code};

/// What the kernel holds, as services; what only a state file says has its default.
pub(super) fn services(summary: &Summary) -> Vec<Service> {
    summary.services.iter().filter_map(service).collect()
}

/// What is left of services that were found when those that others want are taken out: by name, by where they listen, by
/// endpoint, unless it was in both before. What was found is called as a record says, which may be older than what others
/// want.
pub(super) fn beside<'s>(found: &[Service], others: impl Iterator<Item = &'s Arc<Service>>) -> Vec<Service> {
    let mut names = BTreeSet::new();
    let mut doors: BTreeMap<NonZeroU16, Vec<&Listen>> = BTreeMap::new();
    let mut endpoints = BTreeSet::new();
    for other in others {
        names.insert(&*other.name);
        doors.entry(other.port).or_default().push(&other.listen);
        endpoints.extend(other.backends.iter().map(|backend| backend.endpoint));
    }
    let is_taken = |service: &Service| {
        let mut there = doors.get(&service.port).into_iter().flatten();
        names.contains(&*service.name) || there.any(|listen| overlap(listen, &service.listen))
    };
    let (taken, left): (Vec<&Service>, Vec<&Service>) = found.iter().partition(|service| is_taken(service));
    let shared = taken.iter().flat_map(|service| &service.backends);
    let shared: BTreeSet<Endpoint> = shared.map(|backend| backend.endpoint).collect();
    let without = |service: &Service| {
        let mut service = service.clone();
        let stays = |endpoint: &Endpoint| !endpoints.contains(endpoint) || shared.contains(endpoint);
        service.backends.retain(|backend| stays(&backend.endpoint));
        service
    };
    left.into_iter().map(without).collect()
}

fn service(summary: &ServiceSummary) -> Option<Service> {
    let port = NonZeroU16::new(summary.port)?;
    let settings = &summary.settings;
    let active = summary
        .active
        .iter()
        .filter_map(|(at, weight)| backend(*at, *weight, BackendState::Active));
    let draining = summary
        .draining
        .iter()
        .filter_map(|at| backend(*at, 1, BackendState::Draining));
    let mut backends: Vec<Backend> = active.chain(draining).collect();
    backends.sort_unstable_by_key(|backend| backend.endpoint);
    Some(Service {
        name: name(summary),
        port,
        listen: if summary.addresses.is_empty() {
            Listen::Everywhere
        } else {
            Listen::At(summary.addresses.clone())
        },
        backends,
        balance: balance(settings),
        limit: settings.limit.map(limit),
        on_retire: refusal(settings.retire_reset),
        on_empty: refusal(settings.empty_reset != Some(false)),
        source: if settings.preserve {
            SourceMode::Preserve
        } else {
            SourceMode::Masquerade
        },
        source_addresses: settings.source_addresses.clone(),
        access: Access {
            allow: settings.allow.as_deref().map(networks),
            deny: networks(&settings.deny),
        },
        drain_timeout: crate::model::DRAIN_TIMEOUT,
        health: Health::default(),
        labels: BTreeMap::new(),
    })
}

/// One that only the kernel knows is called by where it listens: no state file could call it so.
fn name(summary: &ServiceSummary) -> Box<str> {
    summary.name.clone().unwrap_or_else(|| {
        let address = summary.addresses.first().map(ToString::to_string).unwrap_or_default();
        format!("(unnamed) {address}:{}", summary.port).into()
    })
}

fn backend(at: SocketAddr, weight: u16, state: BackendState) -> Option<Backend> {
    Some(Backend {
        endpoint: Endpoint {
            address: at.ip(),
            port: NonZeroU16::new(at.port())?,
        },
        weight: NonZeroU16::new(weight).unwrap_or(NonZeroU16::MIN),
        state,
    })
}

fn balance(settings: &Settings) -> Balance {
    let all = [
        Balance::ClientHash,
        Balance::Random,
        Balance::SourceHash,
        Balance::RoundRobin,
    ];
    let known = all
        .into_iter()
        .find(|balance| settings.balance == Some(balance_code(*balance)));
    known.unwrap_or(Balance::ClientHash)
}

fn limit((pps, burst, mtu, shared): (u32, u32, u32, bool)) -> Limit {
    Limit {
        pps,
        burst,
        mtu,
        direction: if shared {
            LimitDirection::Shared
        } else {
            LimitDirection::Each
        },
    }
}

fn refusal(reset: bool) -> Refusal {
    if reset { Refusal::Reset } else { Refusal::Drop }
}

fn networks(texts: &[Box<str>]) -> Vec<IpNet> {
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ruleset::compile::compile;

    /// A record that is older than the store does not know their names.
    #[test]
    fn what_others_want_is_not_left() {
        let services = |text: &str| {
            let text = format!(r#"{{"version": 1, "services": [{text}]}}"#);
            crate::model::parse(text.as_bytes()).unwrap().services
        };
        let found = services(
            r#"{"name": "unnamed", "port": 2001, "backends": ["10.2.0.11:80"]},
               {"name": "moved", "port": 2002, "backends": ["10.2.0.12:80"]},
               {"name": "files", "port": 2003, "backends": ["10.2.0.11:80", "10.2.0.13:80", "10.2.0.14:80"]}"#,
        );
        let wanted = services(
            r#"{"name": "web", "port": 2001, "backends": ["10.2.0.11:80"]},
               {"name": "moved", "port": 2004, "backends": ["10.2.0.12:80", "10.2.0.14:80"]}"#,
        );
        let found: Vec<Service> = found.iter().map(|service| Service::clone(service)).collect();
        let left = beside(&found, wanted.iter());
        let files = services(r#"{"name": "files", "port": 2003, "backends": ["10.2.0.11:80", "10.2.0.13:80"]}"#);
        assert_eq!(left, [Service::clone(&files[0])]);
        assert_eq!(beside(&found, [].iter()), found);
    }

    /// What was written and read back as services makes the same rules.
    #[test]
    fn what_is_adopted_is_what_was_there() {
        let text = include_bytes!("../../examples/all-fields.json");
        let state = crate::model::parse(text).unwrap();
        let summary = Summary::from(&state);
        let adopted = crate::model::State::new(services(&summary)).unwrap();
        assert_eq!(Summary::from(&adopted), summary);
        let links = ["eth0".to_owned()].into();
        assert_eq!(compile(&adopted, &links), compile(&state, &links));
    }
}
