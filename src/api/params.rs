//! Query parameters of a request. An unknown parameter is an error: `dryrun=true` must not be an apply.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use axum::Extension;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::HeaderMap;
use axum::http::request::Parts;

use super::error::ApiError;
use super::limits::{MAX_PAGE, PAGE};
use super::shared::ApiState;
use crate::addon::ResourceTarget;
use crate::addon::id::PlatformId;
use crate::control::request::{DaemonRequest, Peer};
use tcpgw_core::model::duration;

/// Prefix of the name of a service that belongs to an app's resource.
const APP: &str = "app:";

/// The query, decoded.
#[derive(Debug)]
pub(super) struct Params {
    pairs: Vec<(String, String)>,
    /// The services of the app that the query names, the newest first.
    of_app: Vec<Box<str>>,
}

impl FromRequestParts<ApiState> for Params {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, shared: &ApiState) -> Result<Self, ApiError> {
        let query = Query::<Vec<(String, String)>>::from_request_parts(parts, shared).await;
        let Query(mut pairs) = query.map_err(|error: QueryRejection| ApiError::bad(error.body_text()))?;
        let mut of_app = Vec::new();
        for (name, value) in &mut pairs {
            if name == "service"
                && let Some(app) = app(value)?
            {
                let answer = shared.request(shared.times.answer, |reply| DaemonRequest::ServicesOfApp(app, reply));
                of_app = answer.await??;
                if let Some(newest) = of_app.first() {
                    *value = newest.to_string();
                }
            }
        }
        Ok(Self { pairs, of_app })
    }
}

impl Params {
    /// Checks that each parameter is known and given at most once.
    pub(super) fn known(self, known: &[&'static str]) -> Result<KnownParams, ApiError> {
        let mut values = BTreeMap::new();
        for (name, value) in self.pairs {
            let Some(name) = known.iter().find(|known| **known == name) else {
                let there_are = if known.is_empty() {
                    "there are none here".into()
                } else {
                    format!("known are {}", known.join(", "))
                };
                return Err(ApiError::bad(format!("parameter {name:?} is unknown; {there_are}")));
            };
            if values.insert(*name, value).is_some() {
                return Err(ApiError::bad(format!("parameter {name} is given twice")));
            }
        }
        Ok(KnownParams {
            values,
            of_app: self.of_app,
        })
    }
}

/// The query, with known names.
#[derive(Debug)]
pub(super) struct KnownParams {
    values: BTreeMap<&'static str, String>,
    of_app: Vec<Box<str>>,
}

impl KnownParams {
    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        self.values.remove(name)
    }

    pub(super) fn read<T, E: Display>(
        &mut self,
        name: &str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, ApiError> {
        let Some(text) = self.values.remove(name) else {
            return Ok(None);
        };
        match read(&text) {
            Ok(value) => Ok(Some(value)),
            Err(error) => Err(ApiError::bad(format!("parameter {name}: {text:?} {error}"))),
        }
    }

    pub(super) fn parse<T: FromStr<Err: Display>>(&mut self, name: &str) -> Result<Option<T>, ApiError> {
        self.read(name, str::parse)
    }

    /// Returns the number of entries that a list may have.
    pub(super) fn limit(&mut self) -> Result<usize, ApiError> {
        let read = |text: &str| match text.parse() {
            Ok(limit) if (1..=MAX_PAGE).contains(&limit) => Ok(limit),
            _ => Err(format!("is no number from 1 to {MAX_PAGE}")),
        };
        Ok(self.read("limit", read)?.unwrap_or(PAGE))
    }

    /// Returns the name of a service.
    pub(super) fn service(&mut self) -> Result<Option<Box<str>>, ApiError> {
        let read = |text: &str| name(text).map_err(|_| "is no name of a service");
        self.read("service", read)
    }

    /// Returns the names of the services: several if an app is named that has had several; none: all services.
    pub(super) fn services(&mut self) -> Result<Vec<Box<str>>, ApiError> {
        let named = self.service()?;
        if self.of_app.is_empty() {
            return Ok(named.into_iter().collect());
        }
        Ok(std::mem::take(&mut self.of_app))
    }

    /// Returns whether this parameter is given.
    pub(super) fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    pub(super) fn flag(&mut self, name: &str) -> Result<bool, ApiError> {
        let read = |text: &str| match text {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err("is neither true nor false"),
        };
        Ok(self.read(name, read)?.unwrap_or(false))
    }

    pub(super) fn duration(&mut self, name: &str, most: Duration) -> Result<Option<Duration>, ApiError> {
        self.read(name, |text| match duration::parse(text) {
            Ok(time) if time > most => Err(format!("is more than {}", duration::show(most))),
            other => other.map_err(|error| error.to_string()),
        })
    }
}

/// The name of a service, as the path says it, or that of the service of an app (`app:APP_ID`).
#[derive(Debug)]
pub(super) struct PathServiceName(pub(super) Box<str>);

impl FromRequestParts<ApiState> for PathServiceName {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, shared: &ApiState) -> Result<Self, ApiError> {
        let path = Path::<String>::from_request_parts(parts, shared).await;
        let Path(text) = path.map_err(|error: PathRejection| ApiError::bad(error.body_text()))?;
        if let Some(service) = service_of_app(shared, &text).await? {
            return Ok(Self(service));
        }
        name(&text).map(Self).map_err(ApiError::bad)
    }
}

/// An order about the service that the path names.
#[derive(Debug)]
pub(super) struct ServiceRequest {
    /// User and process of the client.
    pub(super) by: Peer,
    /// The name of the service.
    pub(super) name: Box<str>,
    /// Parameters of the query.
    pub(super) params: Params,
    /// Headers of the request.
    pub(super) headers: HeaderMap,
}

impl FromRequestParts<ApiState> for ServiceRequest {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, shared: &ApiState) -> Result<Self, ApiError> {
        let PathServiceName(name) = PathServiceName::from_request_parts(parts, shared).await?;
        let ChangeRequest { by, params, headers } = ChangeRequest::from_request_parts(parts, shared).await?;
        Ok(Self {
            by,
            name,
            params,
            headers,
        })
    }
}

/// An order about the app that the path names.
#[derive(Debug)]
pub(super) struct AppRequest {
    /// User and process of the client.
    pub(super) by: Peer,
    /// Id of the app.
    pub(super) app: PlatformId,
    /// Parameters of the query.
    pub(super) params: Params,
    /// Headers of the request.
    pub(super) headers: HeaderMap,
}

impl FromRequestParts<ApiState> for AppRequest {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, shared: &ApiState) -> Result<Self, ApiError> {
        let PathApp(app) = PathApp::from_request_parts(parts, shared).await?;
        let ChangeRequest { by, params, headers } = ChangeRequest::from_request_parts(parts, shared).await?;
        Ok(Self {
            by,
            app,
            params,
            headers,
        })
    }
}

/// An order whose path names nothing.
#[derive(Debug)]
pub(super) struct ChangeRequest {
    /// User and process of the client.
    pub(super) by: Peer,
    /// Parameters of the query.
    pub(super) params: Params,
    /// Headers of the request.
    pub(super) headers: HeaderMap,
}

impl FromRequestParts<ApiState> for ChangeRequest {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, shared: &ApiState) -> Result<Self, ApiError> {
        let by = Extension::<Peer>::from_request_parts(parts, shared).await;
        let Extension(by) = by.map_err(|error| ApiError::failed(error.body_text()))?;
        Ok(Self {
            by,
            params: Params::from_request_parts(parts, shared).await?,
            headers: parts.headers.clone(),
        })
    }
}

/// Returns the app, if the text names one.
fn app(text: &str) -> Result<Option<PlatformId>, ApiError> {
    let app = text.strip_prefix(APP).map(str::parse);
    app.transpose()
        .map_err(|error| ApiError::bad(format!("{APP}APP_ID: APP_ID {error}")))
}

/// Returns the name of an app's service, if the text names an app.
async fn service_of_app(shared: &ApiState, text: &str) -> Result<Option<Box<str>>, ApiError> {
    let Some(app) = app(text)? else {
        return Ok(None);
    };
    let answer = shared.request(shared.times.answer, |reply| {
        DaemonRequest::Resource(ResourceTarget::Any(app), reply)
    });
    Ok(Some(answer.await??.id.service().into()))
}

/// An app, as the path names it.
#[derive(Debug)]
pub(super) struct PathApp(pub(super) PlatformId);

impl<S: Send + Sync> FromRequestParts<S> for PathApp {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let Path(text) = path.map_err(|error: PathRejection| ApiError::bad(error.body_text()))?;
        let app = text.parse();
        app.map(Self)
            .map_err(|error| ApiError::bad(format!("the app's id {error}")))
    }
}

/// The number of a deploy, as the path says it.
#[derive(Debug)]
pub(super) struct PathDeployId(pub(super) u64);

impl<S: Send + Sync> FromRequestParts<S> for PathDeployId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let Path(text) = path.map_err(|error: PathRejection| ApiError::bad(error.body_text()))?;
        let id = text.parse().ok().filter(|id| i64::try_from(*id).is_ok());
        id.map(Self)
            .ok_or_else(|| ApiError::bad(format!("{text:?} is no number of a deploy")))
    }
}

/// Reads the name of a service.
pub(super) fn name(text: &str) -> Result<Box<str>, String> {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_good = (1..=63).contains(&text.len())
        && text.bytes().all(|byte| is_word(byte) || b"-_.".contains(&byte))
        && text.bytes().next().is_some_and(is_word);
    if is_good {
        return Ok(text.into());
    }
    let shown: String = text.chars().take(64).collect();
    Err(format!(
        "{shown:?} is no name of a service: 1 to 63 of a-z 0-9 - _ . that start with a letter or digit"
    ))
}
