//! Labels of a container, read as the fields of a service.

use std::num::NonZeroU16;

use serde_json::{Map, Value, json};

use super::value::{Container, ShownName};
use crate::model::{self, InputProblem, Service};

/// Prefix of the labels.
const PREFIX: &str = "tcpgw.";
/// Labels that are known, without their prefix.
pub const LABELS: [&str; 12] = [
    "port",
    "service",
    "target",
    "network",
    "limit.pps",
    "balance",
    "source",
    "on_retire",
    "on_empty",
    "drain_timeout",
    "allow",
    "deny",
];
/// Size of the longest value, in bytes.
const MAX_VALUE: usize = 4096;
/// Largest number of problems of one container that are shown.
const MAX_SHOWN: usize = 5;

const COMPOSE_SERVICE: &str = "com.docker.compose.service";
const COMPOSE_ONE_OFF: &str = "com.docker.compose.oneoff";

/// Service that a container is to be a backend of, and where it listens.
#[derive(Debug, Clone)]
pub(super) struct Labelled {
    /// The service, without backends.
    pub(super) service: Service,
    /// Port that the container listens on; `None`: the single exposed one.
    pub(super) target: Option<NonZeroU16>,
}

/// Returns whether a container has labels for tcpgw. One that `docker compose run` has started for a single command has the labels
/// of its service, and is none of its backends.
pub fn is_addressed(container: &Container) -> bool {
    let has_labels = container.labels.keys().any(|key| key.starts_with(PREFIX));
    let is_one_off = container.labels.get(COMPOSE_ONE_OFF);
    has_labels && is_one_off.is_none_or(|value| !value.eq_ignore_ascii_case("true"))
}

/// Returns the value of a label of tcpgw.
pub(super) fn label<'c>(container: &'c Container, name: &str) -> Option<&'c str> {
    container
        .labels
        .get(&format!("{PREFIX}{name}"))
        .map(|value| value.trim())
}

/// Returns the name of the service that a container without valid labels would belong to.
pub(super) fn service_name(container: &Container) -> String {
    label(container, "service").map_or_else(|| default_name(container), ToOwned::to_owned)
}

/// Reads the labels of a container.
///
/// # Errors
///
/// Fails with what is wrong with each label, a few of them.
pub(super) fn read(container: &Container) -> Result<Labelled, Vec<String>> {
    let mut wrong = unusable(container);
    if wrong.is_empty() {
        match model::parse_service(document(container).to_string().as_bytes()) {
            Ok(mut service) => {
                let target = service.backends.first().map(|backend| backend.endpoint.port);
                service.backends.clear();
                return Ok(Labelled { service, target });
            }
            Err(problems) => wrong.extend(problems.iter().map(|problem| in_labels(container, problem))),
        }
    }
    let more = wrong.len().saturating_sub(MAX_SHOWN);
    wrong.truncate(MAX_SHOWN);
    if more > 0 {
        wrong.push(format!("and {more} more"));
    }
    Err(wrong)
}

/// Returns the labels that are unknown, missing or too long.
fn unusable(container: &Container) -> Vec<String> {
    let ours = container
        .labels
        .iter()
        .filter_map(|(key, value)| Some((key.strip_prefix(PREFIX)?, value)));
    let mut wrong: Vec<String> = ours
        .filter_map(|(name, value)| {
            if !LABELS.contains(&name) {
                let key = format!("{PREFIX}{name}");
                let known = LABELS.map(|name| format!("{PREFIX}{name}")).join(", ");
                return Some(format!("label {} is unknown; known are {known}", ShownName(&key)));
            }
            (value.len() > MAX_VALUE).then(|| {
                format!(
                    "{PREFIX}{name}: has {} bytes; at most {MAX_VALUE} are accepted",
                    value.len()
                )
            })
        })
        .collect();
    if label(container, "port").is_none() {
        wrong.push(format!("{PREFIX}port: is missing, the public port"));
    }
    wrong
}

/// Returns the labels as a service of a state file, with a backend that stands for the container.
fn document(container: &Container) -> Value {
    let mut service = Map::new();
    service.insert("name".into(), service_name(container).into());
    for name in ["balance", "source", "on_retire", "on_empty", "drain_timeout"] {
        if let Some(value) = label(container, name) {
            service.insert(name.into(), value.into());
        }
    }
    if let Some(value) = label(container, "port") {
        service.insert("port".into(), number(value));
    }
    if let Some(value) = label(container, "limit.pps") {
        service.insert("limit".into(), json!({"pps": number(value)}));
    }
    for name in ["allow", "deny"] {
        if let Some(value) = label(container, name) {
            let networks: Vec<&str> = value.split(',').map(str::trim).collect();
            service.insert(name.into(), networks.into());
        }
    }
    // An address for documentation (RFC 5737): the container's own are not known while it does not run.
    let target = label(container, "target").map(|value| json!({"address": "192.0.2.1", "port": number(value)}));
    let backends: Vec<Value> = target.into_iter().collect();
    service.insert("backends".into(), backends.into());
    Value::Object(service)
}

/// Returns a number where the text is one, so that the parser's message names the text where it is none.
fn number(text: &str) -> Value {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse::<u64>().ok().filter(|_| is_plain);
    number.map_or_else(|| text.into(), Value::from)
}

/// Returns a problem of the document as one of the labels.
fn in_labels(container: &Container, problem: &InputProblem) -> String {
    let InputProblem { place, message } = problem;
    if place == "name" && label(container, "service").is_none() {
        return format!(
            "the service's name, which is that of the container or of Compose's service, {message}; set {PREFIX}service"
        );
    }
    let place = match place.as_str() {
        "name" => "service",
        place if place.starts_with("backends") => "target",
        place => place,
    };
    format!("{PREFIX}{place}: {message}")
}

/// Returns Compose's name of the service, or the container's name without the number at its end, in lower case.
fn default_name(container: &Container) -> String {
    let of_compose = container.labels.get(COMPOSE_SERVICE).map(String::as_str);
    let name = of_compose.unwrap_or_else(|| without_number(&container.name));
    name.to_ascii_lowercase()
}

fn without_number(name: &str) -> &str {
    let word = name.trim_end_matches(|letter: char| letter.is_ascii_digit());
    if word.len() == name.len() {
        return name;
    }
    match word.trim_end_matches(['-', '_', '.']) {
        "" => name,
        word => word,
    }
}
