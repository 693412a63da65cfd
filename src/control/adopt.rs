//! Services made from the state of the kernel, for a daemon that takes over from an earlier process or the CLI.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::reconcile::RecordedContents;
use crate::store::last_services::LastServices;
use tcpgw_core::model::{
    Access, Backend, BackendState, Balance, ClientCaps, Endpoint, HealthSettings, Limit, LimitDirection, Listen,
    PacketRefusal, Service, SourceMode,
};
use tcpgw_core::owner::{Details, Owner};
use tcpgw_core::summary::{ServiceSettings, ServiceSummary, Summary, balance_code};

/// A service that was served before this daemon.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AdoptedService {
    /// The service as the kernel holds it.
    pub(crate) serving: Service,
    /// The service as it was desired, as far as is known.
    pub(crate) wanted: Service,
    /// Owner of the service; `None`: unknown.
    pub(crate) owner: Option<Owner>,
    /// Whether `wanted` is as its provider defined it; otherwise fields that no rule contains have their defaults.
    pub(crate) is_whole: bool,
    /// Whether it was served without backends because its resource of the add-on was suspended.
    pub(crate) is_suspended: bool,
}

impl AdoptedService {
    /// Keeps new connections from the backends of a suspended service whose resource is not known any more.
    pub(crate) fn stay_suspended(&mut self) {
        for backend in &mut self.wanted.backends {
            backend.state = BackendState::Draining;
        }
        self.wanted.on_empty = PacketRefusal::Reset;
    }
}

/// Returns the services that the kernel holds, or held. Fields that are in no rule come from the record, or from the
/// file of last services if `is_last_newer` ([`LastServices::is_newer`]).
pub(crate) fn adopt(
    summary: &Summary,
    recorded: Option<&RecordedContents>,
    last: &LastServices,
    is_last_newer: bool,
) -> Vec<AdoptedService> {
    let left = recorded.map(|recorded| &recorded.left);
    let recorded = recorded.and_then(|recorded| Some((&recorded.summary, recorded.details.as_ref()?)));
    let known: BTreeMap<&str, &ServiceSummary> = recorded
        .iter()
        .flat_map(|(summary, _)| &summary.services)
        .filter_map(|service| Some((service.name.as_deref()?, service)))
        .collect();
    let kept = last.kept.iter().filter(|kept| !kept.is_unserved);
    let kept: BTreeSet<(&str, NonZeroU16)> = kept.map(|kept| (&*kept.service.name, kept.service.port)).collect();
    let last: BTreeMap<&str, &(Owner, Arc<Service>)> =
        last.services.iter().map(|known| (&*known.1.name, known)).collect();
    let mut taken: BTreeSet<Box<str>> = summary.services.iter().filter_map(|of| of.name.clone()).collect();
    let services = summary.services.iter().filter_map(|of| service(of, &mut taken));
    let adopt = |serving: Service| {
        let name = &*serving.name;
        let details = recorded.and_then(|(_, details)| details.get(name).cloned());
        let details = details.or_else(|| known.contains_key(name).then(Details::default));
        // A change removed it, and was made in part or not at all.
        let was_removed = || left.is_some_and(|left| left.has_listen_key(&serving));
        let removed = Details {
            owner: Owner::Removed,
            ..Details::default()
        };
        let details = details.or_else(|| was_removed().then_some(removed.clone()));
        let is_removed_since = is_last_newer && !last.contains_key(name);
        let details = details.map(|details| if is_removed_since { removed } else { details });
        let is_suspended = details.as_ref().is_some_and(|details| details.is_suspended);
        let whole = known.get(name).and_then(|known| undamaged(known, &serving));
        let is_kept = || kept.contains(&(name, serving.port));
        let known = last.get(name);
        let known = known.filter(|(_, known)| known.port == serving.port || is_kept());
        let (owner, wanted) = match (details, known) {
            (Some(_), Some((owner, known))) if is_last_newer => (Some(*owner), Some(Service::clone(known))),
            (Some(details), _) => (
                Some(details.owner),
                details.complete(whole.as_ref().unwrap_or(&serving)),
            ),
            (None, Some((owner, known))) => (Some(*owner), Some(Service::clone(known))),
            (None, None) => (None, None),
        };
        AdoptedService {
            is_whole: wanted.is_some() && owner != Some(Owner::Found),
            wanted: wanted.unwrap_or_else(|| serving.clone()),
            serving,
            owner,
            is_suspended,
        }
    };
    services.map(adopt).collect()
}

/// Returns a service as the record knows it, since it may have been damaged in the kernel, with the backends that only
/// the kernel has: a record that could not be written is older. Returns `None` when the record has it on another port.
fn undamaged(recorded: &ServiceSummary, serving: &Service) -> Option<Service> {
    let mut whole = service(recorded, &mut BTreeSet::new()).filter(|whole| whole.port == serving.port)?;
    let known: BTreeSet<Endpoint> = whole.backends.iter().map(|backend| backend.endpoint).collect();
    let others = serving.backends.iter();
    let others = others.filter(|backend| !known.contains(&backend.endpoint));
    whole.backends.extend(others.copied());
    whole.backends.sort_unstable_by_key(|backend| backend.endpoint);
    Some(whole)
}

fn service(summary: &ServiceSummary, taken: &mut BTreeSet<Box<str>>) -> Option<Service> {
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
        name: name(summary, taken),
        port,
        listen: if summary.addresses.is_empty() {
            Listen::Everywhere
        } else {
            Listen::At(summary.addresses.clone())
        },
        backends,
        balance: balance(settings),
        limit: settings.limit.map(limit),
        max_flows: settings.max_flows,
        client: ClientCaps {
            flows: settings.client.0,
            handshakes_per_second: settings.client.1,
        },
        idle_timeout: settings
            .idle_timeout
            .map(|seconds| Duration::from_secs(seconds.get().into())),
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
        drain_timeout: tcpgw_core::model::DRAIN_TIMEOUT,
        health: HealthSettings::default(),
        labels: BTreeMap::new(),
    })
}

/// Returns the name of a service. One that only the kernel knows is named by its port and address, so that it can be
/// exported and removed.
fn name(summary: &ServiceSummary, taken: &mut BTreeSet<Box<str>>) -> Box<str> {
    if let Some(name) = &summary.name {
        return name.clone();
    }
    let address = summary.addresses.first().map(|address| {
        let digits = address.to_string().replace(':', "-");
        format!("-{digits}")
    });
    let mut name = format!("unnamed-{}{}", summary.port, address.unwrap_or_default());
    while !taken.insert(name.as_str().into()) {
        name.push('x');
    }
    name.into()
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

fn balance(settings: &ServiceSettings) -> Balance {
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

fn refusal(reset: bool) -> PacketRefusal {
    if reset {
        PacketRefusal::Reset
    } else {
        PacketRefusal::Drop
    }
}

fn networks(texts: &[Box<str>]) -> Vec<IpNet> {
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tcpgw_core::ruleset::compile::compile;

    fn found(summary: &Summary) -> Vec<Service> {
        let adopted = adopt(summary, None, &LastServices::default(), false).into_iter();
        adopted.map(|adopted| adopted.serving).collect()
    }

    /// Services that are written and read back make the same rules.
    #[test]
    fn what_is_adopted_is_what_was_there() {
        let text = include_bytes!("../../examples/all-fields.json");
        let state = tcpgw_core::model::parse(text).unwrap();
        let summary = Summary::from(&state);
        let adopted = tcpgw_core::model::State::new(found(&summary)).unwrap();
        assert_eq!(Summary::from(&adopted), summary);
        let links = ["eth0".to_owned()].into();
        assert_eq!(compile(&adopted, &links), compile(&state, &links));
    }

    /// Fields that no rule contains are tested, too.
    #[test]
    fn the_record_gives_back_all_that_was_wanted() {
        let state = tcpgw_core::model::parse(include_bytes!("../../examples/all-fields.json")).unwrap();
        let summary = Summary::from(&state);
        let details = state.services.iter().map(|service| {
            let details = Details::new(Owner::Api, service, service);
            (service.name.clone(), details)
        });
        let recorded = RecordedContents {
            summary: summary.clone(),
            details: Some(details.collect()),
            left: Summary::default(),
            deadlines: Vec::new(),
            pauses: Vec::new(),
            applied: None,
        };
        let adopted = adopt(&summary, Some(&recorded), &LastServices::default(), false);
        assert!(adopted.iter().all(|a| a.is_whole && a.owner == Some(Owner::Api)));
        let wanted = adopted.into_iter().map(|adopted| adopted.wanted);
        assert_eq!(tcpgw_core::model::State::new(wanted).unwrap(), state);
    }

    #[test]
    fn the_file_of_last_services_tells_where_no_record_does() {
        let text = include_bytes!("../../examples/all-fields.json");
        let state = tcpgw_core::model::parse(text).unwrap();
        let last = LastServices {
            services: state.services.iter().map(|s| (Owner::File, Arc::clone(s))).collect(),
            ..LastServices::default()
        };
        let adopted = adopt(&Summary::from(&state), None, &last, false);
        assert!(adopted.iter().all(|a| a.is_whole && a.owner == Some(Owner::File)));
        let wanted = adopted.into_iter().map(|adopted| adopted.wanted);
        assert_eq!(tcpgw_core::model::State::new(wanted).unwrap(), state);
    }

    /// Services without an accepted name could not be exported, nor named in an order.
    #[test]
    fn what_has_no_name_gets_one_that_is_accepted() {
        let text = r#"{"version": 1, "services": [
            {"name": "unnamed-2001", "port": 2009, "backends": []},
            {"name": "a", "port": 2001, "backends": ["10.2.0.11:80"]},
            {"name": "b", "port": 2002, "addresses": ["2001:db8:1234:5678:9abc:def0:1234:5678"], "backends": []}]}"#;
        let state = tcpgw_core::model::parse(text.as_bytes()).unwrap();
        let mut summary = Summary::from(&state);
        for service in &mut summary.services {
            service.name.take_if(|name| name.len() == 1);
        }
        let names: Vec<Box<str>> = found(&summary).into_iter().map(|service| service.name).collect();
        let ipv6 = "unnamed-2002-2001-db8-1234-5678-9abc-def0-1234-5678";
        assert_eq!(names, ["unnamed-2001x".into(), ipv6.into(), Box::from("unnamed-2001")]);
        let state = tcpgw_core::model::State::new(found(&summary)).unwrap();
        tcpgw_core::model::parse(tcpgw_core::model::write::state_text(&state).as_bytes()).unwrap();
    }
}
