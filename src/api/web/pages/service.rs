//! The page of one service, with values from the daemon, the store and the kernel.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::http::{Response, StatusCode};
use maud::Markup;

use super::{Pages, SERVICES, unavailable};
use crate::api::loop_request;
use crate::api::web::site::Web;
use crate::control::events::Event;
use crate::control::reply::ReplySender;
use crate::control::request::{After, DaemonRequest, Followed, ServiceView};
use crate::control::storage::{Query, QueryError};
use crate::dashboard::{FlowList, ServicePage, last_hour, no_service};
use crate::date::since_1970;
use crate::metrics::{Reading, ServiceSample};
use crate::store::{HistoryEntry, HistoryFilter, StoredDeploy};
use crate::view::ServiceName;
use tcpgw_core::model::FlowMark;

/// Number of deploys, changes and events that a page shows.
const DEPLOYS: usize = 10;
const CHANGES: usize = 10;
const EVENTS: usize = 20;

/// All that the page of a service shows.
pub(super) struct ServicePageFacts {
    reading: Arc<Reading>,
    /// Place of the service in the reading; `None`: the kernel does not have it.
    place: Option<usize>,
    view: Option<ServiceView>,
    flows: Result<Arc<FlowList>, String>,
    deploys: Option<Vec<StoredDeploy>>,
    history: Option<Vec<HistoryEntry>>,
    events: Option<Vec<Arc<Event>>>,
    last_hour: Option<Markup>,
    may_order: bool,
}

impl ServicePageFacts {
    /// Passes the page to `write`.
    pub(super) fn with_page<T>(&self, name: &str, write: impl FnOnce(&ServicePage<'_>) -> T) -> T {
        let events = self.events.as_deref();
        let events: Option<Vec<&Event>> = events.map(|events| events.iter().map(|event| &**event).collect());
        write(&ServicePage {
            name,
            reading: &self.reading,
            sample: self.place.map(|place| &self.reading.services[place]),
            view: self.view.as_ref(),
            flows: self.flows.as_deref().map_err(String::as_str),
            deploys: self.deploys.as_deref(),
            history: self.history.as_deref(),
            events: events.as_deref(),
            last_hour: self.last_hour.as_ref(),
            may_order: self.may_order,
        })
    }
}

impl Pages {
    /// Returns the page of a service.
    pub(in crate::api::web) async fn service(&self, site: &Web, name: &str) -> Response<Body> {
        // Nobody is asked for what cannot be a name.
        if name.parse::<ServiceName>().is_err() {
            return missing(name);
        }
        let facts = match self.facts(site, name).await {
            Ok(facts) => facts,
            Err(why) => return unavailable(&why),
        };
        if facts.place.is_none() && facts.view.is_none() {
            return missing(name);
        }
        let name = name.to_owned();
        self.written(move || facts.with_page(&name, |service| service.page().response(StatusCode::OK)))
            .await
    }

    /// Asks for all that the page of a service shows.
    pub(super) async fn facts(&self, site: &Web, name: &str) -> Result<ServicePageFacts, String> {
        let reading = self.reader.reading(Instant::now()).await?;
        let place = reading.services.iter().position(|of| *of.name == *name);
        let filter = HistoryFilter {
            services: vec![name.to_owned()],
            limit: CHANGES,
            ..HistoryFilter::default()
        };
        let sample = place.map(|place| &reading.services[place]);
        let view = self.request(|reply| DaemonRequest::Service(name.into(), reply));
        let deploys = self.query(|reply| Query::Deploys(Some(name.to_owned()), DEPLOYS, reply));
        let history = self.query(|reply| Query::History(filter, reply));
        let (view, deploys, history, events, flows, last_hour) = tokio::join!(
            view,
            deploys,
            history,
            self.events(name),
            self.flows(reading.mark, sample),
            self.last_hour(name, &reading, sample)
        );
        Ok(ServicePageFacts {
            view: view?,
            place,
            flows,
            deploys,
            history,
            events,
            last_hour,
            may_order: site.token.is_some(),
            reading,
        })
    }

    /// Asks the daemon's loop.
    pub(super) async fn request<T>(&self, request: impl FnOnce(ReplySender<T>) -> DaemonRequest) -> Result<T, String> {
        let answer = loop_request::send(&self.requests, &self.times, self.times.answer, request);
        answer.await.map_err(|error| error.to_string())
    }

    /// Asks the store; `None`: it does not answer.
    pub(super) async fn query<T>(&self, query: impl FnOnce(ReplySender<Result<T, QueryError>>) -> Query) -> Option<T> {
        self.request(|reply| DaemonRequest::Query(query(reply)))
            .await
            .ok()?
            .ok()
    }

    /// Returns the last events of a service, the newest first.
    async fn events(&self, name: &str) -> Option<Vec<Arc<Event>>> {
        let followed: Followed = self
            .request(|reply| DaemonRequest::Follow(After::Start, reply))
            .await
            .ok()?;
        let events = followed.kept.into_iter().rev();
        let of_it = events.filter(|event| event.what.service() == Some(name));
        Some(of_it.take(EVENTS).collect())
    }

    /// Returns the plots of the last hour; `None`: it is not recorded.
    async fn last_hour(&self, name: &str, reading: &Reading, sample: Option<&ServiceSample>) -> Option<Markup> {
        let (hour, name) = (self.hour.clone()?, name.to_owned());
        let limit = sample.and_then(|of| Some((of.limit?, of.backends.len())));
        let counts_bytes = reading.totals.as_ref().is_some_and(|totals| totals.counts_bytes);
        let plots = move || {
            let slots = hour.of(&name, Instant::now())?;
            Some(last_hour(&slots, limit, counts_bytes))
        };
        tokio::task::spawn_blocking(plots).await.ok()?
    }

    async fn flows(&self, mark: FlowMark, sample: Option<&ServiceSample>) -> Result<Arc<FlowList>, String> {
        let Some(sample) = sample else {
            return Err("the kernel does not have the service".into());
        };
        let key = (sample.name.clone(), sample.port);
        let (open, sample) = (Arc::clone(&self.open), sample.clone());
        let read = move || {
            let now = u64::try_from(since_1970().as_nanos()).unwrap_or(u64::MAX);
            let mut kernel = open().map_err(|error| error.to_string())?;
            let mut list = FlowList::new(sample, now);
            let selection = list.selection();
            let read = kernel.select(mark, &selection, &mut |flow| {
                list.add(flow);
                ControlFlow::Continue(())
            });
            read.map_err(|error| error.to_string())?;
            Ok(list)
        };
        self.flow_lists.look(key, Instant::now(), read).await
    }
}

fn missing(name: &str) -> Response<Body> {
    no_service(name, SERVICES)
}
