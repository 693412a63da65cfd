//! Routes of single services, and of the list of services.

use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::de::DeserializeOwned;

use crate::api::answers::{EditAnswer, ServiceAnswer, ServiceList};
use crate::api::body::AcceptedMedia;
use crate::api::error::ApiError;
use crate::api::json::json;
use crate::api::limits::{MAX_DRAIN, MAX_PAUSE};
use crate::api::orders::{BackendsBody, PauseBody};
use crate::api::params::{ChangeRequest, Params, PathServiceName, ServiceRequest};
use crate::api::shared::ApiState;
use crate::control::request::{
    DaemonRequest, EditOrder, ListedService, PauseOrder, Peer, Refused, ServiceEdit, ServiceView,
};
use crate::store::Expect;
use tcpgw_core::model::{self, Endpoint, Service, duration};

/// Default time for which new connections are held back.
const PAUSE: Duration = Duration::from_secs(30);
/// Providers that a list of services can be limited to.
const PROVIDERS: [&str; 4] = ["api", "docker", "file", "orphan"];

pub(in crate::api) async fn list(State(shared): State<ApiState>, params: Params) -> Result<Response, ApiError> {
    let mut params = params.known(&["label", "provider"])?;
    let labels = params.read("label", labels)?.unwrap_or_default();
    let provider = params.read("provider", provider)?;
    let list = shared.request(shared.times.answer, DaemonRequest::Services).await?;
    let is_meant = |listed: &ListedService| {
        provider.is_none_or(|provider| listed.provider == provider) && has_labels(&listed.service, &labels)
    };
    let mut response = json(&ServiceList::new(&list, is_meant));
    tag(&mut response, list.revision);
    Ok(response)
}

/// Creates a service that does not exist, with the name in the body.
pub(in crate::api) async fn create(
    State(shared): State<ApiState>,
    ChangeRequest { by, params, headers }: ChangeRequest,
    body: Body,
) -> Result<Response, ApiError> {
    let mut params = params.known(&["take_over"])?;
    if expected(&headers, true)? != Expect::Anything && !headers.contains_key(header::IF_NONE_MATCH) {
        return Err(ApiError::bad(
            "header if-match makes no sense here: the service must not exist",
        ));
    }
    let take_over = params.flag("take_over")?;
    let (text, _place) = shared.read(&headers, body, AcceptedMedia::Json).await?;
    let name = model::parse_service(&text).map_err(Refused::Invalid)?.name;
    let order = EditOrder {
        name: name.clone(),
        edit: ServiceEdit::Put(text),
        expect: Expect::Absent,
        take_over,
        drain: None,
        by,
    };
    let mut response = shared.edit(order).await?;
    if let Ok(location) = HeaderValue::from_str(&format!("/v1/services/{name}")) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// A label that a service has to have: a key, and a value or any.
type LabelFilter = (String, Option<String>);

fn labels(text: &str) -> Result<Vec<LabelFilter>, &'static str> {
    let read = |label: &str| {
        let (key, value) = match label.split_once('=') {
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (label, None),
        };
        if key.is_empty() {
            return Err("has a label without a key; KEY=VALUE or KEY are accepted, several separated by commas");
        }
        Ok((key.to_owned(), value))
    };
    text.split(',').map(read).collect()
}

fn provider(text: &str) -> Result<&'static str, String> {
    let known = PROVIDERS.iter().find(|provider| **provider == text);
    known
        .copied()
        .ok_or_else(|| format!("is not a provider; accepted are {}", PROVIDERS.join(", ")))
}

fn has_labels(service: &Service, wanted: &[LabelFilter]) -> bool {
    let has = |(key, value): &LabelFilter| {
        let there = service.labels.get(key);
        there.is_some_and(|there| value.as_ref().is_none_or(|value| value == there))
    };
    wanted.iter().all(has)
}

pub(in crate::api) async fn one(
    State(shared): State<ApiState>,
    PathServiceName(name): PathServiceName,
    params: Params,
) -> Result<Response, ApiError> {
    params.known(&[])?;
    Ok(service_response(&shared.service(&name).await?.into()))
}

pub(in crate::api) async fn replace(
    State(shared): State<ApiState>,
    request: ServiceRequest,
    body: Body,
) -> Result<Response, ApiError> {
    let (mut order, headers) = order(request, true)?;
    let (text, _place) = shared.read(&headers, body, AcceptedMedia::Json).await?;
    order.edit = ServiceEdit::Put(text);
    shared.edit(order).await
}

pub(in crate::api) async fn change(
    State(shared): State<ApiState>,
    request: ServiceRequest,
    body: Body,
) -> Result<Response, ApiError> {
    let (order, headers) = order(request, false)?;
    let order = present(order);
    let (text, _place) = shared.read(&headers, body, AcceptedMedia::Patch).await?;
    let edit = ServiceEdit::Patch(text);
    shared.edit(EditOrder { edit, ..order }).await
}

pub(in crate::api) async fn remove(
    State(shared): State<ApiState>,
    request: ServiceRequest,
) -> Result<Response, ApiError> {
    let (order, _) = order(request, false)?;
    shared.edit(order).await
}

pub(in crate::api) async fn drain(
    State(shared): State<ApiState>,
    request: ServiceRequest,
    body: Body,
) -> Result<Response, ApiError> {
    let (order, headers) = order(request, false)?;
    shared.hold(order, &headers, body, ServiceEdit::Drain).await
}

pub(in crate::api) async fn undrain(
    State(shared): State<ApiState>,
    request: ServiceRequest,
    body: Body,
) -> Result<Response, ApiError> {
    let (order, headers) = order(request, false)?;
    shared.hold(order, &headers, body, ServiceEdit::Undrain).await
}

pub(in crate::api) async fn pause(
    State(shared): State<ApiState>,
    request: ServiceRequest,
    body: Body,
) -> Result<Response, ApiError> {
    let ServiceRequest {
        by,
        name,
        params,
        headers,
    } = request;
    params.known(&[])?;
    let (text, _place) = shared.read(&headers, body, AcceptedMedia::Json).await?;
    let PauseBody { time } = object(&text)?;
    let time = span("for", time.as_deref(), MAX_PAUSE)?.unwrap_or(PAUSE);
    if time.is_zero() {
        return Err(ApiError::invalid("for", "must be more than 0s; resume ends a pause"));
    }
    shared.pause(name, Some(time), by).await
}

pub(in crate::api) async fn resume(
    State(shared): State<ApiState>,
    Extension(by): Extension<Peer>,
    PathServiceName(name): PathServiceName,
    params: Params,
) -> Result<Response, ApiError> {
    params.known(&[])?;
    shared.pause(name, None, by).await
}

impl ApiState {
    /// Returns the full view of one service.
    pub(super) async fn service(&self, name: &str) -> Result<ServiceView, ApiError> {
        let answer = self.request(self.times.answer, |reply| DaemonRequest::Service(name.into(), reply));
        answer.await?.ok_or_else(|| {
            ApiError::not_found(format!(
                "there is no service named {name:?}; `tcpgw service ls` lists them"
            ))
        })
    }

    /// Applies an edit that takes backends of a service out of the balance, or puts them back.
    async fn hold(
        &self,
        order: EditOrder,
        headers: &HeaderMap,
        body: Body,
        edit: fn(Vec<Endpoint>) -> ServiceEdit,
    ) -> Result<Response, ApiError> {
        let order = present(order);
        let (text, _place) = self.read(headers, body, AcceptedMedia::Json).await?;
        let edit = edit(endpoints(&text)?);
        self.edit(EditOrder { edit, ..order }).await
    }

    async fn edit(&self, order: EditOrder) -> Result<Response, ApiError> {
        let is_conditional = matches!(order.expect, Expect::Revision(_) | Expect::Absent)
            || order.expect == Expect::Present && matches!(order.edit, ServiceEdit::Put(_));
        let edited = self
            .request(self.times.order, |reply| DaemonRequest::Edit(order, reply))
            .await?;
        let edited = edited.map_err(|refused| ApiError::of_order(refused, is_conditional))?;
        let created = edited.created;
        let tagged = edited.service.is_some().then_some(edited.revision);
        let mut response = json(&EditAnswer::from(edited));
        if let Some(revision) = tagged {
            tag(&mut response, revision);
        }
        if created {
            *response.status_mut() = StatusCode::CREATED;
        }
        Ok(response)
    }

    async fn pause(&self, name: Box<str>, time: Option<Duration>, by: Peer) -> Result<Response, ApiError> {
        let order = PauseOrder {
            name: name.clone(),
            time,
            by,
        };
        let warnings = self
            .request(self.times.order, |reply| DaemonRequest::Pause(order, reply))
            .await??;
        let mut answer = ServiceAnswer::from(self.service(&name).await?);
        answer.warnings = Some(warnings);
        Ok(service_response(&answer))
    }
}

/// Returns the answer that shows a service, with its revision as entity tag.
pub(super) fn service_response(answer: &ServiceAnswer) -> Response {
    let mut response = json(answer);
    if let Some(revision) = answer.listed.revision {
        tag(&mut response, revision);
    }
    response
}

pub(super) fn tag(response: &mut Response, revision: u64) {
    if let Ok(value) = HeaderValue::from_str(&format!("\"{revision}\"")) {
        response.headers_mut().insert(header::ETAG, value);
    }
}

/// Returns an order for a removal, which the caller changes for other edits, and the headers.
fn order(request: ServiceRequest, may_be_absent: bool) -> Result<(EditOrder, HeaderMap), ApiError> {
    let ServiceRequest {
        by,
        name,
        params,
        headers,
    } = request;
    let mut params = params.known(&["take_over", "drain"])?;
    let order = EditOrder {
        name,
        edit: ServiceEdit::Delete,
        expect: expected(&headers, may_be_absent)?,
        take_over: params.flag("take_over")?,
        drain: params.duration("drain", MAX_DRAIN)?,
        by,
    };
    Ok((order, headers))
}

/// Requires that the service exists, if the order expects nothing else.
fn present(mut order: EditOrder) -> EditOrder {
    if order.expect == Expect::Anything {
        order.expect = Expect::Present;
    }
    order
}

pub(super) fn expected(headers: &HeaderMap, may_be_absent: bool) -> Result<Expect, ApiError> {
    let one = |name: HeaderName| -> Result<Option<&str>, ApiError> {
        let mut values = headers.get_all(&name).iter();
        let (first, second) = (values.next(), values.next());
        if second.is_some() {
            return Err(ApiError::bad(format!("header {name} is given twice")));
        }
        let text = first.map(|value| value.to_str().map(str::trim));
        text.transpose()
            .map_err(|_| ApiError::bad(format!("header {name} is no text")))
    };
    match (one(header::IF_MATCH)?, one(header::IF_NONE_MATCH)?) {
        (None, None) => Ok(Expect::Anything),
        (Some("*"), None) => Ok(Expect::Present),
        (Some(text), None) => {
            let inner = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
            let digits = inner.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            let revision = digits.and_then(|text| text.parse().ok());
            revision.map(Expect::Revision).ok_or_else(|| {
                ApiError::bad(format!(
                    "header if-match: {text:?} is neither * nor one revision, as \"7\""
                ))
            })
        }
        (None, Some("*")) if may_be_absent => Ok(Expect::Absent),
        (None, Some(_)) if may_be_absent => Err(ApiError::bad("header if-none-match: only * is known")),
        (None, Some(_)) => Err(ApiError::bad("header if-none-match makes no sense here")),
        (Some(_), Some(_)) => Err(ApiError::bad("headers if-match and if-none-match do not go together")),
    }
}

/// Reads a small object; an empty body is an empty object.
pub(super) fn object<T: DeserializeOwned>(text: &[u8]) -> Result<T, ApiError> {
    let text = if text.trim_ascii().is_empty() { b"{}" } else { text };
    // A list of its fields would do for serde.
    if text.trim_ascii_start().first() == Some(&b'[') {
        return Err(ApiError::invalid("body", "must be an object"));
    }
    serde_json::from_slice(text).map_err(|error| ApiError::invalid("body", error))
}

/// Reads a duration in a body.
pub(super) fn span(place: &str, text: Option<&str>, most: Duration) -> Result<Option<Duration>, ApiError> {
    let Some(text) = text else { return Ok(None) };
    match duration::parse(text) {
        Ok(time) if time <= most => Ok(Some(time)),
        Ok(_) => Err(ApiError::invalid(
            place,
            format_args!("must be {} at most", duration::show(most)),
        )),
        Err(error) => Err(ApiError::invalid(place, error)),
    }
}

fn endpoints(text: &[u8]) -> Result<Vec<Endpoint>, ApiError> {
    let BackendsBody { backends } = object(text)?;
    let read = |(at, text): (usize, &String)| {
        text.parse()
            .map_err(|error| ApiError::invalid(&format!("backends[{at}]"), error))
    };
    backends.iter().enumerate().map(read).collect()
}
