//! Serialization of a state: text that the parser reads back as the same state, without fields that have their
//! defaults.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::NonZeroU16;

use ipnet::IpNet;
use serde::Serialize;
use serde_json::Value;

use super::parse::{DEFAULT_BURST_SECONDS, DEFAULT_MTU, DRAIN_TIMEOUT, VERSION};
use super::word::Word;
use super::{
    Backend, BackendState, Balance, ByteEncoding, ClientCaps, ExpectedStatus, HealthSettings, HttpQuestion, Limit,
    LimitDirection, Listen, PacketRefusal, ProbeExchange, ProbeQuestion, Service, SourceMode, State, duration,
};
use crate::hex;

/// Returns the text of a state file: pretty-printed JSON with a newline at the end. Services are sorted by name, fields
/// have the order of the documentation.
pub fn state_text(state: &State) -> String {
    let document = StateDocument {
        version: VERSION,
        services: state
            .services
            .iter()
            .map(|service| WrittenService::from(&**service))
            .collect(),
    };
    format!("{}\n", text(&document, true))
}

/// Returns one service as compact JSON.
pub fn service_text(service: &Service) -> String {
    text(&WrittenService::from(service), false)
}

/// Returns one service as JSON.
pub fn service_value(service: &Service) -> Value {
    serde_json::to_value(WrittenService::from(service)).unwrap_or_default()
}

/// Serializes to memory. This cannot fail for strings, numbers, lists and objects whose keys are strings.
fn text(what: &impl Serialize, pretty: bool) -> String {
    let written = if pretty {
        serde_json::to_string_pretty(what)
    } else {
        serde_json::to_string(what)
    };
    written.unwrap_or_default()
}

impl Serialize for Service {
    /// Serializes as in a state file, without the fields that have their defaults.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        WrittenService::from(self).serialize(serializer)
    }
}

#[derive(Serialize)]
struct StateDocument<'s> {
    version: u64,
    services: Vec<WrittenService<'s>>,
}

#[derive(Serialize)]
struct WrittenService<'s> {
    name: &'s str,
    port: NonZeroU16,
    #[serde(skip_serializing_if = "Option::is_none")]
    addresses: Option<&'s BTreeSet<IpAddr>>,
    backends: Vec<WrittenBackend>,
    #[serde(skip_serializing_if = "Option::is_none")]
    balance: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<WrittenLimit>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_flows: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<WrittenClient>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idle_timeout: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    on_retire: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    on_empty: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'static str>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    source_addresses: &'s BTreeSet<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    allow: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    deny: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    drain_timeout: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    health: Option<WrittenHealth<'s>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: &'s BTreeMap<String, String>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum WrittenBackend {
    Short(String),
    Long {
        address: IpAddr,
        port: NonZeroU16,
        #[serde(skip_serializing_if = "Option::is_none")]
        weight: Option<NonZeroU16>,
        #[serde(skip_serializing_if = "Option::is_none")]
        state: Option<&'static str>,
    },
}

#[derive(Serialize)]
struct WrittenLimit {
    pps: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    burst: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    direction: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mtu: Option<u32>,
}

#[derive(Serialize)]
struct WrittenClient {
    #[serde(skip_serializing_if = "Option::is_none")]
    flows: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    handshakes_per_second: Option<u32>,
}

impl From<ClientCaps> for WrittenClient {
    fn from(caps: ClientCaps) -> Self {
        Self {
            flows: caps.flows,
            handshakes_per_second: caps.handshakes_per_second,
        }
    }
}

#[derive(Serialize)]
struct WrittenHealth<'s> {
    #[serde(skip_serializing_if = "Option::is_none")]
    interval: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rise: Option<NonZeroU16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fall: Option<NonZeroU16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    http: Option<WrittenHttp<'s>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expect: Option<WrittenExchange<'s>>,
}

#[derive(Serialize)]
struct WrittenHttp<'s> {
    path: &'s str,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<&'s str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<WrittenStatus>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum WrittenStatus {
    One(u16),
    Range(String),
}

#[derive(Serialize)]
struct WrittenExchange<'s> {
    #[serde(skip_serializing_if = "str::is_empty")]
    send: Cow<'s, str>,
    expect: Cow<'s, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding: Option<&'static str>,
}

/// Returns `None` if the value is the default.
fn unless<T: PartialEq>(value: T, default: &T) -> Option<T> {
    (value != *default).then_some(value)
}

fn word<W: Word>(value: W, default: W) -> Option<&'static str> {
    unless(value, &default).map(Word::word)
}

fn networks(networks: &[IpNet]) -> Vec<String> {
    networks.iter().map(IpNet::to_string).collect()
}

impl<'s> From<&'s Service> for WrittenService<'s> {
    fn from(service: &'s Service) -> Self {
        Self {
            name: &service.name,
            port: service.port,
            addresses: match &service.listen {
                Listen::Everywhere => None,
                Listen::At(addresses) => Some(addresses),
            },
            backends: service.backends.iter().map(WrittenBackend::from).collect(),
            balance: word(service.balance, Balance::ClientHash),
            limit: service.limit.map(WrittenLimit::from),
            max_flows: service.max_flows,
            client: unless(service.client, &ClientCaps::default()).map(WrittenClient::from),
            idle_timeout: service.idle_timeout.map(duration::show),
            on_retire: word(service.on_retire, PacketRefusal::Drop),
            on_empty: word(service.on_empty, PacketRefusal::Reset),
            source: word(service.source, SourceMode::Masquerade),
            source_addresses: &service.source_addresses,
            allow: service.access.allow.as_deref().map(networks),
            deny: networks(&service.access.deny),
            drain_timeout: unless(service.drain_timeout, &DRAIN_TIMEOUT).map(duration::show),
            health: (service.health != HealthSettings::default()).then(|| WrittenHealth::from(&service.health)),
            labels: &service.labels,
        }
    }
}

impl From<&Backend> for WrittenBackend {
    fn from(backend: &Backend) -> Self {
        let weight = unless(backend.weight, &NonZeroU16::MIN);
        let state = word(backend.state, BackendState::Active);
        if weight.is_none() && state.is_none() {
            return Self::Short(backend.endpoint.to_string());
        }
        Self::Long {
            address: backend.endpoint.address,
            port: backend.endpoint.port,
            weight,
            state,
        }
    }
}

impl From<Limit> for WrittenLimit {
    fn from(limit: Limit) -> Self {
        Self {
            pps: limit.pps,
            burst: unless(limit.burst, &limit.pps.saturating_mul(DEFAULT_BURST_SECONDS)),
            direction: word(limit.direction, LimitDirection::Each),
            mtu: unless(limit.mtu, &DEFAULT_MTU),
        }
    }
}

impl<'s> From<&'s HealthSettings> for WrittenHealth<'s> {
    fn from(health: &'s HealthSettings) -> Self {
        let default = HealthSettings::default();
        Self {
            interval: health.interval.map(duration::show),
            timeout: unless(health.timeout, &default.timeout).map(duration::show),
            rise: unless(health.rise, &default.rise),
            fall: unless(health.fall, &default.fall),
            http: match health.question.as_deref() {
                Some(ProbeQuestion::Http(http)) => Some(http.into()),
                _ => None,
            },
            expect: match health.question.as_deref() {
                Some(ProbeQuestion::Expect(exchange)) => Some(exchange.into()),
                _ => None,
            },
        }
    }
}

impl<'s> From<&'s HttpQuestion> for WrittenHttp<'s> {
    fn from(http: &'s HttpQuestion) -> Self {
        Self {
            path: &http.path,
            host: http.host.as_deref(),
            status: unless(http.status, &ExpectedStatus::DEFAULT).map(WrittenStatus::from),
        }
    }
}

impl From<ExpectedStatus> for WrittenStatus {
    fn from(status: ExpectedStatus) -> Self {
        if status.first == status.last {
            Self::One(status.first)
        } else {
            Self::Range(status.to_string())
        }
    }
}

impl<'s> From<&'s ProbeExchange> for WrittenExchange<'s> {
    fn from(exchange: &'s ProbeExchange) -> Self {
        if let (Some(send), Some(expect)) = (plain(&exchange.send), plain(&exchange.expect)) {
            return Self {
                send: send.into(),
                expect: expect.into(),
                encoding: None,
            };
        }
        Self {
            send: spaced_hex(&exchange.send).into(),
            expect: spaced_hex(&exchange.expect).into(),
            encoding: Some(ByteEncoding::Hex.word()),
        }
    }
}

/// Returns bytes as text, if a reader sees each of them.
fn plain(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    let is_plain = |char: char| !char.is_control() || matches!(char, '\r' | '\n' | '\t');
    text.chars().all(is_plain).then_some(text)
}

fn spaced_hex(bytes: &[u8]) -> String {
    let bytes: Vec<String> = bytes.chunks(1).map(hex::digits).collect();
    bytes.join(" ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model;

    #[test]
    fn what_goes_without_saying_is_not_written() {
        let wordy = json!({
            "name": "a", "port": 2000, "backends": [
                {"address": "10.2.0.1", "port": 80, "weight": 1, "state": "active"},
                {"address": "fd00:2::1", "port": 80, "state": "draining"},
                {"address": "10.2.0.2", "port": 80, "weight": 3},
            ],
            "balance": "client-hash", "limit": {"pps": 5, "burst": 50, "direction": "each", "mtu": 1500},
            "on_retire": "drop", "on_empty": "reset", "source": "masquerade", "deny": [],
            "drain_timeout": "30000ms", "health": {"timeout": "2s", "rise": 1, "fall": 3}, "labels": {},
        });
        let service = model::parse_service(wordy.to_string().as_bytes()).unwrap();
        assert_eq!(
            service_text(&service),
            concat!(
                r#"{"name":"a","port":2000,"backends":["10.2.0.1:80",{"address":"10.2.0.2","port":80,"weight":3},"#,
                r#"{"address":"fd00:2::1","port":80,"state":"draining"}],"limit":{"pps":5}}"#
            )
        );
        assert_eq!(service_value(&service), serde_json::to_value(&service).unwrap());
    }

    #[test]
    fn every_field_that_is_said_is_written() {
        let text = include_str!("../../../../examples/all-fields.json");
        let state = model::parse(text.as_bytes()).unwrap();
        let written = state_text(&state);
        assert_eq!(model::parse(written.as_bytes()), Ok(state.clone()));
        let broker: Value = serde_json::from_str(&service_text(&state.services[0])).unwrap();
        let example: Value = serde_json::from_str(text).unwrap();
        let mut known: Vec<_> = example["services"][0].as_object().unwrap().keys().collect();
        known.sort_unstable();
        assert_eq!(broker.as_object().unwrap().keys().collect::<Vec<_>>(), known);
        let before = example["services"][0]["health"].as_object().unwrap().len();
        // A third failure in a row is the default.
        assert_eq!(broker["health"].as_object().unwrap().len(), before - 1);
    }
}
