//! Differences between two lists of services, including fields that the kernel does not hold.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use super::{ChangeCounts, Changes, ServiceChange, ServiceChangeKind};
use crate::escape;
use crate::model::{DRAIN_TIMEOUT, HealthSettings, Listen, ProbeQuestion, Service, duration};
use crate::summary::Summary;

/// The port and the addresses by which services of two states are compared.
type PortAndAddresses = (u16, Vec<IpAddr>);

impl Changes {
    /// Returns the differences between two lists of services, in all fields.
    pub fn of_services(old: &[&Service], new: &[&Service]) -> Self {
        let summary = |services: &[&Service]| services.iter().copied().collect::<Summary>();
        let mut changes = Self::between(&summary(old), &summary(new), &BTreeMap::new()).services;
        let known: BTreeMap<PortAndAddresses, &Service> =
            old.iter().map(|service| (listen_key(service), *service)).collect();
        let mut by_listen_key: BTreeMap<PortAndAddresses, usize> = changes
            .iter()
            .enumerate()
            .map(|(at, change)| ((change.port, change.addresses.clone()), at))
            .collect();
        for service in new {
            let listen_key = listen_key(service);
            let words = outside_kernel(known.get(&listen_key).copied(), service);
            if words.is_empty() {
                continue;
            }
            let at = *by_listen_key.entry(listen_key.clone()).or_insert_with(|| {
                let (port, addresses) = listen_key;
                changes.push(ServiceChange {
                    kind: ServiceChangeKind::Changed,
                    name: Some(service.name.to_string()),
                    port,
                    addresses,
                    backends: Vec::new(),
                    settings: Vec::new(),
                    flows: 0,
                });
                changes.len() - 1
            });
            changes[at].settings.extend(words);
        }
        changes.sort_by(|a, b| (a.port, &a.addresses).cmp(&(b.port, &b.addresses)));
        Self { services: changes }
    }

    /// Returns how many services and how many backends change.
    pub fn counts(&self) -> (ChangeCounts, ChangeCounts) {
        let (mut services, mut backends) = (ChangeCounts::default(), ChangeCounts::default());
        for change in &self.services {
            change.count(&mut services, &mut backends);
        }
        (services, backends)
    }
}

fn listen_key(service: &Service) -> PortAndAddresses {
    let addresses = match &service.listen {
        Listen::Everywhere => Vec::new(),
        Listen::At(addresses) => addresses.iter().copied().collect(),
    };
    (service.port.get(), addresses)
}

/// Returns the changes of fields that a [`Summary`] does not contain. If `old` is `None`, returns the values that are
/// not the default.
fn outside_kernel(old: Option<&Service>, new: &Service) -> Vec<String> {
    // The pattern names every field, so that a new field does not compile until it is decided here whether the summary
    // contains it.
    let Service {
        name: _,
        port: _,
        listen: _,
        backends: _,
        balance: _,
        limit: _,
        max_flows: _,
        idle_timeout: _,
        client: _,
        on_retire: _,
        on_empty: _,
        source: _,
        source_addresses: _,
        access: _,
        drain_timeout,
        health,
        labels,
    } = new;
    let mut words = Vec::new();
    let mut changed = |what: &str, before: String, after: String| {
        if before == after {
            return;
        }
        words.push(if old.is_some() {
            format!("{what} {before} -> {after}")
        } else {
            format!("{what} {after}")
        });
    };
    let drain_before = old.map_or(DRAIN_TIMEOUT, |old| old.drain_timeout);
    changed(
        "drain_timeout",
        duration::show(drain_before),
        duration::show(*drain_timeout),
    );
    let health_before = old.map_or_else(HealthSettings::default, |old| old.health.clone());
    let HealthSettings {
        interval,
        timeout,
        rise,
        fall,
        question,
    } = health;
    changed("health.interval", pause(health_before.interval), pause(*interval));
    changed(
        "health.timeout",
        duration::show(health_before.timeout),
        duration::show(*timeout),
    );
    changed("health.rise", health_before.rise.to_string(), rise.to_string());
    changed("health.fall", health_before.fall.to_string(), fall.to_string());
    changed(
        "health.question",
        asked(health_before.question.as_deref()),
        asked(question.as_deref()),
    );
    let nothing = BTreeMap::new();
    let labels_before = old.map_or(&nothing, |old| &old.labels);
    let keys: BTreeSet<&String> = labels_before.keys().chain(labels.keys()).collect();
    let value =
        |value: Option<&String>| value.map_or_else(|| "none".into(), |value| format!("\"{}\"", escape::text(value)));
    for key in keys {
        changed(
            &format!("labels.{}", escape::text(key)),
            value(labels_before.get(key)),
            value(labels.get(key)),
        );
    }
    words
}

/// Returns the question of a probe in words.
fn asked(question: Option<&ProbeQuestion>) -> String {
    match question {
        None => "none".into(),
        Some(ProbeQuestion::Http(http)) => {
            let host = http
                .host
                .as_deref()
                .map(|host| format!(" at {host}"))
                .unwrap_or_default();
            format!("GET {}{host} ({})", http.path, http.status)
        }
        Some(ProbeQuestion::Expect(exchange)) => {
            let quoted = |bytes: &[u8]| format!("\"{}\"", escape::text(&String::from_utf8_lossy(bytes)));
            format!("{} for {}", quoted(&exchange.expect), quoted(&exchange.send))
        }
    }
}

fn pause(interval: Option<Duration>) -> String {
    interval.map_or_else(|| "default".into(), duration::show)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::model;

    fn all_fields() -> Value {
        let text = include_str!("../../../../examples/all-fields.json");
        let state: Value = serde_json::from_str(text).unwrap();
        state["services"][0].clone()
    }

    fn service(value: &Value) -> Option<Service> {
        model::parse_service(value.to_string().as_bytes()).ok()
    }

    fn told(old: &Service, new: &Service) -> Changes {
        Changes::of_services(&[old], &[new])
    }

    /// Returns the paths of all fields, including those of nested objects.
    fn paths(value: &Value) -> Vec<Vec<String>> {
        let fields = value.as_object().into_iter().flatten();
        fields
            .flat_map(|(name, value)| {
                let inner = paths(value).into_iter();
                let inner = inner.map(|path| [vec![name.clone()], path].concat());
                inner.chain([vec![name.clone()]])
            })
            .collect()
    }

    fn without(value: &Value, path: &[String]) -> Value {
        let mut value = value.clone();
        let (last, to) = path.split_last().unwrap();
        let inner = to.iter().fold(&mut value, |value, name| &mut value[name.as_str()]);
        inner.as_object_mut().unwrap().remove(last.as_str());
        value
    }

    #[test]
    fn every_field_that_differs_is_a_difference() {
        let all = all_fields();
        let whole = service(&all).unwrap();
        assert!(told(&whole, &whole).is_empty());
        let mut compared = BTreeSet::new();
        for path in paths(&all) {
            let Some(other) = service(&without(&all, &path)).filter(|other| *other != whole) else {
                continue;
            };
            compared.insert(path[0].clone());
            for (old, new) in [(&whole, &other), (&other, &whole)] {
                let changes = told(old, new);
                assert!(!changes.is_empty(), "{path:?}");
                assert_ne!(
                    changes.counts(),
                    (ChangeCounts::default(), ChangeCounts::default()),
                    "{path:?}"
                );
            }
        }
        // A service needs these.
        let named: BTreeSet<String> = all.as_object().unwrap().keys().cloned().collect();
        let left: Vec<&String> = named.difference(&compared).collect();
        assert_eq!(left, ["backends", "name", "port"]);
        for (field, value) in [
            ("name", Value::from("another")),
            ("port", 1.into()),
            ("backends", Vec::<Value>::new().into()),
        ] {
            let mut other = all.clone();
            other[field] = value;
            let changes = told(&whole, &service(&other).unwrap());
            assert!(!changes.is_empty(), "{field}");
        }
    }

    #[test]
    fn what_the_kernel_does_not_hold_is_told_in_words() {
        let mut value = serde_json::json!({"name": "web", "port": 2000, "backends": ["10.0.0.1:1"]});
        let plain = service(&value).unwrap();
        for (field, other) in [
            ("drain_timeout", Value::from("1m")),
            (
                "health",
                serde_json::json!({"interval": "5s", "fall": 4, "http": {"path": "/up"}}),
            ),
            ("labels", serde_json::json!({"team": "a\u{1b}[2J"})),
        ] {
            value[field] = other;
        }
        let other = service(&value).unwrap();
        let words = "drain_timeout 30s -> 1m, health.interval default -> 5s, health.fall 3 -> 4, health.question none -> GET /up (200-399), labels.team none -> \
                     \"a\\u{1b}[2J\"";
        assert_eq!(told(&plain, &other).services[0].settings.join(", "), words);
        let added = Changes::of_services(&[], &[&other]).services[0].settings.join(", ");
        assert_eq!(
            added,
            "client-hash, drain_timeout 1m, health.interval 5s, health.fall 4, health.question GET /up (200-399), labels.team \
             \"a\\u{1b}[2J\""
        );
        let removed = Changes::of_services(&[&other], &[]);
        assert_eq!(removed.services.len(), 1);
        assert_eq!(removed.counts().0.removed, 1);
    }
}
