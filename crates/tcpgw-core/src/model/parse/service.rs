//! Parsing of one service.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::fields::Fields;
use super::{access, backend, health, value};
use crate::model::claims::Claim;
use crate::model::json::Json;
use crate::model::limit::MAX_PPS;
use crate::model::problem::{InputProblems, JsonPath};
use crate::model::{
    Access, Balance, ClientCaps, HealthSettings, Limit, LimitDirection, Listen, PacketRefusal, Service, SourceMode,
};

const MAX_NAME: usize = 63;
const MAX_LABELS: usize = 64;
const MAX_LABEL_KEY: usize = 63;
const MAX_LABEL_VALUE: usize = 1024;
const MAX_FLOWS: u32 = 1_000_000;
/// Largest value of `client.flows`. The kernel walks all flows of a client when a new one begins: 1,000 of them take
/// about 0.1 ms.
const MAX_CLIENT_FLOWS: u32 = 1000;
const MAX_CLIENT_HANDSHAKES: u32 = 100_000;
pub(in crate::model) const DEFAULT_MTU: u32 = 1500;
const MIN_MTU: u32 = 68;
const MAX_MTU: u32 = 65_535;
pub(in crate::model) const DEFAULT_BURST_SECONDS: u32 = 10;
/// Default of `drain_timeout`: longest time for which flows of a draining backend may continue.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_DRAIN: Duration = Duration::from_secs(24 * 3600);
/// Range of `idle_timeout`. The kernel counts in ticks of its clock and 31 bits: 24 days at 1,000 ticks per second.
pub const IDLE_TIMEOUTS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(20 * 24 * 3600);

pub(super) const FIELDS: [&str; 18] = [
    "name",
    "port",
    "addresses",
    "backends",
    "balance",
    "limit",
    "max_flows",
    "client",
    "idle_timeout",
    "on_retire",
    "on_empty",
    "source",
    "source_addresses",
    "allow",
    "deny",
    "drain_timeout",
    "health",
    "labels",
];

/// Reads one service. Fields that could be read take part in the checks across services even when others are wrong.
pub(super) fn read(
    json: &Json,
    place: &JsonPath<'_>,
    claim: &mut Claim<'_>,
    problems: &mut InputProblems,
) -> Option<Service> {
    let fields = Fields::of(json, place, &FIELDS, problems)?;
    let name = fields.required("name", problems, name);
    let port = fields.required("port", problems, value::positive(u16::MAX));
    let listen = fields.or("addresses", Listen::Everywhere, problems, access::listen);
    let backends = fields.required("backends", problems, |json, place, problems| {
        backend::read(json, place, problems, |position, endpoint| {
            claim.endpoint(position, endpoint);
        })
    });
    let balance = fields.or("balance", Balance::ClientHash, problems, value::word);
    let limit = fields.or("limit", None, problems, |json, place, problems| {
        limit(json, place, problems).map(Some)
    });
    let max_flows = fields.or("max_flows", None, problems, optional_number(1..=MAX_FLOWS));
    let client = fields.or("client", ClientCaps::default(), problems, client);
    let idle_timeout = fields.or("idle_timeout", None, problems, |json, place, problems| {
        idle_timeout(json, place, problems).map(Some)
    });
    let on_retire = fields.or("on_retire", PacketRefusal::Drop, problems, value::word);
    let on_empty = fields.or("on_empty", PacketRefusal::Reset, problems, value::word);
    let source = fields.or("source", SourceMode::Masquerade, problems, value::word);
    let source_addresses = fields.or(
        "source_addresses",
        BTreeSet::new(),
        problems,
        |json, place, problems| sources(json, source, place, problems),
    );
    let allow = fields.or("allow", None, problems, |json, place, problems| {
        access::allow(json, place, problems).map(Some)
    });
    let deny = fields.or("deny", Vec::new(), problems, access::networks);
    let drain_timeout = fields.or(
        "drain_timeout",
        DRAIN_TIMEOUT,
        problems,
        value::duration(Duration::ZERO..=MAX_DRAIN),
    );
    let health = fields.or("health", HealthSettings::default(), problems, health::read);
    let labels = fields.or("labels", BTreeMap::new(), problems, labels);

    claim_caps(claim, max_flows.flatten(), client);
    claim.idle_timeout(idle_timeout.flatten());
    claim_public(claim, name.as_deref(), port.zip(listen.as_ref()), balance);
    let service = Service {
        name: name?,
        port: port?,
        listen: listen?,
        backends: backends?,
        balance: balance?,
        limit: limit?,
        max_flows: max_flows?,
        client: client?,
        idle_timeout: idle_timeout?,
        on_retire: on_retire?,
        on_empty: on_empty?,
        source: source?,
        source_addresses: source_addresses?,
        access: Access {
            allow: allow?,
            deny: deny?,
        },
        drain_timeout: drain_timeout?,
        health: health?,
        labels: labels?,
    };
    claim.terms(&service);
    Some(service)
}

fn sources(
    json: &Json,
    source: Option<SourceMode>,
    place: &JsonPath<'_>,
    problems: &mut InputProblems,
) -> Option<BTreeSet<IpAddr>> {
    if source == Some(SourceMode::Preserve) {
        problems.add(
            place,
            "is for source masquerade; with preserve backends see their clients' addresses",
        );
        return None;
    }
    access::sources(json, place, problems)
}

fn claim_public(
    claim: &mut Claim<'_>,
    name: Option<&str>,
    port: Option<(NonZeroU16, &Listen)>,
    balance: Option<Balance>,
) {
    if let Some(name) = name {
        claim.name(name);
    }
    if let Some((port, listen)) = port {
        claim.port(port, listen);
    }
    if let Some(balance) = balance {
        claim.balance(balance);
    }
}

/// Returns whether a service may have this name.
pub fn is_service_name(text: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    (1..=MAX_NAME).contains(&text.len())
        && text.bytes().all(|b| is_word(b) || matches!(b, b'-' | b'_' | b'.'))
        && text.bytes().next().is_some_and(is_word)
}

fn name(json: &Json, place: &JsonPath<'_>, problems: &mut InputProblems) -> Option<Box<str>> {
    let text = value::string(json, "a string", place, problems)?;
    if !is_service_name(text) {
        problems.add(
            place,
            format_args!("must be 1 to {MAX_NAME} of a-z 0-9 - _ . and start with a letter or digit, not {json}"),
        );
        return None;
    }
    Some(text.into())
}

fn limit(json: &Json, place: &JsonPath<'_>, problems: &mut InputProblems) -> Option<Limit> {
    let fields = Fields::of(json, place, &["pps", "burst", "direction", "mtu"], problems)?;
    let pps = fields.required("pps", problems, value::number(1..=MAX_PPS));
    let burst = fields.or("burst", None, problems, |json, place, problems| {
        value::number(1..=u32::MAX)(json, place, problems).map(Some)
    });
    let direction = fields.or("direction", LimitDirection::Each, problems, value::word);
    let mtu = fields.or("mtu", DEFAULT_MTU, problems, value::number(MIN_MTU..=MAX_MTU));
    let pps = pps?;
    let burst = burst?.unwrap_or(pps * DEFAULT_BURST_SECONDS);
    let limit = Limit {
        pps,
        burst,
        direction: direction?,
        mtu: mtu?,
    };
    if !limit.fits_kernel() {
        problems.add(
            place,
            format_args!(
                "{pps} pps of {} bytes are more bytes per second than the kernel can count; lower pps or mtu",
                limit.mtu
            ),
        );
        return None;
    }
    Some(limit)
}

fn optional_number(
    range: RangeInclusive<u32>,
) -> impl FnOnce(&Json, &JsonPath<'_>, &mut InputProblems) -> Option<Option<u32>> {
    move |json, place, problems| value::number(range)(json, place, problems).map(Some)
}

/// Reads an `idle_timeout` in whole seconds, the unit of conntrack.
fn idle_timeout(json: &Json, place: &JsonPath<'_>, problems: &mut InputProblems) -> Option<Duration> {
    let timeout = value::duration(IDLE_TIMEOUTS)(json, place, problems)?;
    if timeout.subsec_nanos() != 0 {
        problems.add(place, format_args!("must be a number of whole seconds, not {json}"));
        return None;
    }
    Some(timeout)
}

fn client(json: &Json, place: &JsonPath<'_>, problems: &mut InputProblems) -> Option<ClientCaps> {
    let fields = Fields::of(json, place, &["flows", "handshakes_per_second"], problems)?;
    let flows = fields.or("flows", None, problems, optional_number(1..=MAX_CLIENT_FLOWS));
    let rate = fields.or(
        "handshakes_per_second",
        None,
        problems,
        optional_number(1..=MAX_CLIENT_HANDSHAKES),
    );
    Some(ClientCaps {
        flows: flows?,
        handshakes_per_second: rate?,
    })
}

fn claim_caps(claim: &mut Claim<'_>, max_flows: Option<u32>, client: Option<ClientCaps>) {
    if max_flows.is_some() {
        claim.flow_cap();
    }
    claim.client(client.unwrap_or_default());
}

fn labels(json: &Json, place: &JsonPath<'_>, problems: &mut InputProblems) -> Option<BTreeMap<String, String>> {
    let Json::Object(members) = json else {
        problems.add(place, format_args!("must be an object of strings, not {json}"));
        return None;
    };
    if members.len() > MAX_LABELS {
        problems.add(
            place,
            format_args!("has {} labels; at most {MAX_LABELS} are accepted", members.len()),
        );
        return None;
    }
    let mut labels = BTreeMap::new();
    let mut is_good = true;
    for (key, value) in members {
        let place = place.key(key);
        let Some(text) = label(key, value, &place, problems) else {
            is_good = false;
            continue;
        };
        if labels.insert(key.clone(), text.to_owned()).is_some() {
            problems.add(&place, "is given twice");
            is_good = false;
        }
    }
    is_good.then_some(labels)
}

fn label<'j>(key: &str, value: &'j Json, place: &JsonPath<'_>, problems: &mut InputProblems) -> Option<&'j str> {
    let is_good_key = (1..=MAX_LABEL_KEY).contains(&key.len());
    if !is_good_key {
        problems.add(
            place,
            format_args!("a label's key must be 1 to {MAX_LABEL_KEY} bytes, not {}", key.len()),
        );
    }
    let text = value::string(value, "a string", place, problems)?;
    if text.len() > MAX_LABEL_VALUE {
        problems.add(
            place,
            format_args!("must be at most {MAX_LABEL_VALUE} bytes, not {}", text.len()),
        );
        return None;
    }
    is_good_key.then_some(text)
}

impl Default for HealthSettings {
    fn default() -> Self {
        const FALL: NonZeroU16 = NonZeroU16::new(3).unwrap();
        Self {
            interval: None,
            timeout: Duration::from_secs(2),
            rise: NonZeroU16::MIN,
            fall: FALL,
            question: None,
        }
    }
}
