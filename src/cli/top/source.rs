//! Requests to the daemon: samples, flows, orders.

use std::time::Duration;

use super::query::FlowLine;
use super::query::{FlowPage, FlowsTarget, LargestFlows, OrderKind, PAUSE, TopAnswer, TopOrder, TopQuery, WhoTarget};
use super::sample::TopSample;
use crate::api::answers::{EditAnswer, ServiceAnswer};
use crate::api::client::{Client, ClientError, DaemonResponse, RequestTarget};
use crate::api::orders::{BackendsBody, PauseBody, json};
use crate::view::flows::FlowView;
use crate::view::status::Status;
use crate::view::who::WhoView;
use tcpgw_core::model::duration;

/// Longest time for a sample, besides its interval. Many services take seconds; meanwhile the view says how old its values are.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks for a sample with rates over `interval`; zero for none.
///
/// # Errors
/// Fails as [`Client::get`] does.
pub(super) fn sample(daemon: &Client, interval: Duration) -> Result<TopSample, ClientError> {
    let text = duration::show(interval);
    let target = RequestTarget::new("/v1/status").with("interval", Some(&text));
    let answer = daemon.get_within(target.as_str(), interval + PATIENCE, || ())?;
    // The status of many services has more values than other answers may have.
    Ok(TopSample::new(&daemon.understand::<Status<'_>>(&answer.text()?)?))
}

/// Asks something else, or gives an order. The reason of a failure is text for people.
pub(super) fn answer(daemon: &Client, query: TopQuery) -> TopAnswer {
    match query {
        TopQuery::Flows(target) => {
            let page = flows(daemon, &target).map_err(|error| error.to_string());
            TopAnswer::Flows(target, page)
        }
        TopQuery::Who(target) => {
            let page = who(daemon, target).map_err(|error| error.to_string());
            TopAnswer::Who(target, page)
        }
        TopQuery::Order(order) => TopAnswer::Order(carry_out(daemon, &order).map_err(|error| error.to_string())),
    }
}

fn flows(daemon: &Client, wanted: &FlowsTarget) -> Result<FlowPage, ClientError> {
    let service = wanted.service.as_ref().map(|(_, selector)| selector);
    let target = RequestTarget::new("/v1/flows")
        .with("service", service.map(|selector| selector as _))
        .with("backend", wanted.backend.as_ref().map(|backend| backend as _));
    let mut largest = LargestFlows::new(&wanted.filter.to_lowercase());
    daemon.get(target.as_str())?.lines(false, |line| {
        if line.starts_with(b"{\"") {
            let flow: FlowView<'_> = daemon.understand(line.strip_suffix(b",").unwrap_or(line))?;
            largest.add(&flow);
        }
        Ok::<_, ClientError>(true)
    })?;
    Ok(largest.end())
}

fn who(daemon: &Client, wanted: WhoTarget) -> Result<FlowPage, ClientError> {
    let target = RequestTarget::new("/v1/who")
        .with("seen_as", Some(&wanted.seen_as))
        .with("backend", wanted.backend.as_ref().map(|backend| backend as _));
    let who: WhoView<'static> = daemon.get(target.as_str())?.json()?;
    Ok(FlowPage {
        matching: u64::try_from(who.flows.len()).unwrap_or(u64::MAX),
        flows: who.flows.iter().map(FlowLine::new).collect(),
    })
}

/// Carries out an order, and returns its result in words.
fn carry_out(daemon: &Client, order: &TopOrder) -> Result<String, ClientError> {
    let name = &order.service;
    let post = |what: &str, body: Vec<u8>| daemon.post(RequestTarget::of_service(name, what).as_str(), body);
    let edit = |what: &str, backend: std::net::SocketAddr| {
        let backends = vec![backend.to_string()];
        post(what, json(&BackendsBody { backends })).and_then(DaemonResponse::json::<EditAnswer>)
    };
    let same = |edited: &EditAnswer| if edited.changed { "" } else { " already" };
    let (done, warnings) = match order.kind {
        OrderKind::Drain(backend) => {
            let edited = edit("/drain", backend)?;
            (
                format!("{name}: {backend} is{} draining", same(&edited)),
                edited.warnings,
            )
        }
        OrderKind::Undrain(backend) => {
            let edited = edit("/undrain", backend)?;
            (format!("{name}: {backend} is{} active", same(&edited)), edited.warnings)
        }
        OrderKind::Pause => {
            let time = Some(PAUSE.to_owned());
            let view: ServiceAnswer = post("/pause", json(&PauseBody { time }))?.json()?;
            let done = format!("{name}: new connections are dropped for {PAUSE}");
            (done, view.warnings.unwrap_or_default())
        }
        OrderKind::Resume => {
            let view: ServiceAnswer = post("/resume", Vec::new())?.json()?;
            let done = format!("{name}: new connections are accepted again");
            (done, view.warnings.unwrap_or_default())
        }
    };
    Ok(std::iter::once(done).chain(warnings).collect::<Vec<_>>().join("; "))
}
