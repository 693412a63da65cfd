//! Error answers of the API.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use thiserror::Error;

use super::hints;
use crate::addon::Refusal;
use crate::control::request::{AddonRefused, Refused};
use crate::control::storage::QueryError;
use crate::observe::ObserveError;
use tcpgw_core::model::{InputProblem, InputProblems, write};

/// Code of everything that is not there.
pub const NOT_FOUND: &str = "not_found";

/// An error answer: a status code and a JSON document.
#[derive(Debug, Error)]
#[error("{message}")]
pub struct ApiError {
    status: StatusCode,
    /// One word for programs.
    code: &'static str,
    /// Description of the error and of what to do, for people.
    message: String,
    /// All that is wrong with the input.
    problems: InputProblems,
    /// Further member: the service as it is, if it is not as expected; a deploy that was undone.
    more: Option<Box<(&'static str, Value)>>,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            problems: InputProblems::default(),
            more: None,
        }
    }

    /// Returns the error for a request that is not valid.
    pub(super) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    /// Returns the error for an unknown path, service, backend, deploy or resource. Nothing is kept of removed ones that would
    /// tell them from those that never existed, so 410 is never used.
    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, NOT_FOUND, message)
    }

    /// Returns the error for a daemon with too much to do: nothing was done.
    pub(super) fn busy(what: &str) -> Self {
        let message = format!("{what}; nothing was done, try again later");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", message)
    }

    /// Returns the error for a daemon whose loop has ended.
    pub(super) fn ending() -> Self {
        let message = "the daemon is ending; nothing was done, try again later";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "ending", message)
    }

    /// Returns the error for an order that was refused. `is_conditional`: the order said what it expected to exist, so that a
    /// conflict is 412, not 409.
    pub(super) fn of_order(refused: Refused, is_conditional: bool) -> Self {
        let is_unexpected = is_conditional && matches!(refused, Refused::Conflict(..));
        let error = Self::from(refused);
        if is_unexpected {
            error.with_status(StatusCode::PRECONDITION_FAILED)
        } else {
            error
        }
    }

    /// Returns the same error with another status code.
    pub(super) fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// Adds a further member.
    pub(super) fn with(mut self, key: &'static str, value: Value) -> Self {
        self.more = Some(Box::new((key, value)));
        self
    }

    /// Returns the error for a body with one problem.
    pub(super) fn invalid(place: &str, message: impl std::fmt::Display) -> Self {
        let mut problems = InputProblems::default();
        problems.add(&place, message);
        Self {
            problems,
            ..Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "invalid",
                "the body is invalid; nothing was changed",
            )
        }
    }

    pub(super) fn failed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", message)
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Invalid(problems) => Self {
                problems,
                ..Self::new(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "invalid",
                    "the state is invalid; nothing was changed",
                )
            },
            Refused::Refused(message) => Self::new(StatusCode::CONFLICT, "refused", message),
            Refused::Missing(message) => Self::not_found(message),
            Refused::Conflict(message, current) => {
                let error = Self::new(StatusCode::CONFLICT, "conflict", message);
                match current {
                    None => error,
                    Some(stored) => {
                        let service = write::service_value(&stored.service);
                        error.with("current", json!({"service": service, "revision": stored.revision}))
                    }
                }
            }
            Refused::Store(message) => Self::new(StatusCode::INSUFFICIENT_STORAGE, "store", message),
            Refused::Busy(message) => Self::busy(&message),
            Refused::Ending => Self::ending(),
            Refused::Failed(message) => Self::failed(message),
        }
    }
}

impl From<AddonRefused> for ApiError {
    fn from(refused: AddonRefused) -> Self {
        let refusal = match refused {
            AddonRefused::Daemon(refused) => return refused.into(),
            AddonRefused::Off => {
                let message = "the add-on is off: no [addon] of the configuration is in use; nothing was changed";
                return Self::new(StatusCode::CONFLICT, "refused", message);
            }
            AddonRefused::Resource(refusal) => refusal,
        };
        match refusal {
            Refusal::UnknownPlan { .. } | Refusal::UnlistedPlan => Self::invalid("plan", refusal),
            Refusal::Prefixed => Self::bad(refusal.to_string()),
            Refusal::Gone => Self::not_found(format!("{refusal}; `tcpgw addon ls` lists those that there are")),
            Refusal::NotFound | Refusal::NoBinding => {
                Self::not_found(format!("{refusal}; `tcpgw addon ls` lists them"))
            }
            Refusal::Conflict(_) | Refusal::Port(_) | Refusal::TooManyBindings | Refusal::Ambiguous(_) => Self::new(
                StatusCode::CONFLICT,
                "refused",
                format!("{refusal}; nothing was changed"),
            ),
        }
    }
}

/// Translates the error of a query: orders come back as [`Refused`].
impl From<QueryError> for ApiError {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::Busy => Self::busy(&error.to_string()),
            QueryError::Gone => Self::ending(),
            QueryError::Store(error) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "store", error.to_string()),
        }
    }
}

impl From<ObserveError> for ApiError {
    fn from(error: ObserveError) -> Self {
        let message = error.to_string();
        match error {
            ObserveError::NoService(_) => Self::not_found(message),
            ObserveError::Families(..) => Self::bad(message),
            ObserveError::Kernel(_) | ObserveError::Gone | ObserveError::Write(_) => Self::failed(message),
        }
    }
}

impl ApiError {
    /// Returns the status code and the words of a page: the message, and all that is wrong with the input.
    pub(super) fn page_text(&self) -> (StatusCode, String) {
        let problems = self
            .problems
            .iter()
            .map(|problem| format!("\n{}: {}", problem.place, problem.message));
        (self.status, format!("{}{}", self.message, problems.collect::<String>()))
    }

    /// Returns the document and its length.
    pub(super) fn text(&self) -> (usize, String) {
        let mut error = json!({"code": self.code, "message": hints::worded(&self.message)});
        if !self.problems.is_empty() {
            let more = self.problems.total() - self.problems.iter().count();
            let worded = |problem: &InputProblem| InputProblem {
                place: problem.place.clone(),
                message: hints::worded(&problem.message).into_owned(),
            };
            error["problems"] = json!(self.problems.iter().map(worded).collect::<Vec<_>>());
            error["more"] = json!(more);
        }
        if let Some(more) = &self.more {
            error[more.0] = more.1.clone();
        }
        let text = format!("{:#}\n", json!({"error": error}));
        (text.len(), text)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (_, body) = self.text();
        let mut response = (self.status, [(header::CONTENT_TYPE, super::media_type::JSON)], body).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            let headers = response.headers_mut();
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
