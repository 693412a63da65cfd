//! Requests and answers, as far as the checks are about them.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::created_resource::ProviderResource;
use crate::addon::Dialect;
use crate::addon::credentials::ProviderCredentials;
use crate::addon::dialect::exchange::Method;
use crate::addon::sso::FormFields;

/// The version of the Open Service Broker API that the checks are about.
const OSB_VERSION: &str = "2.17";
/// Media type that Heroku accepts.
const HEROKU_MEDIA: &str = "application/vnd.heroku-addons+json; version=3";
/// Longest text of a body that is no JSON, in characters.
const MAX_TEXT: usize = 200;

/// URL that a path is relative to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathBase {
    /// The provider API's URL.
    Base,
    /// The URL of single sign-on.
    SignOn,
}

/// The credentials of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Login {
    /// Correct credentials.
    Right,
    /// The right user name with a wrong password.
    Wrong,
    /// No credentials are sent.
    Missing,
}

/// The version that a request names (OSB).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// The version that the checks are about.
    Usual,
    /// No version is named.
    Missing,
    /// Another version.
    Other(&'static str),
}

/// The body of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// No body is sent.
    Nothing,
    /// A JSON document.
    Json(Value),
    /// The fields of a form; with `GET` they are the query.
    Form(FormFields),
    /// Text that is declared as JSON, and is not.
    Text(&'static str),
}

/// Effect of a request at the provider if it succeeds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RequestEffect {
    /// No effect.
    Nothing,
    /// The catalog is known afterwards.
    Lists,
    /// The thing exists afterwards.
    Creates(ProviderResource),
    /// The thing is gone afterwards.
    Removes(ProviderResource),
    /// The thing has this plan afterwards.
    Changes(ProviderResource, String),
}

impl RequestEffect {
    pub(super) fn thing(&self) -> Option<&ProviderResource> {
        match self {
            Self::Nothing | Self::Lists => None,
            Self::Creates(thing) | Self::Removes(thing) | Self::Changes(thing, _) => Some(thing),
        }
    }
}

/// A request to the provider.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckRequest {
    /// The method.
    pub method: Method,
    /// URL that the path is relative to.
    pub place: PathBase,
    /// The path below that URL, with a query.
    pub path: String,
    /// The credentials.
    pub login: Login,
    /// The version.
    pub version: Version,
    /// The body.
    pub body: Body,
    /// The user on whose behalf a platform asks (OSB).
    pub(super) originator: Option<&'static str>,
    pub(super) effect: RequestEffect,
}

impl CheckRequest {
    pub(super) fn new(method: Method, path: impl Into<String>) -> Self {
        Self {
            method,
            place: PathBase::Base,
            path: path.into(),
            login: Login::Right,
            version: Version::Usual,
            body: Body::Nothing,
            originator: None,
            effect: RequestEffect::Nothing,
        }
    }

    pub(super) fn json(mut self, body: Value) -> Self {
        self.body = Body::Json(body);
        self
    }

    pub(super) fn body(mut self, body: Body) -> Self {
        self.body = body;
        self
    }

    pub(super) fn effect(mut self, effect: RequestEffect) -> Self {
        self.effect = effect;
        self
    }

    pub(super) fn login(mut self, login: Login) -> Self {
        self.login = login;
        self
    }

    /// Returns the path with the fields of a form that are its query.
    pub fn target(&self) -> String {
        match (&self.body, self.method) {
            (Body::Form(fields), Method::Get) => format!("{}?{}", self.path, encoded(fields)),
            _ => self.path.clone(),
        }
    }

    /// Returns the bytes of the body.
    pub fn bytes(&self) -> Vec<u8> {
        match &self.body {
            Body::Nothing => Vec::new(),
            Body::Json(value) => value.to_string().into_bytes(),
            Body::Form(_) if self.method == Method::Get => Vec::new(),
            Body::Form(fields) => encoded(fields).into_bytes(),
            Body::Text(text) => text.as_bytes().to_vec(),
        }
    }

    /// Returns the headers but those of HTTP itself. They hold the credentials. `identity` names the request (OSB).
    pub fn headers(
        &self,
        dialect: Dialect,
        credentials: &ProviderCredentials,
        identity: &str,
    ) -> Vec<(&'static str, String)> {
        let mut headers = Vec::new();
        match &self.body {
            Body::Nothing => {}
            Body::Json(_) | Body::Text(_) => headers.push(("content-type", "application/json".into())),
            Body::Form(_) if self.method == Method::Get => {}
            Body::Form(_) => headers.push(("content-type", "application/x-www-form-urlencoded".into())),
        }
        if self.place == PathBase::SignOn {
            return headers;
        }
        let media = if dialect == Dialect::Heroku {
            HEROKU_MEDIA
        } else {
            "application/json"
        };
        headers.push(("accept", media.into()));
        let username = credentials.username.expose();
        let password = match self.login {
            Login::Right => Some(credentials.password.expose()),
            Login::Wrong => Some("wrong-password-of-a-conformance-test"),
            Login::Missing => None,
        };
        if let Some(password) = password {
            let encoded = STANDARD.encode(format!("{username}:{password}"));
            headers.push(("authorization", format!("Basic {encoded}")));
        }
        if dialect == Dialect::Osb {
            match self.version {
                Version::Usual => headers.push(("x-broker-api-version", OSB_VERSION.into())),
                Version::Other(version) => headers.push(("x-broker-api-version", version.into())),
                Version::Missing => {}
            }
            headers.push(("x-broker-api-request-identity", identity.into()));
            if let Some(originator) = self.originator {
                let encoded = STANDARD.encode(originator);
                headers.push(("x-broker-api-originating-identity", format!("cloudfoundry {encoded}")));
            }
        }
        headers
    }
}

fn encoded(fields: &FormFields) -> String {
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs(fields)
        .finish()
}

/// The body of an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum AnswerBody {
    /// The answer has no body.
    Empty,
    /// A JSON document.
    Json(Value),
    /// The beginning of something else.
    Other(String),
}

impl AnswerBody {
    /// Reads a body.
    pub fn parse(bytes: &[u8]) -> Self {
        if bytes.trim_ascii().is_empty() {
            return Self::Empty;
        }
        serde_json::from_slice(bytes).map_or_else(
            |_| Self::Other(String::from_utf8_lossy(bytes).chars().take(MAX_TEXT).collect()),
            Self::Json,
        )
    }
}

/// An answer of the provider.
#[derive(Debug, Clone, PartialEq)]
pub struct ProviderAnswer {
    /// The status code.
    pub status: u16,
    /// Value of `Content-Type`.
    pub media: Option<String>,
    /// Value of `X-Broker-API-Request-Identity` (OSB).
    pub identity: Option<String>,
    /// Value of `Retry-After`, in seconds.
    pub retry_after: Option<Duration>,
    /// The body.
    pub content: AnswerBody,
    /// Time from the request to the end of the answer.
    pub took: Duration,
}

/// Reason why no answer came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoAnswer {
    /// Description of the error.
    pub why: String,
    /// Whether the request, or a part of it, may have been sent.
    pub is_sent: bool,
}

/// End of an asynchronous operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum OperationEnd {
    Succeeded,
    /// The operation has failed, for this reason.
    Failed(String),
    /// The run stopped waiting for the end, for this reason.
    GivenUp(String),
}

/// A request with its answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct CheckExchange {
    pub(super) request: CheckRequest,
    pub(super) identity: String,
    pub(super) answer: ProviderAnswer,
    /// End of the operation, if the answer was that it is in progress.
    pub(super) end: Option<OperationEnd>,
}

impl CheckExchange {
    pub(super) fn status(&self) -> u16 {
        self.answer.status
    }

    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.answer.status) && matches!(self.end, None | Some(OperationEnd::Succeeded))
    }

    /// Returns the answer's body, if it is JSON.
    pub(super) fn json(&self) -> Option<&Value> {
        match &self.answer.content {
            AnswerBody::Json(value) => Some(value),
            AnswerBody::Empty | AnswerBody::Other(_) => None,
        }
    }

    /// Returns a member of the answer's body that is neither missing nor null.
    pub(super) fn member(&self, name: &str) -> Option<&Value> {
        self.json()?.get(name).filter(|value| !value.is_null())
    }
}
