//! The ruleset of a state: its effect on packets, and its reading back.

use std::collections::BTreeSet;

use proptest::prelude::*;
use tcpgw::record::{RecordFile, RecordHead};
use tcpgw_core::model::{FlowMark, State};
use tcpgw_core::render;
use tcpgw_core::ruleset::Ruleset;
use tcpgw_core::ruleset::name::{Family, ListenScope, RoundRobinChain, SetName, SpreadRule};
use tcpgw_core::ruleset::spec::SetSpec;
use tcpgw_core::ruleset::text;
use tcpgw_core::ruleset::timeouts::KernelTimeouts;
use tcpgw_core::summary::{FlowVerdict, ServiceSummary, Summary};
use tcpgw_kernel::fake::{ConnectOutcome, Fake, PacketWalk};

use crate::clients::syns;
use crate::state;
use crate::states::{links, ruleset};

proptest! {
    #[test]
    fn the_order_of_services_does_not_matter(
        (state, shuffled) in state().prop_flat_map(|state| (Just(state.clone()), Just(state.services).prop_shuffle()))
    ) {
        let shuffled = State::new(shuffled).unwrap();
        prop_assert_eq!(ruleset(&state), ruleset(&shuffled));
        let mut unsorted = state.clone();
        unsorted.services.reverse();
        prop_assert_eq!(ruleset(&state), ruleset(&unsorted));
        prop_assert_eq!(Summary::from(&state), Summary::from(&shuffled));
    }

    #[test]
    fn slots_are_dense_and_as_many_as_are_drawn(state in state()) {
        let ruleset = ruleset(&state);
        for listen_scope in ListenScope::ALL {
            let numbers = slot_numbers(&ruleset, listen_scope);
            let mut drawn = BTreeSet::new();
            for (service, width) in drawers(&ruleset, listen_scope) {
                let listening = if matches!(listen_scope, ListenScope::Any(_)) { service[4..].to_vec() } else { service };
                let of_service: Vec<u32> =
                    numbers.iter().filter(|(key, _)| *key == listening).map(|(_, number)| *number).collect();
                prop_assert_eq!(of_service, (0..width).collect::<Vec<_>>());
                prop_assert!(drawn.insert(listening), "drawn from in two ways");
            }
            let owners: BTreeSet<_> = numbers.into_iter().map(|(key, _)| key).collect();
            prop_assert_eq!(owners, drawn);
        }
    }

    #[test]
    fn every_backend_is_limited_or_unlimited(state in state()) {
        let ruleset = ruleset(&state);
        for listen_scope in ListenScope::ALL {
            let key_len = SetSpec::of(SetName::Slots(listen_scope)).key_len();
            for row in ruleset.rows(SetName::Slots(listen_scope)).into_iter().flatten() {
                let is_in = |set| ruleset.rows(set).is_some_and(|rows| rows.contains(&row[key_len..]));
                let family = listen_scope.family();
                prop_assert!(is_in(SetName::Limited(family)) != is_in(SetName::Unlimited(family)));
            }
        }
        for family in Family::BOTH {
            let keys = |set| -> BTreeSet<Vec<u8>> {
                let len = SetSpec::of(set).key_len();
                ruleset.rows(set).into_iter().flatten().map(|row| row[..len].to_vec()).collect()
            };
            prop_assert_eq!(keys(SetName::LimitTo(family)), keys(SetName::LimitFrom(family)));
            let policed = &keys(SetName::LimitTo(family)) | &keys(SetName::LimitBoth(family));
            prop_assert_eq!(policed, keys(SetName::Limited(family)));
            for (all, handshakes) in [
                (SetName::LimitTo(family), SetName::HandshakesTo(family)),
                (SetName::LimitFrom(family), SetName::HandshakesFrom(family)),
                (SetName::LimitBoth(family), SetName::HandshakesBoth(family)),
            ] {
                prop_assert_eq!(keys(all), keys(handshakes));
            }
        }
    }

    #[test]
    fn where_the_rules_send_a_client_is_where_its_flow_belongs(state in state()) {
        let (view, summary) = (view(&ruleset(&state)), Summary::from(&state));
        for syn in syns() {
            let service = summary.service_at(syn.public);
            let backends = service.map(|service| active(service, syn.public.is_ipv4())).unwrap_or_default();
            let mut reached = BTreeSet::new();
            for pick in 0..256 {
                match PacketWalk::steady(&view).syn(&syn, pick).0 {
                    ConnectOutcome::Backend(backend) => {
                        prop_assert_eq!(summary.verdict(syn.public, backend), FlowVerdict::Active);
                        reached.insert(backend);
                    }
                    ConnectOutcome::Empty { reset } => {
                        prop_assert!(backends.is_empty());
                        prop_assert_eq!(Some(reset), service.unwrap().settings.empty_reset);
                    }
                    ConnectOutcome::Refused => prop_assert!(!may_enter(service.unwrap(), syn.client.ip())),
                    ConnectOutcome::Foreign => prop_assert!(service.is_none()),
                    ConnectOutcome::Missed => prop_assert!(false, "a SYN was lost"),
                }
            }
            if service.is_some_and(|service| may_enter(service, syn.client.ip())) {
                prop_assert_eq!(reached, backends);
            } else {
                prop_assert!(reached.is_empty());
            }
        }
    }

    #[test]
    fn the_kernel_tells_what_the_state_said(state in state()) {
        let (ruleset, summary) = (ruleset(&state), Summary::from(&state));
        prop_assert_eq!(&Summary::of_kernel(&ruleset, &summary), &summary);
        let alone = Summary::of_kernel(&ruleset, &Summary::default());
        let active = |summary: &Summary| -> BTreeSet<_> {
            let of = |s: &ServiceSummary| s.active.keys().map(|b| (s.port, *b)).collect::<Vec<_>>();
            summary.services.iter().flat_map(of).collect()
        };
        let mut reachable = summary.clone();
        for service in &mut reachable.services {
            let listen_keys = service.addresses.clone();
            let leads = |b: &std::net::SocketAddr| listen_keys.is_empty() || listen_keys.iter().any(|a| a.is_ipv4() == b.is_ipv4());
            service.active.retain(|backend, _| leads(backend));
        }
        prop_assert_eq!(active(&alone), active(&reachable));
        for listen_key in &alone.services {
            let address = listen_key.addresses.first().copied().unwrap_or("203.0.113.200".parse().unwrap());
            let service = summary.service_at((address, listen_key.port).into());
            prop_assert!(service.is_some_and(|s| s.settings.retire_reset == listen_key.settings.retire_reset));
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written(state in state(), generation: u32, namespace: u64, swept: bool) {
        let directory = tempfile::tempdir().unwrap();
        let store = RecordFile::new(directory.path(), namespace);
        let head = RecordHead {
            program: "1".into(),
            boot: "2".into(),
            namespace,
            generation,
            table: 3,
            room: "0".into(),
            mark: FlowMark::default().to_string(),
            swept,
            applied: None,
            deadlines: Vec::new(),
            pauses: Vec::new(),
            details: None,
            timeouts: KernelTimeouts::default(),
            summary: Summary::from(&state),
            is_hint: false,
            changes: Vec::new(),
            left: Summary::default(),
        };
        store.save(&head, &ruleset(&state)).unwrap();
        let record = store.load().unwrap();
        prop_assert_eq!(record.head, head);
        prop_assert_eq!(record.ruleset, ruleset(&state));
    }

    #[test]
    fn names_parse_back(state in state(), listen_scope in prop::sample::select(ListenScope::ALL.to_vec()), width in 1..=256_u16) {
        let ruleset = ruleset(&state);
        for name in ruleset.sets().keys().copied().chain([SetName::Spread(listen_scope, SpreadRule::client_hash(width)), SetName::Spread(listen_scope, SpreadRule::random(width))]) {
            prop_assert_eq!(SetName::parse(&name.to_string()), Some(name));
        }
        for chain in ruleset.round_robin_chains() {
            prop_assert_eq!(RoundRobinChain::parse(&chain.to_string()), Some(chain.clone()));
        }
    }

    #[test]
    fn any_name_gives_an_answer(name in "(width|random|turn|turns|slots)?(_[0-9]{1,3})?(_?idle_[0-9]{1,11})?[_a-z0-9.-]{0,20}") {
        prop_assert!(SetName::parse(&name).is_none_or(|set| set.to_string() == name));
        prop_assert!(RoundRobinChain::parse(&name).is_none_or(|chain| chain.to_string() == name));
    }

    #[test]
    fn any_key_gives_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..64), width in 1..=256_u16) {
        let widths = ListenScope::ALL.map(|listen_scope| SetName::Spread(listen_scope, SpreadRule::random(width)));
        for name in SetName::fixed().into_iter().chain(widths) {
            let spec = SetSpec::of(name);
            prop_assert_eq!(text::key(name, &bytes).is_some(), bytes.len() >= spec.key_len());
            prop_assert!(text::network(name, &bytes).is_some() <= (bytes.len() >= spec.identity_len()));
        }
    }

    #[test]
    fn every_ruleset_has_its_text(state in state()) {
        let mut text = String::new();
        render::table(&mut text, &ruleset(&state), FlowMark::default()).unwrap();
        prop_assert_eq!(text.matches('{').count(), text.matches('}').count());
        for service in &state.services {
            prop_assert!(text.contains(&service.port.to_string()));
        }
    }
}

#[test]
fn links_are_listed_for_those_who_preserve() {
    let text =
        |source| format!(r#"{{"version":1,"services":[{{"name":"a","port":1,"backends":[],"source":"{source}"}}]}}"#);
    let rows = |source| {
        let state = tcpgw_core::model::parse(text(source).as_bytes()).unwrap();
        ruleset(&state)
            .rows(SetName::SameLink)
            .map_or(0, tcpgw_core::ruleset::rows::Rows::len)
    };
    assert_eq!((rows("masquerade"), rows("preserve")), (0, links().names().count()));
}

fn view(ruleset: &Ruleset) -> tcpgw_kernel::fake::GenerationView {
    Fake::holding(ruleset, FlowMark::default()).unwrap().view()
}

/// Returns the backends that a client of that family can reach.
pub(crate) fn active(service: &ServiceSummary, v4: bool) -> BTreeSet<std::net::SocketAddr> {
    service.active.keys().copied().filter(|b| b.is_ipv4() == v4).collect()
}

pub(crate) fn may_enter(service: &ServiceSummary, client: std::net::IpAddr) -> bool {
    let holds = |networks: &[Box<str>]| {
        networks
            .iter()
            .any(|net| net.parse::<ipnet::IpNet>().unwrap().contains(&client))
    };
    !holds(&service.settings.deny) && service.settings.allow.as_deref().is_none_or(holds)
}

fn slot_numbers(ruleset: &Ruleset, listen_scope: ListenScope) -> Vec<(Vec<u8>, u32)> {
    let name = SetName::Slots(listen_scope);
    let key_len = SetSpec::of(name).key_len();
    let mut numbers: Vec<_> = ruleset
        .rows(name)
        .into_iter()
        .flatten()
        .map(|row| {
            let (listening, number) = row[..key_len].split_at(key_len - 4);
            (listening.to_vec(), u32::from_ne_bytes(number.try_into().unwrap()))
        })
        .collect();
    numbers.sort_unstable();
    numbers
}

/// Returns the services of a listen scope, and the number of slots from which each draws.
fn drawers(ruleset: &Ruleset, listen_scope: ListenScope) -> Vec<(Vec<u8>, u32)> {
    let mut drawers = Vec::new();
    let keys = |set| ruleset.rows(set).into_iter().flatten().map(<[u8]>::to_vec);
    for width in ruleset.widths(listen_scope) {
        let SpreadRule::Slots(slots) = width else { continue };
        drawers.extend(keys(SetName::Spread(listen_scope, width)).map(|key| (key, u32::from(slots.slots))));
    }
    drawers.extend(keys(SetName::Hashed(listen_scope)).map(|key| (key, 256)));
    let services = ruleset
        .round_robin_services()
        .iter()
        .filter(|((of, _), _)| *of == listen_scope);
    drawers.extend(services.map(|((_, key), chain)| (key.to_vec(), u32::from(chain.width))));
    drawers
}
