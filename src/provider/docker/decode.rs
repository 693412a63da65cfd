//! Answers of the engine as values. Members that are not known are ignored: engines of other versions have more.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::time::Duration;

use serde::Deserialize;

use super::position::EngineEventId;
use super::tracker::{EngineEvent, EngineEventKind, StopSettings};
use tcpgw_core::container::{Container, ContainerHealth, ContainerNetwork, NetworkReach, RunState};

/// Longest id that is used in a request, in bytes.
const LONGEST_ID: usize = 128;
/// Signal that tells a container to stop whose image names none: SIGTERM.
const SIGTERM: u32 = 15;
/// Time that a container has to stop if it names none (`docker stop`).
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// First of the real-time signals, as programs count them (`signal(7)`).
const SIGRTMIN: u32 = 34;
const SIGRTMAX: u32 = 64;
/// Names of signals, by number from 1 (`signal(7)`, x86 and ARM).
const SIGNALS: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];

/// Answer of `/version`.
#[derive(Debug, Deserialize)]
pub(super) struct VersionAnswer {
    #[serde(rename = "ApiVersion")]
    pub(super) newest: String,
    #[serde(rename = "MinAPIVersion", default)]
    pub(super) oldest: String,
}

/// Reads the answer of `/containers/json`: the containers, without their configurations.
///
/// # Errors
/// Fails when it is no list of containers.
pub fn read_containers(answer: &[u8]) -> Result<Vec<Container>, serde_json::Error> {
    let entries: Vec<ContainerEntry> = serde_json::from_slice(answer)?;
    let entries = entries.into_iter().filter(ContainerEntry::has_usable_id);
    Ok(entries.map(|entry| entry.container(&BTreeMap::new())).collect())
}

/// Reads a line of the stream of events. Returns the time at which it happened, in nanoseconds since the Unix epoch.
///
/// # Errors
/// Fails when it is no event.
pub fn read_event(line: &[u8]) -> Result<u64, serde_json::Error> {
    event(line).map(|event| event.id.nanoseconds)
}

/// A container in the answer of `/containers/json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ContainerEntry {
    pub(super) id: String,
    #[serde(default)]
    names: Option<Vec<String>>,
    #[serde(default)]
    created: i64,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    state: String,
    #[serde(default)]
    status: String,
    #[serde(default)]
    health: Option<HealthEntry>,
    #[serde(default)]
    host_config: Option<HostEntry>,
    #[serde(default)]
    network_settings: Option<NetworkingEntry>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HealthEntry {
    #[serde(default)]
    status: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HostEntry {
    #[serde(default)]
    network_mode: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkingEntry {
    #[serde(default)]
    networks: Option<BTreeMap<String, Option<EndpointEntry>>>,
}

#[derive(Debug, Default, Deserialize)]
struct EndpointEntry {
    #[serde(rename = "NetworkID", default)]
    network_id: Option<String>,
    #[serde(rename = "IPAddress", default)]
    v4: Option<String>,
    #[serde(rename = "GlobalIPv6Address", default)]
    v6: Option<String>,
}

/// A network in the answer of `/networks`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct NetworkEntry {
    pub(super) id: String,
    #[serde(default)]
    pub(super) driver: String,
}

/// Answer of `/containers/ID/json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct InspectAnswer {
    #[serde(default)]
    config: Option<ConfigEntry>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ConfigEntry {
    #[serde(default)]
    exposed_ports: Option<BTreeMap<String, serde_json::Value>>,
    #[serde(default)]
    stop_signal: Option<String>,
    #[serde(default)]
    stop_timeout: Option<i64>,
}

/// Configuration of a container, which does not change as long as it exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ContainerFacts {
    pub(super) exposed: BTreeSet<NonZeroU16>,
    pub(super) stop: StopSettings,
}

impl Default for ContainerFacts {
    fn default() -> Self {
        let (signal, timeout) = (SIGTERM, STOP_TIMEOUT);
        let stop = StopSettings { signal, timeout };
        let exposed = BTreeSet::new();
        Self { exposed, stop }
    }
}

impl From<InspectAnswer> for ContainerFacts {
    fn from(answer: InspectAnswer) -> Self {
        let defaults = Self::default();
        let Some(config) = answer.config else { return defaults };
        let ports = config.exposed_ports.unwrap_or_default();
        let signal = config.stop_signal.as_deref().and_then(signal);
        let timeout = config.stop_timeout.and_then(|seconds| u64::try_from(seconds).ok());
        Self {
            exposed: ports.keys().filter_map(|port| tcp_port(port)).collect(),
            stop: StopSettings {
                signal: signal.unwrap_or(defaults.stop.signal),
                timeout: timeout.map_or(defaults.stop.timeout, Duration::from_secs),
            },
        }
    }
}

/// Reads the number of `3000/tcp`.
fn tcp_port(text: &str) -> Option<NonZeroU16> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    protocol.eq_ignore_ascii_case("tcp").then(|| port.parse().ok())?
}

/// Reads a signal: `15`, `TERM`, `SIGTERM` or `SIGRTMIN+3`.
fn signal(text: &str) -> Option<u32> {
    if let Ok(number) = text.parse::<u32>() {
        return (1..=SIGRTMAX).contains(&number).then_some(number);
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    if let Some(rest) = name.strip_prefix("RTMIN") {
        let above = rest.strip_prefix('+').map_or(Some(0), |above| above.parse().ok())?;
        return SIGRTMIN.checked_add(above).filter(|number| *number <= SIGRTMAX);
    }
    if let Some(rest) = name.strip_prefix("RTMAX") {
        let below = rest.strip_prefix('-').map_or(Some(0), |below| below.parse().ok())?;
        return SIGRTMAX.checked_sub(below).filter(|number| *number >= SIGRTMIN);
    }
    let position = SIGNALS.iter().position(|known| *known == name)?;
    u32::try_from(position + 1).ok()
}

impl ContainerEntry {
    /// Returns whether the id can be used in a request.
    pub(super) fn has_usable_id(&self) -> bool {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        (1..=LONGEST_ID).contains(&self.id.len()) && self.id.bytes().all(is_plain)
    }

    /// Returns the ids of its networks.
    pub(super) fn network_ids(&self) -> impl Iterator<Item = &str> {
        let networks = self
            .network_settings
            .iter()
            .flat_map(|settings| &settings.networks)
            .flatten();
        let ids = networks.filter_map(|(_, network)| network.as_ref()?.network_id.as_deref());
        ids.filter(|id| !id.is_empty())
    }

    /// Returns the container, without its configuration. `drivers`: the drivers of networks by their ids.
    pub(super) fn container(self, drivers: &BTreeMap<String, String>) -> Container {
        let name = self.names.iter().flatten().map(|name| name.trim_start_matches('/'));
        // Names of links (`/other/alias`) are names of others.
        let name = name
            .clone()
            .find(|name| !name.contains('/'))
            .or_else(|| name.clone().next());
        let state = match self.state.as_str() {
            "running" => RunState::Running,
            "paused" => RunState::Paused,
            _ => RunState::Down,
        };
        Container {
            name: name.unwrap_or(&self.id).into(),
            networks: self.networks(drivers, state == RunState::Down),
            health: self.health(),
            labels: self.labels.unwrap_or_default(),
            exposed: BTreeSet::new(),
            state,
            created: self.created,
            is_stopping: false,
            start: 0,
            id: self.id.into(),
        }
    }

    /// Returns the result of the health check: engines before API 1.52 have it in the words of the status only.
    fn health(&self) -> ContainerHealth {
        let word = self.health.as_ref().map(|health| health.status.as_str());
        match word {
            Some("starting") => return ContainerHealth::Starting,
            Some("healthy") => return ContainerHealth::Healthy,
            Some("unhealthy") => return ContainerHealth::Unhealthy,
            Some("none") => return ContainerHealth::Unchecked,
            Some(_) | None => {}
        }
        if self.status.ends_with("(health: starting)") {
            ContainerHealth::Starting
        } else if self.status.ends_with("(healthy)") {
            ContainerHealth::Healthy
        } else if self.status.ends_with("(unhealthy)") {
            ContainerHealth::Unhealthy
        } else {
            ContainerHealth::Unchecked
        }
    }

    fn networks(&self, drivers: &BTreeMap<String, String>, is_down: bool) -> Vec<ContainerNetwork> {
        let mode = self
            .host_config
            .as_ref()
            .map(|host| host.network_mode.as_str())
            .unwrap_or_default();
        let networks = self
            .network_settings
            .iter()
            .flat_map(|settings| &settings.networks)
            .flatten();
        let mut networks: Vec<ContainerNetwork> = networks
            .map(|(name, network)| {
                let network = network.as_ref();
                let driver = network.and_then(|network| drivers.get(network.network_id.as_deref()?));
                let addresses = network
                    .into_iter()
                    .flat_map(|network| [&network.v4, &network.v6])
                    .flatten();
                let addresses = addresses.filter_map(|address| address.parse::<IpAddr>().ok());
                ContainerNetwork {
                    reach: reach(name, driver.map(String::as_str)),
                    name: name.as_str().into(),
                    addresses: addresses.filter(|_| !is_down).collect(),
                }
            })
            .collect();
        if networks.is_empty() && mode.starts_with("container:") {
            networks.push(ContainerNetwork {
                name: mode.into(),
                reach: NetworkReach::Shared,
                addresses: Vec::new(),
            });
        }
        networks
    }
}

/// Returns whether packets get to the containers of a network.
fn reach(name: &str, driver: Option<&str>) -> NetworkReach {
    match (name, driver) {
        ("host", None) | (_, Some("host")) => NetworkReach::Host,
        ("none", None) | (_, Some("null")) => NetworkReach::Nothing,
        (_, Some("macvlan")) => NetworkReach::Macvlan,
        (_, Some("ipvlan")) => NetworkReach::Ipvlan,
        (_, Some("overlay")) => NetworkReach::Overlay,
        _ => NetworkReach::Routed,
    }
}

/// An event, with what makes it another one than all others.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TimedEvent {
    pub(super) event: EngineEvent,
    pub(super) id: EngineEventId,
}

/// Part of an event that its beginning and its end tell.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ShortenedEvent {
    /// Id of its container, if it is one of a container.
    pub(super) container: Option<Box<str>>,
    pub(super) id: EngineEventId,
}

#[derive(Debug, Deserialize)]
struct EventLine {
    #[serde(rename = "Type", default)]
    kind: String,
    #[serde(rename = "Action", default)]
    action: String,
    #[serde(rename = "Actor", default)]
    actor: ActorEntry,
    #[serde(rename = "timeNano", default)]
    nanoseconds: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ActorEntry {
    #[serde(rename = "ID", default)]
    id: String,
    #[serde(default)]
    attributes: Option<BTreeMap<String, String>>,
}

/// Reads a line of the stream of events.
pub(super) fn event(line: &[u8]) -> Result<TimedEvent, serde_json::Error> {
    let line: EventLine = serde_json::from_slice(line)?;
    let signal = || {
        line.actor
            .attributes
            .as_ref()?
            .get("signal")
            .and_then(|text| signal(text))
    };
    let kind = match line.action.as_str() {
        "kill" => signal().map_or(EngineEventKind::Other, EngineEventKind::Kill),
        "die" => EngineEventKind::Die,
        "start" => EngineEventKind::Start,
        "pause" => EngineEventKind::Pause,
        "unpause" => EngineEventKind::Unpause,
        _ => EngineEventKind::Other,
    };
    let is_of_container = line.kind == "container";
    let container = is_of_container.then(|| line.actor.id.clone().into());
    let kind = if is_of_container { kind } else { EngineEventKind::Other };
    Ok(TimedEvent {
        event: EngineEvent { container, kind },
        id: EngineEventId {
            text: format!("{} {}", line.action, line.actor.id).into(),
            nanoseconds: line.nanoseconds,
        },
    })
}

/// Reads what the beginning and the end of a line of the stream of events tell. In the text of a value, quotation marks are escaped,
/// so that no label looks like a member.
pub(super) fn shortened_event(head: &[u8], tail: &[u8]) -> ShortenedEvent {
    let [head, tail] = [head, tail].map(String::from_utf8_lossy);
    let text_after = |member: &str| {
        let (_, rest) = head.split_once(member)?;
        rest.split_once('"').map(|(text, _)| text)
    };
    let id = text_after("\"Actor\":{\"ID\":\"").filter(|id| id.len() <= LONGEST_ID);
    let nanoseconds = tail.rsplit_once("\"timeNano\":").and_then(|(_, rest)| {
        let digits = rest.split(|letter: char| !letter.is_ascii_digit()).next()?;
        digits.parse().ok()
    });
    let action = text_after("\"Action\":\"").unwrap_or_default();
    ShortenedEvent {
        container: id.filter(|_| head.contains("\"Type\":\"container\"")).map(Into::into),
        id: EngineEventId {
            text: format!("{action} {}", id.unwrap_or_default()).into(),
            nanoseconds: nanoseconds.unwrap_or_default(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_read_by_name_and_number() {
        for (text, number) in [
            ("15", Some(15)),
            ("SIGTERM", Some(15)),
            ("quit", Some(3)),
            ("SIGRTMIN+3", Some(37)),
            ("SIGRTMAX-1", Some(63)),
            ("WINCH", Some(28)),
            ("0", None),
            ("65", None),
            ("SIGRTMIN+99", None),
            ("SIG", None),
            ("", None),
        ] {
            assert_eq!(signal(text), number, "{text}");
        }
    }

    #[test]
    fn only_tcp_ports_are_exposed_to_tcp() {
        let ports = ["80/tcp", "53/udp", "443", "0/tcp", "x/tcp"].map(tcp_port);
        assert_eq!(
            ports.into_iter().flatten().map(NonZeroU16::get).collect::<Vec<_>>(),
            [80, 443]
        );
    }

    #[test]
    fn health_is_read_of_engines_with_and_without_a_member_of_its_own() {
        let health = |entry: &str| serde_json::from_str::<ContainerEntry>(entry).unwrap().health();
        for (status, expected) in [
            ("Up 3 seconds (health: starting)", ContainerHealth::Starting),
            ("Up 3 hours (healthy)", ContainerHealth::Healthy),
            ("Up 3 hours (unhealthy)", ContainerHealth::Unhealthy),
            ("Up 3 hours", ContainerHealth::Unchecked),
            ("Up 3 hours (Paused)", ContainerHealth::Unchecked),
        ] {
            assert_eq!(health(&format!(r#"{{"Id": "a", "Status": "{status}"}}"#)), expected);
        }
        assert_eq!(
            health(r#"{"Id": "a", "Status": "Up", "Health": {"Status": "healthy"}}"#),
            ContainerHealth::Healthy
        );
        assert_eq!(
            health(r#"{"Id": "a", "Status": "Up", "Health": {"Status": "none"}}"#),
            ContainerHealth::Unchecked
        );
    }

    #[test]
    fn events_are_those_of_their_containers() {
        let read = |text: &str| event(text.as_bytes()).unwrap();
        let kill = r#"{"Type": "container", "Action": "kill", "Actor": {"ID": "c1", "Attributes": {"signal": "15"}}, "timeNano": 7}"#;
        let expected = TimedEvent {
            event: EngineEvent {
                container: Some("c1".into()),
                kind: EngineEventKind::Kill(15),
            },
            id: EngineEventId {
                text: "kill c1".into(),
                nanoseconds: 7,
            },
        };
        assert_eq!(read(kill), expected);
        let network =
            r#"{"Type": "network", "Action": "connect", "Actor": {"ID": "n1", "Attributes": {"container": "c1"}}}"#;
        assert_eq!(read(network).event.container, None);
        assert_eq!(read("{}").event.kind, EngineEventKind::Other);
        assert!(event(b"{").is_err());
    }

    #[test]
    fn of_a_long_event_the_beginning_and_the_end_are_read() {
        let head = r#"{"status":"kill","id":"c1","from":"a\"Actor\":{\"ID\":\"c2\"","Type":"container","Action":"kill","Actor":{"ID":"c1","Attributes":{"a":"xx"#;
        let tail = r#"x\"timeNano\":5,\"x"}},"scope":"local","time":1,"timeNano":1700000000000000007}"#;
        let read = shortened_event(head.as_bytes(), tail.as_bytes());
        assert_eq!(read.container.as_deref(), Some("c1"));
        let (text, nanoseconds) = (&*read.id.text, read.id.nanoseconds);
        assert_eq!((text, nanoseconds), ("kill c1", 1_700_000_000_000_000_007));
        let none = shortened_event(b"{\xff\"Type\":\"network\",\"Actor\":{\"ID\":\"n1\"", b"\"timeNano\":x");
        assert_eq!((none.container, none.id.nanoseconds), (None, 0));
        assert_eq!(shortened_event(b"", b"").container, None);
    }
}
