//! The dashboard's pages: reads what they show, and has them written.
//!
//! A page is written on a thread of its own, not on that of the daemon's loop. So many are written or being sent at once.

mod details;
mod service;

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use super::cached_reads::CachedReads;
use super::reader::{MetricsReader, patient};
use crate::api::OpenKernel;
use crate::api::limits::{PAGES, Times};
use crate::api::settings::ApiSettings;
use crate::control::request::DaemonRequest;
use crate::dashboard::{FlowList, Overview, QueryRefused, ServicesPage, ServicesQuery, refusal};
use crate::date::since_1970;
use crate::doctor::Diagnosis;
use crate::metrics::Reading;
use crate::traffic::shared_hour::SharedHour;

/// Maximum time that a request waits for a place.
const PLACE_WAIT: Duration = Duration::from_secs(2);
/// Shortest time for which flows and findings are shown.
const FLOWS_SHOWN: Duration = Duration::from_secs(1);
const FINDINGS_SHOWN: Duration = Duration::from_secs(5);
/// Maximum time that a page waits for flows, and for findings.
const FLOWS_AWAITED: Duration = Duration::from_secs(4);
const FINDINGS_AWAITED: Duration = Duration::from_secs(15);
const OVERVIEW: (&str, &str) = ("Overview", "/");
const SERVICES: (&str, &str) = ("All services", "/services");

/// Handler of the requests for pages.
pub(super) struct Pages {
    reader: Arc<MetricsReader>,
    requests: mpsc::Sender<DaemonRequest>,
    times: Times,
    open: OpenKernel,
    hour: Option<SharedHour>,
    places: Arc<Semaphore>,
    /// Flows of services by name and port.
    flow_lists: CachedReads<(Box<str>, u16), FlowList>,
    diagnoses: CachedReads<(), Diagnosis>,
}

impl Pages {
    pub(super) fn new(
        reader: Arc<MetricsReader>,
        requests: mpsc::Sender<DaemonRequest>,
        settings: &ApiSettings,
    ) -> Self {
        Self {
            reader,
            requests,
            times: patient(settings.times),
            open: Arc::clone(&settings.open),
            hour: settings.hour.clone(),
            flow_lists: CachedReads::new(FLOWS_SHOWN, FLOWS_AWAITED),
            diagnoses: CachedReads::new(FINDINGS_SHOWN, FINDINGS_AWAITED),
            places: Arc::new(Semaphore::new(PAGES)),
        }
    }

    /// Returns the overview.
    pub(super) async fn overview(&self) -> Response<Body> {
        self.with_reading(|reading| {
            let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            let overview = Overview {
                reading,
                host: host.trim_end(),
                now: since_1970().as_secs(),
            };
            overview.page().response(StatusCode::OK)
        })
        .await
    }

    /// Returns the table of services that the query of a URL asks for.
    pub(super) async fn services(&self, query: &str) -> Response<Body> {
        let query = match ServicesQuery::parse(query) {
            Ok(query) => query,
            Err(refused) => return refused_query(&refused, None),
        };
        self.with_reading(move |reading| {
            let page = ServicesPage { reading, query: &query }.page();
            match page {
                Ok(page) => page.response(StatusCode::OK),
                Err(refused) => refused_query(&refused, Some(&query)),
            }
        })
        .await
    }

    /// Returns a page that is written from the values of all services.
    async fn with_reading(&self, write: impl FnOnce(&Reading) -> Response<Body> + Send + 'static) -> Response<Body> {
        match self.reader.reading(Instant::now()).await {
            Ok(reading) => self.written(move || write(&reading)).await,
            Err(why) => unavailable(&why),
        }
    }

    /// Writes a page as soon as one of the places for pages is free. The place is free again when the page was sent.
    async fn written(&self, write: impl FnOnce() -> Response<Body> + Send + 'static) -> Response<Body> {
        let place = timeout(PLACE_WAIT, Arc::clone(&self.places).acquire_owned()).await;
        let Ok(Ok(place)) = place else {
            return unavailable(&format!("{PAGES} other pages are being sent"));
        };
        let Ok(mut response) = tokio::task::spawn_blocking(write).await else {
            return unavailable("the thread that writes the page has died");
        };
        if let Some(length) = response.body().size_hint().exact() {
            response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
        }
        response.map(|body| {
            Body::new(body.map_frame(move |frame| {
                let _ = &place;
                frame
            }))
        })
    }
}

/// Returns the page of a path that leads nowhere.
pub(super) fn nothing() -> Response<Body> {
    let message = "There is nothing at this address. Metrics are at /metrics.";
    refusal(StatusCode::NOT_FOUND, "Not found", message, OVERVIEW)
}

fn refused_query(refused: &QueryRefused, query: Option<&ServicesQuery>) -> Response<Body> {
    let heading = "This table cannot be shown";
    let message = format!("{refused}.");
    match (refused, query) {
        (QueryRefused::Beyond { pages, .. }, Some(query)) => {
            let last = ServicesQuery {
                page: *pages,
                ..query.clone()
            };
            refusal(StatusCode::NOT_FOUND, heading, &message, ("The last page", &last.url()))
        }
        _ => refusal(StatusCode::BAD_REQUEST, heading, &message, SERVICES),
    }
}

fn unavailable(why: &str) -> Response<Body> {
    let message = format!(
        "The gateway cannot show this now: {why}. That alone keeps no client from being served. Try again in a few seconds."
    );
    let mut response = refusal(StatusCode::SERVICE_UNAVAILABLE, "Not available", &message, OVERVIEW);
    response
        .headers_mut()
        .insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
    response
}
