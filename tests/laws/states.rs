//! Small states that overlap: few ports, addresses and endpoints, which move from service to service, and are in two services
//! where these agree.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::SocketAddr;

use proptest::prelude::*;
use tcpgw::reconcile::Desired;
use tcpgw_core::model::{self, State};
use tcpgw_core::ruleset::Ruleset;
use tcpgw_core::ruleset::compile::compile;
use tcpgw_core::ruleset::links::{Link, Links};

pub(crate) const PORTS: u16 = 3;
pub(crate) const FIRST_PORT: u16 = 8000;
const PLACES: usize = PORTS as usize * 2;
pub(crate) const ENDPOINTS: usize = 12;

const SOURCES: [&str; 4] = ["192.0.2.2", "192.0.2.9", "2001:db8::1", "2001:db8::9"];
const NETWORKS: [&str; 7] = [
    "198.51.100.0/25",
    "198.51.100.128/25",
    "203.0.113.7/32",
    "0.0.0.0/0",
    "2001:db8:5::/48",
    "2001:db8:4::/47",
    "::/0",
];

/// Generates any valid state of these, as text.
pub(crate) fn text() -> impl Strategy<Value = String> {
    let ports = prop::collection::vec((0..5_u8, settings(), settings()), usize::from(PORTS));
    let endpoints = prop::collection::vec(endpoint(), ENDPOINTS);
    let alike = prop::collection::vec(prop::bool::weighted(0.6), PLACES);
    (ports, endpoints, settings(), alike).prop_map(|(mut ports, endpoints, common, alike)| {
        let places = ports.iter_mut().flat_map(|(_, one, other)| [one, other]);
        for (settings, _) in places.zip(alike).filter(|(_, alike)| *alike) {
            settings.agree_with(&common);
        }
        document(&ports, &endpoints)
    })
}

pub(crate) fn parse(text: &str) -> State {
    model::parse(text.as_bytes()).unwrap_or_else(|problems| panic!("{text}\n{problems}"))
}

/// Compiles the ruleset of a state with the links of these tests.
pub(crate) fn ruleset(state: &State) -> Ruleset {
    compile(state, &links())
}

pub(crate) fn desired(state: &State) -> Desired {
    Desired::new(state, &links())
}

/// Returns one link with an address of its own, and one without.
pub(crate) fn links() -> Links {
    let mut links: Links = ["ext".to_owned()].into();
    links.insert("int".into(), with_source(1));
    links
}

/// Returns a link that has that address.
pub(crate) fn with_source(host: u8) -> Link {
    Link {
        up: true,
        source_v4: Some([10, 0, 0, host].into()),
        source_v6: None,
    }
}

#[derive(Debug, Clone)]
struct Settings {
    renamed: bool,
    balance: &'static str,
    limit: &'static str,
    idle: &'static str,
    words: (bool, bool, bool),
    sources: BTreeSet<&'static str>,
    allow: BTreeSet<&'static str>,
    deny: BTreeSet<&'static str>,
}

impl Settings {
    /// Says the same about what belongs to endpoints.
    fn agree_with(&mut self, other: &Self) {
        self.limit = other.limit;
        self.words.2 = other.words.2;
        self.sources.clone_from(&other.sources);
    }

    fn agrees_with(&self, other: &Self) -> bool {
        let preserves = self.words.2;
        let same_sources = preserves || self.sources == other.sources;
        (self.limit, preserves) == (other.limit, other.words.2) && same_sources
    }
}

fn settings() -> impl Strategy<Value = Settings> {
    let networks = |most| prop::collection::btree_set(prop::sample::select(NETWORKS.to_vec()), 0..=most);
    let limit = prop::sample::select(vec![
        "",
        r#","limit":{"pps":1000}"#,
        r#","limit":{"pps":1000,"burst":7,"mtu":9000}"#,
        r#","limit":{"pps":500,"direction":"shared"}"#,
        r#","limit":{"pps":500},"max_flows":50,"client":{"flows":3,"handshakes_per_second":4}"#,
        r#","max_flows":60,"client":{"flows":3}"#,
        r#","client":{"handshakes_per_second":9}"#,
    ]);
    let balance = prop::sample::select(vec![
        "client-hash",
        "client-hash",
        "random",
        "source-hash",
        "round-robin",
    ]);
    let idle = prop::sample::select(vec!["", "", r#","idle_timeout":"60s""#, r#","idle_timeout":"2h""#]);
    let sources = prop::collection::btree_set(prop::sample::select(SOURCES.to_vec()), 0..=3);
    let lists = prop_oneof![
        2 => Just((BTreeSet::new(), BTreeSet::new())),
        1 => (networks(3), networks(2)),
    ];
    (
        prop::bool::weighted(0.2),
        balance,
        (limit, idle),
        any::<(bool, bool, bool)>(),
        prop_oneof![2 => Just(BTreeSet::new()), 1 => sources],
        lists,
    )
        .prop_map(
            |(renamed, balance, (limit, idle), words, sources, (allow, deny))| Settings {
                renamed,
                balance,
                limit,
                idle,
                words,
                sources,
                allow,
                deny,
            },
        )
}

#[derive(Debug, Clone)]
struct Slot {
    owner: usize,
    weight: u16,
    draining: bool,
    /// Second place of the slot, used if the services agree, and whether it drains there.
    also: Option<(usize, bool)>,
}

impl Slot {
    /// Returns the slot as it is in a place, if it is there.
    fn in_place(&self, place: usize, ports: &[(u8, Settings, Settings)]) -> Option<Self> {
        if self.owner == place {
            return Some(self.clone());
        }
        let (_, draining) = self.also.filter(|(also, _)| *also == place)?;
        let of = |place: usize| {
            let (_, one, other) = ports.get(place / 2)?;
            Some(if place.is_multiple_of(2) { one } else { other })
        };
        let agrees = match (of(self.owner), of(place)) {
            (Some(one), Some(other)) => one.agrees_with(other),
            _ => true,
        };
        (agrees || self.draining || draining).then(|| Self {
            draining,
            ..self.clone()
        })
    }
}

fn endpoint() -> impl Strategy<Value = Slot> {
    let weight = prop_oneof![3 => Just(1), 2 => 1..5_u16, 1 => 1..=256_u16];
    let also = prop::option::weighted(0.4, (0..PLACES, prop::bool::weighted(0.2)));
    (0..PLACES + 2, weight, prop::bool::weighted(0.2), also).prop_map(|(owner, weight, draining, also)| Slot {
        owner,
        weight,
        draining,
        also,
    })
}

fn document(ports: &[(u8, Settings, Settings)], endpoints: &[Slot]) -> String {
    let mut services = Vec::new();
    for (at, (shape, one, other)) in ports.iter().enumerate() {
        let listen_keys: &[&[&str]] = match shape {
            0 => &[],
            1 => &[&[]],
            2 => &[&["192.0.2.1", "2001:db8::1"]],
            3 => &[&["192.0.2.1"], &["192.0.2.2", "2001:db8::1"]],
            _ => &[&["192.0.2.1", "192.0.2.2"], &["2001:db8::1"]],
        };
        for (which, (addresses, settings)) in listen_keys.iter().zip([one, other]).enumerate() {
            let place = at * 2 + which;
            let slots = endpoints.iter().map(|slot| slot.in_place(place, ports));
            let slots: Vec<_> = slots.enumerate().filter_map(|(at, slot)| Some((at, slot?))).collect();
            services.push(service(at, which, addresses, settings, &slots));
        }
    }
    format!(r#"{{"version":1,"services":[{}]}}"#, services.join(","))
}

fn service(at: usize, which: usize, addresses: &[&str], settings: &Settings, slots: &[(usize, Slot)]) -> String {
    let backends: Vec<String> = slots.iter().map(|(at, slot)| backend(*at, slot)).collect();
    let port = usize::from(FIRST_PORT) + at;
    let name = if settings.renamed { "new" } else { "app" };
    let (retire, empty, preserve) = settings.words;
    let mut text = format!(
        r#"{{"name":"{name}-{at}-{which}","port":{port},"backends":[{}],"balance":"{}","on_retire":"{}","on_empty":"{}","source":"{}"{}{}"#,
        backends.join(","),
        settings.balance,
        if retire { "drop" } else { "reset" },
        if empty { "drop" } else { "reset" },
        if preserve { "preserve" } else { "masquerade" },
        settings.limit,
        settings.idle,
    );
    for (field, items) in [
        ("addresses", addresses.to_vec()),
        (
            "source_addresses",
            if preserve {
                Vec::new()
            } else {
                settings.sources.iter().copied().collect()
            },
        ),
        ("allow", settings.allow.iter().copied().collect()),
        ("deny", settings.deny.iter().copied().collect()),
    ] {
        if !items.is_empty() {
            let _ = write!(text, r#","{field}":{items:?}"#);
        }
    }
    text + "}"
}

fn backend(at: usize, slot: &Slot) -> String {
    let endpoint: SocketAddr = endpoint_text(at).parse().unwrap();
    let state = if slot.draining { "draining" } else { "active" };
    format!(
        r#"{{"address":"{}","port":{},"weight":{},"state":"{state}"}}"#,
        endpoint.ip(),
        endpoint.port(),
        slot.weight
    )
}

pub(crate) fn endpoint_text(at: usize) -> String {
    if at % 3 == 2 {
        format!("[fd00:2::{}]:3000", at + 11)
    } else {
        format!("10.2.0.{}:3000", at + 11)
    }
}
