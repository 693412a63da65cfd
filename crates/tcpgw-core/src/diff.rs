//! What a change comes to, in words for people and as data for scripts.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::Serialize;

use crate::model::duration;
use crate::summary::{ServiceSummary, Settings, Summary, balance_name};

mod services;

/// Returns a number and what is counted, in the plural where it is not one: `1 backend`, `2 addresses`.
pub fn count<N: Copy + fmt::Display + PartialEq + From<u8>>(number: N, what: &str) -> String {
    if number == N::from(1) {
        format!("{number} {what}")
    } else {
        format!("{number} {}", plural(what))
    }
}

fn plural(what: &str) -> String {
    let is_vowel = |c: char| "aeiou".contains(c);
    match what.strip_suffix('y') {
        Some(stem) if !stem.ends_with(is_vowel) => format!("{stem}ies"),
        _ if ["s", "x", "z", "ch", "sh"].iter().any(|end| what.ends_with(end)) => format!("{what}es"),
        _ => format!("{what}s"),
    }
}

/// Every service that a change touches.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// In order of port and addresses.
    pub services: Vec<Change>,
}

/// What a change does to one service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Added, changed or removed.
    pub kind: Kind,
    /// Its name, where it is known.
    pub name: Option<String>,
    /// Its public port.
    pub port: u16,
    /// The addresses it listens on; empty for every local one.
    pub addresses: Vec<IpAddr>,
    /// What happens to its backends.
    pub backends: Vec<BackendChange>,
    /// Settings that change, in words.
    pub settings: Vec<String>,
    /// Flows that will be flushed (`diff`) or were (`apply`).
    pub flows: u64,
}

/// Whether a service is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It is.
    Added,
    /// It was there and will be, in another way.
    Changed,
    /// It goes.
    Removed,
}

/// What happens to a backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BackendChange {
    /// Which.
    pub backend: SocketAddr,
    /// What.
    pub change: What,
    /// Its weight after the change, before it for one that goes.
    pub weight: Option<u16>,
    /// Flows of it that will be flushed or were.
    pub flows: u64,
}

/// What happens to a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// It gets new connections.
    Added,
    /// It is no longer there; its flows are flushed.
    Removed,
    /// It gets no new connections.
    Draining,
    /// It gets new connections again.
    Active,
    /// It gets another share of new connections.
    Weight,
}

/// How many of each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// New ones.
    pub added: usize,
    /// Others.
    pub changed: usize,
    /// Gone ones.
    pub removed: usize,
}

impl Changes {
    /// What leads from one to the other. `flows` are those that will be flushed, by service port and backend.
    pub fn between(old: &Summary, new: &Summary, flows: &BTreeMap<(u16, SocketAddr), u64>) -> Self {
        let mut services = Vec::new();
        for_each(old, new, flows, |change| services.push(change));
        Self { services }
    }

    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
    }
}

impl Counts {
    /// Of services and of backends, what leads from one to the other comes to.
    pub fn between(old: &Summary, new: &Summary) -> (Self, Self) {
        let (mut services, mut backends) = (Self::default(), Self::default());
        for_each(old, new, &BTreeMap::new(), |change| {
            change.count(&mut services, &mut backends);
        });
        (services, backends)
    }
}

impl Change {
    fn count(&self, services: &mut Counts, backends: &mut Counts) {
        *match self.kind {
            Kind::Added => &mut services.added,
            Kind::Changed => &mut services.changed,
            Kind::Removed => &mut services.removed,
        } += 1;
        for backend in &self.backends {
            *match backend.change {
                What::Added => &mut backends.added,
                What::Removed => &mut backends.removed,
                _ => &mut backends.changed,
            } += 1;
        }
    }
}

fn for_each(old: &Summary, new: &Summary, flows: &BTreeMap<(u16, SocketAddr), u64>, mut each: impl FnMut(Change)) {
    let (mut olds, mut news) = (old.services.iter().peekable(), new.services.iter().peekable());
    loop {
        let order = match (olds.peek(), news.peek()) {
            (None, None) => return,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(a), Some(b)) => a.listen_key().cmp(&b.listen_key()),
        };
        let a = if order.is_le() { olds.next() } else { None };
        let b = if order.is_ge() { news.next() } else { None };
        if a != b
            && let Some(change) = change(a, b, flows)
        {
            each(change);
        }
    }
}

fn change(
    old: Option<&ServiceSummary>,
    new: Option<&ServiceSummary>,
    flows: &BTreeMap<(u16, SocketAddr), u64>,
) -> Option<Change> {
    let service = new.or(old)?;
    let name = new
        .and_then(|new| new.name.as_deref())
        .or_else(|| old.and_then(|old| old.name.as_deref()));
    let backends = backend_changes(old, new, flows);
    let settings = match (old, new) {
        (Some(old), Some(new)) => {
            let mut words = setting_changes(&old.settings, &new.settings);
            if let (Some(before), Some(after)) = (&old.name, &new.name)
                && before != after
            {
                words.insert(0, format!("name {before} -> {after}"));
            }
            words
        }
        (None, Some(new)) => described(&new.settings),
        _ => Vec::new(),
    };
    let kind = match (old, new) {
        (None, _) => Kind::Added,
        (_, None) => Kind::Removed,
        // A name that only one side knows is no change.
        _ if backends.is_empty() && settings.is_empty() => return None,
        _ => Kind::Changed,
    };
    Some(Change {
        kind,
        name: name.map(str::to_owned),
        port: service.port,
        addresses: service.addresses.iter().copied().collect(),
        flows: backends.iter().map(|backend| backend.flows).sum(),
        backends,
        settings,
    })
}

fn backend_changes(
    old: Option<&ServiceSummary>,
    new: Option<&ServiceSummary>,
    flows: &BTreeMap<(u16, SocketAddr), u64>,
) -> Vec<BackendChange> {
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Is {
        Active(u16),
        Draining,
    }
    let states = |service: Option<&ServiceSummary>| -> BTreeMap<SocketAddr, Is> {
        let active = service
            .into_iter()
            .flat_map(|s| s.active.iter().map(|(b, weight)| (*b, Is::Active(*weight))));
        let draining = service
            .into_iter()
            .flat_map(|s| s.draining.iter().map(|b| (*b, Is::Draining)));
        active.chain(draining).collect()
    };
    // The kernel knows slots, not weights: compare shares, not numbers.
    let one_is_bare = old.is_some_and(|old| old.name.is_none());
    let (before, after) = (states(old), states(new));
    let port = old.or(new).map_or(0, |service| service.port);
    let mut changes = Vec::new();
    for (backend, is) in &after {
        let (change, weight) = match (before.get(backend), is) {
            (None, Is::Active(weight)) => (What::Added, Some(*weight)),
            (Some(Is::Draining), Is::Active(weight)) => (What::Active, Some(*weight)),
            (Some(Is::Active(_)), Is::Draining) => (What::Draining, None),
            (None, Is::Draining) if !one_is_bare => (What::Draining, None),
            (Some(Is::Active(a)), Is::Active(b)) if a != b && !one_is_bare => (What::Weight, Some(*b)),
            _ => continue,
        };
        changes.push(BackendChange {
            backend: *backend,
            change,
            weight,
            flows: 0,
        });
    }
    for (backend, is) in before.iter().filter(|(backend, _)| !after.contains_key(backend)) {
        let weight = if let Is::Active(weight) = is {
            Some(*weight)
        } else {
            None
        };
        let flows = flows.get(&(port, *backend)).copied().unwrap_or(0);
        changes.push(BackendChange {
            backend: *backend,
            change: What::Removed,
            weight,
            flows,
        });
    }
    changes
}

fn limit_words(limit: Option<(u32, u32, u32, bool)>) -> String {
    match limit {
        None => "none".into(),
        Some((pps, burst, mtu, shared)) => {
            let mut words = format!("{pps} packets/s");
            if u64::from(burst) != u64::from(pps) * 10 {
                let _ = write!(words, ", burst {burst}");
            }
            if mtu != 1500 {
                let _ = write!(words, ", mtu {mtu}");
            }
            if shared {
                words += ", shared";
            }
            words
        }
    }
}

fn number(number: Option<u32>) -> String {
    number.map_or_else(|| "none".into(), |number| number.to_string())
}

fn idle(settings: &Settings) -> String {
    settings.idle_timeout.map_or_else(
        || "none".into(),
        |seconds| duration::show(Duration::from_secs(seconds.get().into())),
    )
}

fn refusal(reset: bool) -> &'static str {
    if reset { "reset" } else { "drop" }
}

fn source(preserve: bool) -> &'static str {
    if preserve { "preserve" } else { "masquerade" }
}

fn sources(settings: &Settings) -> String {
    let words: Vec<String> = settings.source_addresses.iter().map(IpAddr::to_string).collect();
    if words.is_empty() {
        "none".into()
    } else {
        words.join(", ")
    }
}

fn list(networks: &[Box<str>]) -> String {
    const SHOWN: usize = 4;
    let mut words: Vec<&str> = networks.iter().take(SHOWN).map(AsRef::as_ref).collect();
    let more = format!("{} more", networks.len().saturating_sub(SHOWN));
    if networks.len() > SHOWN {
        words.push(&more);
    }
    words.join(", ")
}

/// A new service: how it balances, and everything that is not the default.
fn described(settings: &Settings) -> Vec<String> {
    let mut words = vec![balance_name(settings.balance).to_owned()];
    if settings.limit.is_some() {
        words.push(format!("limit {}", limit_words(settings.limit)));
    }
    if settings.max_flows.is_some() {
        words.push(format!("max_flows {}", number(settings.max_flows)));
    }
    let (flows, rate) = settings.client;
    if flows.is_some() {
        words.push(format!("client.flows {}", number(flows)));
    }
    if rate.is_some() {
        words.push(format!("client.handshakes_per_second {}", number(rate)));
    }
    if settings.idle_timeout.is_some() {
        words.push(format!("idle_timeout {}", idle(settings)));
    }
    if settings.retire_reset {
        words.push(format!("on_retire {}", refusal(true)));
    }
    if settings.empty_reset == Some(false) {
        words.push(format!("on_empty {}", refusal(false)));
    }
    if settings.preserve {
        words.push(format!("source {}", source(true)));
    }
    if !settings.source_addresses.is_empty() {
        words.push(format!("source_addresses {}", sources(settings)));
    }
    if let Some(allow) = &settings.allow {
        words.push(format!("allow {}", list(allow)));
    }
    if !settings.deny.is_empty() {
        words.push(format!("deny {}", list(&settings.deny)));
    }
    words
}

fn setting_changes(old: &Settings, new: &Settings) -> Vec<String> {
    let mut words = Vec::new();
    let mut changed = |what: &str, before: String, after: String| {
        if before != after {
            words.push(format!("{what} {before} -> {after}"));
        }
    };
    if old.balance.is_some() && new.balance.is_some() {
        changed(
            "balance",
            balance_name(old.balance).into(),
            balance_name(new.balance).into(),
        );
    }
    changed("limit", limit_words(old.limit), limit_words(new.limit));
    changed("max_flows", number(old.max_flows), number(new.max_flows));
    changed("client.flows", number(old.client.0), number(new.client.0));
    changed(
        "client.handshakes_per_second",
        number(old.client.1),
        number(new.client.1),
    );
    changed("idle_timeout", idle(old), idle(new));
    changed(
        "on_retire",
        refusal(old.retire_reset).into(),
        refusal(new.retire_reset).into(),
    );
    if let (Some(before), Some(after)) = (old.empty_reset, new.empty_reset) {
        changed("on_empty", refusal(before).into(), refusal(after).into());
    }
    changed("source", source(old.preserve).into(), source(new.preserve).into());
    changed("source_addresses", sources(old), sources(new));
    let allow = |settings: &Settings| settings.allow.as_deref().map_or_else(|| "everyone".to_owned(), list);
    if old.allow != new.allow {
        words.push(format!("allow {} -> {}", allow(old), allow(new)));
    }
    if old.deny != new.deny {
        let deny = |settings: &Settings| {
            if settings.deny.is_empty() {
                "nobody".to_owned()
            } else {
                list(&settings.deny)
            }
        };
        words.push(format!("deny {} -> {}", deny(old), deny(new)));
    }
    words
}

impl fmt::Display for Change {
    /// `~ my-app :20003  + 10.2.0.13:3000  - 10.2.0.11:3000 (12 flows will be flushed)`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.kind {
            Kind::Added => '+',
            Kind::Changed => '~',
            Kind::Removed => '-',
        };
        write!(f, "{sign} {} ", self.name.as_deref().unwrap_or("(unnamed)"))?;
        if self.addresses.is_empty() {
            write!(f, ":{}", self.port)?;
        }
        for (at, address) in self.addresses.iter().enumerate() {
            write!(
                f,
                "{}{}",
                if at > 0 { "," } else { "" },
                SocketAddr::new(*address, self.port)
            )?;
        }
        for backend in &self.backends {
            match backend.change {
                What::Added => write!(f, "  + {}", backend.backend)?,
                What::Removed => write!(f, "  - {}", backend.backend)?,
                What::Draining => write!(f, "  {} drains", backend.backend)?,
                What::Active => write!(f, "  {} is active again", backend.backend)?,
                What::Weight => write!(f, "  {} weight {}", backend.backend, backend.weight.unwrap_or(1))?,
            }
            match backend.flows {
                0 => {}
                flows => write!(f, " ({} will be flushed)", count(flows, "flow"))?,
            }
        }
        for (at, setting) in self.settings.iter().enumerate() {
            write!(f, "{}{setting}", if at > 0 { ", " } else { "  " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(fields: &str) -> String {
        let text =
            format!(r#"{{"version":1,"services":[{{"name":"a","port":2000,"backends":["10.0.0.1:1"]{fields}}}]}}"#);
        let state = crate::model::parse(text.as_bytes()).expect("a valid state");
        let changes = Changes::between(&Summary::default(), &Summary::from(&state), &BTreeMap::new());
        changes.services[0].to_string()
    }

    #[test]
    fn a_new_service_is_told_with_all_that_is_not_default() {
        assert_eq!(added(""), "+ a :2000  + 10.0.0.1:1  client-hash");
        assert_eq!(
            added(
                r#","balance":"round-robin","limit":{"pps":5,"burst":7},"idle_timeout":"5m","on_retire":"reset","on_empty":"drop",
                "source":"preserve","allow":["192.0.2.0/24"],"deny":["192.0.2.1"]"#
            ),
            "+ a :2000  + 10.0.0.1:1  round-robin, limit 5 packets/s, burst 7, idle_timeout 5m, on_retire reset, on_empty drop, \
             source preserve, allow 192.0.2.0/24, deny 192.0.2.1/32"
        );
    }

    fn summary(services: &str) -> Summary {
        let text = format!(r#"{{"version":1,"services":[{services}]}}"#);
        Summary::from(&crate::model::parse(text.as_bytes()).unwrap())
    }

    fn app(rest: &str) -> String {
        format!(r#"{{"name":"my-app","port":20003,{rest}}}"#)
    }

    fn told(old: &str, new: &str, flows: &[(u16, &str, u64)]) -> Vec<String> {
        let flows = flows
            .iter()
            .map(|(port, b, count)| ((*port, b.parse().unwrap()), *count));
        let changes = Changes::between(&summary(old), &summary(new), &flows.collect());
        changes.services.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_swap_reads_as_promised() {
        let old = app(r#""backends":["10.2.0.11:3000","10.2.0.12:3000"]"#);
        let new = app(r#""backends":["10.2.0.12:3000","10.2.0.13:3000"]"#);
        assert_eq!(
            told(&old, &new, &[(20003, "10.2.0.11:3000", 12)]),
            ["~ my-app :20003  + 10.2.0.13:3000  - 10.2.0.11:3000 (12 flows will be flushed)"]
        );
        assert_eq!(
            told(
                &old,
                &new,
                &[(20003, "10.2.0.11:3000", 1), (20004, "10.2.0.12:3000", 5)]
            ),
            ["~ my-app :20003  + 10.2.0.13:3000  - 10.2.0.11:3000 (1 flow will be flushed)"]
        );
        assert!(told(&old, &old, &[]).is_empty());
    }

    #[test]
    fn services_come_and_go() {
        let one = app(r#""backends":["10.2.0.11:3000"],"limit":{"pps":1000}"#);
        assert_eq!(
            told("", &one, &[]),
            ["+ my-app :20003  + 10.2.0.11:3000  client-hash, limit 1000 packets/s"]
        );
        assert_eq!(
            told(&one, "", &[(20003, "10.2.0.11:3000", 2)]),
            ["- my-app :20003  - 10.2.0.11:3000 (2 flows will be flushed)"]
        );
        let addresses = app(r#""backends":[],"addresses":["192.0.2.1","2001:db8::1"]"#);
        assert_eq!(
            told("", &addresses, &[]),
            ["+ my-app 192.0.2.1:20003,[2001:db8::1]:20003  client-hash"]
        );
    }

    #[test]
    fn backends_change() {
        let with = |backend: &str| {
            app(&format!(
                r#""backends":[{{"address":"10.2.0.11","port":3000{backend}}}]"#
            ))
        };
        let (active, draining, heavy) = (with(""), with(r#","state":"draining""#), with(r#","weight":3"#));
        assert_eq!(
            told(&active, &draining, &[]),
            ["~ my-app :20003  10.2.0.11:3000 drains"]
        );
        assert_eq!(
            told(&draining, &active, &[]),
            ["~ my-app :20003  10.2.0.11:3000 is active again"]
        );
        assert_eq!(told(&active, &heavy, &[]), ["~ my-app :20003  10.2.0.11:3000 weight 3"]);
        let counted = Counts::between(&summary(&active), &summary(&draining));
        let counts = |added, changed, removed| Counts {
            added,
            changed,
            removed,
        };
        assert_eq!(counted, (counts(0, 1, 0), counts(0, 1, 0)));
    }

    #[test]
    fn settings_change() {
        let cases = [
            (
                "\"balance\":\"client-hash\"",
                "\"balance\":\"round-robin\"",
                "balance client-hash -> round-robin",
            ),
            (
                "\"limit\":{\"pps\":10}",
                "\"limit\":{\"pps\":10,\"burst\":7,\"mtu\":9000,\"direction\":\"shared\"}",
                "limit 10 packets/s -> 10 packets/s, burst 7, mtu 9000, shared",
            ),
            ("\"limit\":{\"pps\":10}", "\"limit\":null", "limit 10 packets/s -> none"),
            ("\"max_flows\":10", "\"max_flows\":20", "max_flows 10 -> 20"),
            (
                "\"client\":{\"flows\":10}",
                "\"client\":{\"handshakes_per_second\":5}",
                "client.flows 10 -> none, client.handshakes_per_second none -> 5",
            ),
            (
                "\"idle_timeout\":\"60s\"",
                "\"idle_timeout\":\"2h\"",
                "idle_timeout 1m -> 2h",
            ),
            ("\"idle_timeout\":\"90s\"", "\"deny\":[]", "idle_timeout 90s -> none"),
            (
                "\"on_retire\":\"drop\"",
                "\"on_retire\":\"reset\"",
                "on_retire drop -> reset",
            ),
            (
                "\"on_empty\":\"reset\"",
                "\"on_empty\":\"drop\"",
                "on_empty reset -> drop",
            ),
            (
                "\"source\":\"preserve\"",
                "\"source\":\"masquerade\"",
                "source preserve -> masquerade",
            ),
            (
                "\"source_addresses\":[\"10.2.0.2\",\"10.2.0.1\"]",
                "\"source_addresses\":[\"10.2.0.3\"]",
                "source_addresses 10.2.0.1, 10.2.0.2 -> 10.2.0.3",
            ),
            (
                "\"source_addresses\":[\"fd00:2::1\"]",
                "\"deny\":[]",
                "source_addresses fd00:2::1 -> none",
            ),
            (
                "\"deny\":[]",
                "\"deny\":[\"192.0.2.0/24\"]",
                "deny nobody -> 192.0.2.0/24",
            ),
            (
                "\"deny\":[]",
                "\"allow\":[\"10.1.0.0/16\",\"10.3.0.0/16\",\"10.5.0.0/16\",\"10.7.0.0/16\",\"10.9.0.0/16\",\"::1/128\"]",
                "allow everyone -> 10.1.0.0/16, 10.3.0.0/16, 10.5.0.0/16, 10.7.0.0/16, 2 more",
            ),
        ];
        for (old, new, words) in cases {
            let with = |setting: &str| app(&format!(r#""backends":[],{setting}"#)).replace(",\"limit\":null", "");
            assert_eq!(told(&with(old), &with(new), &[]), [format!("~ my-app :20003  {words}")]);
        }
        let renamed = app(r#""backends":[]"#).replace("my-app", "other");
        assert_eq!(
            told(&app(r#""backends":[]"#), &renamed, &[]),
            ["~ other :20003  name my-app -> other"]
        );
    }

    #[test]
    fn what_only_one_side_knows_is_no_change() {
        let new = summary(&app(r#""backends":[{"address":"10.2.0.11","port":3000,"weight":3}]"#));
        let mut old = new.clone();
        let service = &mut old.services[0];
        service.name = None;
        service.settings.balance = None;
        service.active.values_mut().for_each(|weight| *weight = 1);
        assert!(Changes::between(&old, &new, &BTreeMap::new()).is_empty());
    }
}
