//! The backends of a service.

use std::net::IpAddr;
use std::num::NonZeroU16;

use super::fields::Fields;
use super::value;
use crate::model::json::Json;
use crate::model::problem::{InputProblems, JsonPath};
use crate::model::{Backend, BackendState, Endpoint, address};

/// Largest number of active backends of a service.
pub const MAX_ACTIVE: usize = 256;

const MAX_WEIGHT: u16 = 256;
const FIELDS: [&str; 4] = ["address", "port", "weight", "state"];

/// Reads the list and sorts it; every endpoint that could be read goes to `claim` with its index, also when something
/// else is wrong.
pub(super) fn read(
    json: &Json,
    place: &JsonPath<'_>,
    problems: &mut InputProblems,
    mut claim: impl FnMut(usize, Endpoint),
) -> Option<Vec<Backend>> {
    let items = value::list(json, "backends", place, problems)?;
    let mut backends = Vec::with_capacity(items.len());
    for (i, item) in items.iter().enumerate() {
        let place = place.index(i);
        let (endpoint, backend) = match item {
            Json::Object(_) => object(item, &place, problems),
            _ => text(item, &place, problems),
        };
        if let Some(endpoint) = endpoint {
            claim(i, endpoint);
        }
        backends.extend(backend);
    }
    let is_good = backends.len() == items.len();
    let active = backends
        .iter()
        .filter(|backend| backend.state == BackendState::Active)
        .count();
    if active > MAX_ACTIVE {
        problems.add(
            place,
            format_args!("has {active} active backends; at most {MAX_ACTIVE} are accepted"),
        );
        return None;
    }
    backends.sort_unstable();
    is_good.then_some(backends)
}

fn text(json: &Json, place: &JsonPath<'_>, problems: &mut InputProblems) -> (Option<Endpoint>, Option<Backend>) {
    let what = "\"IP:port\", \"[IP6]:port\" or an object";
    let endpoint = value::string(json, what, place, problems)
        .and_then(|text| text.parse().map_err(|error| problems.add(place, error)).ok())
        .filter(|endpoint: &Endpoint| check_address(endpoint.address, place, problems));
    let backend = |endpoint| Backend {
        endpoint,
        weight: NonZeroU16::MIN,
        state: BackendState::Active,
    };
    (endpoint, endpoint.map(backend))
}

fn object(json: &Json, place: &JsonPath<'_>, problems: &mut InputProblems) -> (Option<Endpoint>, Option<Backend>) {
    let Some(fields) = Fields::of(json, place, &FIELDS, problems) else {
        return (None, None);
    };
    let address = fields.required("address", problems, backend_address);
    let port = fields.required("port", problems, value::positive(u16::MAX));
    let weight = fields.or("weight", NonZeroU16::MIN, problems, value::positive(MAX_WEIGHT));
    let state = fields.or("state", BackendState::Active, problems, value::word);
    let endpoint = address.zip(port).map(|(address, port)| Endpoint { address, port });
    let backend = endpoint
        .zip(weight.zip(state))
        .map(|(endpoint, (weight, state))| Backend {
            endpoint,
            weight,
            state,
        });
    (endpoint, backend)
}

fn backend_address(json: &Json, place: &JsonPath<'_>, problems: &mut InputProblems) -> Option<IpAddr> {
    let text = value::string(json, "an IP address like \"10.2.0.11\"", place, problems)?;
    let address = address::parse(text).map_err(|error| problems.add(place, error)).ok()?;
    check_address(address, place, problems).then_some(address)
}

fn check_address(address: IpAddr, place: &JsonPath<'_>, problems: &mut InputProblems) -> bool {
    let refusal = address::refusal_as_backend(address);
    if let Some(kind) = refusal {
        problems.add(
            place,
            format_args!("{address} is {kind}; must be a container's unicast address"),
        );
    }
    refusal.is_none()
}
