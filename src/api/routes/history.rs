//! Routes of the history, and of all services as a state file.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use crate::api::answers::{HistoryAnswer, HistoryList};
use crate::api::error::ApiError;
use crate::api::json::json;
use crate::api::media_type::JSON;
use crate::api::params::Params;
use crate::api::shared::ApiState;
use crate::control::request::DaemonRequest;
use crate::control::storage::Query;
use crate::store::HistoryFilter;
use tcpgw_core::model::{self, Service, write};

pub(in crate::api) async fn history(State(shared): State<ApiState>, params: Params) -> Result<Response, ApiError> {
    let mut params = params.known(&["service", "since", "deploy", "before", "limit"])?;
    let filter = HistoryFilter {
        services: params.services()?.into_iter().map(String::from).collect(),
        since: params.parse("since")?.map(Duration::from_secs),
        deploy: params.parse("deploy")?,
        before: params.parse("before")?,
        limit: params.limit()?,
    };
    let query = |reply| DaemonRequest::Query(Query::History(filter, reply));
    let entries = shared.request(shared.times.answer, query).await??;
    let names: BTreeSet<Box<str>> = entries.iter().map(|entry| entry.service.as_str().into()).collect();
    let apps = shared.request(shared.times.answer, |reply| DaemonRequest::AppsOfServices(names, reply));
    let apps = apps.await?;
    let entries = entries.into_iter().map(|entry| {
        let app = apps.get(entry.service.as_str()).cloned();
        HistoryAnswer::new(entry, app)
    });
    Ok(json(&HistoryList {
        entries: entries.collect(),
    }))
}

pub(in crate::api) async fn export(State(shared): State<ApiState>, params: Params) -> Result<Response, ApiError> {
    let mut params = params.known(&["all", "provider"])?;
    let all = params.flag("all")?;
    let provider = params.read("provider", |text| match text {
        "file" | "docker" => Ok(Some(text.to_owned())),
        "api" => Ok(None),
        _ => Err("is not a provider; file, api and docker are accepted"),
    })?;
    if all && provider.is_some() {
        return Err(ApiError::bad("all and provider exclude each other"));
    }
    let provider = provider.flatten();
    // Orphans belong to the API's: whoever applies the export defines them anew.
    let is_meant = |of: &str| match &provider {
        Some(provider) => of == provider,
        None => !["file", "docker"].contains(&of),
    };
    let list = shared.request(shared.times.answer, DaemonRequest::Services).await?;
    let chosen = list.services.iter().filter(|listed| all || is_meant(listed.provider));
    let services: Vec<Service> = chosen.map(|listed| Service::clone(&listed.service)).collect();
    let state = model::State::new(services).map_err(|problems| {
        ApiError::failed(format!(
            "the services of all providers contradict each other: {problems}"
        ))
    })?;
    Ok(([(header::CONTENT_TYPE, JSON)], write::state_text(&state)).into_response())
}
