//! Routes that show the state of the kernel.

use std::io::Write;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;

use crate::api::body::AcceptedMedia;
use crate::api::error::ApiError;
use crate::api::limits::INTERVAL;
use crate::api::params::Params;
use crate::api::shared::ApiState;
use crate::control::request::Refused;
use crate::denied::{count_denied, flush_denied};
use crate::observe::{self, FlowsQuery, JsonFlows, QueryClient, StatusQuery, StatusSources};
use crate::traffic::TotalsAge;
use crate::view::snapshot::Snapshot;
use crate::view::status::Status;
use crate::view::{NoService, ServiceName, endpoint};
use tcpgw_core::model::{self, network};
use tcpgw_core::summary::Summary;
use tcpgw_kernel::Kernel;

pub(in crate::api) async fn status(State(shared): State<ApiState>, params: Params) -> Result<Response, ApiError> {
    let mut params = params.known(&["service", "interval"])?;
    let service = params.parse("service")?;
    let interval = params.duration("interval", INTERVAL)?.unwrap_or_default();
    let known = shared.snapshot().await?;
    let totals = shared.totals.clone();
    let work = move |kernel: &mut dyn Kernel, out: &mut dyn Write, client: &QueryClient| {
        let totals = totals.and_then(|totals| totals(TotalsAge::Fresh));
        let query = StatusQuery {
            service,
            interval,
            client: client.clone(),
            totals,
            ..StatusQuery::default()
        };
        let sources = StatusSources {
            services: &known.services,
            daemon: Some(&known),
            found: &[],
            noted: observe::noted(),
        };
        let write = |status: &Status<'_>| observe::write_status(out, status);
        Ok(observe::status(kernel, sources, &query, write)??)
    };
    shared.kernel_queries.stream(INTERVAL, work).await
}

pub(in crate::api) async fn flows(State(shared): State<ApiState>, params: Params) -> Result<Response, ApiError> {
    let mut params = params.known(&["service", "backend", "client"])?;
    let query = FlowsQuery {
        service: params.parse("service")?,
        backend: params.read("backend", endpoint)?,
        client: params.read("client", network::parse)?,
    };
    let Snapshot { services, .. } = shared.snapshot().await?;
    let work = move |kernel: &mut dyn Kernel, out: &mut dyn Write, _: &QueryClient| {
        let mut list = JsonFlows::new(out);
        observe::flows(kernel, &services, observe::noted(), &query, &mut list)
    };
    shared.kernel_queries.stream(Duration::ZERO, work).await
}

pub(in crate::api) async fn who(State(shared): State<ApiState>, params: Params) -> Result<Response, ApiError> {
    let mut params = params.known(&["seen_as", "backend", "service"])?;
    let Some(seen_as) = params.read("seen_as", endpoint)? else {
        return Err(ApiError::bad(
            "parameter seen_as is missing: the IP:PORT that a backend sees",
        ));
    };
    let backend = params.read("backend", endpoint)?;
    let service: Option<ServiceName> = params.parse("service")?;
    let Snapshot { services, .. } = shared.snapshot().await?;
    let work = move |kernel: &mut dyn Kernel, out: &mut dyn Write, _: &QueryClient| {
        let who = observe::who(kernel, &services, observe::noted(), seen_as, backend, service.as_ref())?;
        Ok(observe::write_json(out, &who)?)
    };
    shared.kernel_queries.stream(Duration::ZERO, work).await
}

/// Returns the flows of clients that are denied now.
pub(in crate::api) async fn denied(State(shared): State<ApiState>, params: Params) -> Result<Response, ApiError> {
    let service: Option<ServiceName> = params.known(&["service"])?.parse("service")?;
    let Snapshot { services, .. } = shared.snapshot().await?;
    let work = move |kernel: &mut dyn Kernel, out: &mut dyn Write, _: &QueryClient| {
        let only = position(service.as_ref(), &services.summary)?;
        let denied = count_denied(kernel, services.mark, &services.summary, only)?;
        Ok(observe::write_json(out, &denied)?)
    };
    shared.kernel_queries.stream(Duration::ZERO, work).await
}

/// Returns the flows of clients that a state would deny.
pub(in crate::api) async fn would_be_denied(
    State(shared): State<ApiState>,
    params: Params,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    params.known(&[])?;
    let (text, place) = shared.read(&headers, body, AcceptedMedia::Json).await?;
    let state = model::parse(&text).map_err(Refused::Invalid)?;
    drop((text, place));
    let summary = Summary::from(&state);
    let mark = shared.snapshot_parts().await?.services.mark;
    let work = move |kernel: &mut dyn Kernel, out: &mut dyn Write, _: &QueryClient| {
        let denied = count_denied(kernel, mark, &summary, None)?;
        Ok(observe::write_json(out, &denied)?)
    };
    shared.kernel_queries.stream(Duration::ZERO, work).await
}

/// Ends the flows of clients that are denied now.
pub(in crate::api) async fn flush(State(shared): State<ApiState>, params: Params) -> Result<Response, ApiError> {
    let service: Option<ServiceName> = params.known(&["service"])?.parse("service")?;
    let Snapshot { services, .. } = shared.snapshot().await?;
    let work = move |kernel: &mut dyn Kernel, out: &mut dyn Write, _: &QueryClient| {
        let only = position(service.as_ref(), &services.summary)?;
        let flushed = flush_denied(kernel, services.mark, &services.summary, only)?;
        Ok(observe::write_json(out, &flushed)?)
    };
    shared.kernel_queries.stream(Duration::ZERO, work).await
}

/// Returns the position of the service that a request names, if it names one.
fn position(service: Option<&ServiceName>, summary: &Summary) -> Result<Option<usize>, NoService> {
    service.map(|name| name.position(summary)).transpose()
}
