//! What the kernel shows.

use std::io::Write;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;

use super::Shared;
use crate::api::error::ApiError;
use crate::api::limits::INTERVAL;
use crate::api::params::Params;
use crate::daemon::ask::Look;
use crate::kernel::Kernel;
use crate::look::{self, FlowsQuery, JsonFlows, StatusQuery};
use crate::model::network;
use crate::view::endpoint;
use crate::view::status::Status;

pub(in crate::api) async fn status(State(shared): State<Shared>, params: Params) -> Result<Response, ApiError> {
    let mut params = params.known(&["service", "interval"])?;
    let query = StatusQuery {
        service: params.parse("service")?,
        interval: params.duration("interval", INTERVAL)?.unwrap_or_default(),
    };
    let known = shared.look().await?;
    let work = move |kernel: &mut dyn Kernel, out: &mut dyn Write| {
        let noted = look::noted();
        let write = |status: &Status<'_>| look::write_json(out, status);
        Ok(look::status(
            kernel,
            &known.services,
            Some(&known),
            noted,
            &query,
            write,
        )??)
    };
    shared.looks.stream(INTERVAL, work).await
}

pub(in crate::api) async fn flows(State(shared): State<Shared>, params: Params) -> Result<Response, ApiError> {
    let mut params = params.known(&["service", "backend", "client"])?;
    let query = FlowsQuery {
        service: params.parse("service")?,
        backend: params.read("backend", endpoint)?,
        client: params.read("client", network::parse)?,
    };
    let Look { services, .. } = shared.look().await?;
    let work = move |kernel: &mut dyn Kernel, out: &mut dyn Write| {
        let mut list = JsonFlows::new(out);
        look::flows(kernel, &services, look::noted(), &query, &mut list)
    };
    shared.looks.stream(Duration::ZERO, work).await
}

pub(in crate::api) async fn who(State(shared): State<Shared>, params: Params) -> Result<Response, ApiError> {
    let mut params = params.known(&["seen_as", "backend"])?;
    let Some(seen_as) = params.read("seen_as", endpoint)? else {
        return Err(ApiError::bad(
            "parameter seen_as is missing: the IP:PORT that a backend sees",
        ));
    };
    let backend = params.read("backend", endpoint)?;
    let Look { services, .. } = shared.look().await?;
    let work = move |kernel: &mut dyn Kernel, out: &mut dyn Write| {
        let who = look::who(kernel, &services, look::noted(), seen_as, backend)?;
        Ok(look::write_json(out, &who)?)
    };
    shared.looks.stream(Duration::ZERO, work).await
}
