//! Orders from the dashboard: pause, resume, drain, use again, roll back.
//!
//! Each is asked twice: a link leads to a page that says what will happen, and the form of that page orders it. Browsers send the
//! credentials of this listener on requests that other sites make, so an order also needs a value that only that page has, and must
//! come from this site. Without `web.token_file` there are no orders.

mod form_key;
mod orders;
mod pages;
mod same_site;
mod wanted;

use std::net::IpAddr;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use tokio::sync::mpsc;
use tokio::time::timeout;

use self::form_key::{FormKey, FormValue};
use self::orders::{ActionOrders, RefusedAction};
use self::pages::{confirmation, done, refusal};
pub(super) use self::wanted::WantedAction;
use super::site::Web;
use crate::api::author;
use crate::api::limits::Times;
use crate::api::listener::Site as _;
use crate::control::request::DaemonRequest;
use crate::date::since_1970;
use crate::secrets::Secret;

/// The largest form.
const FORM: usize = 4 << 10;
const FORM_TYPE: &str = "application/x-www-form-urlencoded";
const READ_ONLY: &str = "This dashboard is read-only. To order something here, set web.token_file in the configuration, or use the \
                         command line: tcpgw pause, resume, drain, rollback.";

/// Orders from the dashboard.
pub(super) struct WebActions {
    orders: ActionOrders,
    times: Times,
    /// Key of the values in forms; `None`: the system gave no random numbers.
    key: Option<FormKey>,
}

/// Fields of a form.
struct ActionFields {
    token: String,
    time: Option<String>,
}

/// A form of this site, which orders now: its value, and the duration that it has.
struct JudgedForm {
    value: FormValue,
    time: Option<String>,
}

impl WebActions {
    pub(super) fn new(requests: mpsc::Sender<DaemonRequest>, times: Times) -> Self {
        Self {
            orders: ActionOrders::new(requests, times),
            times,
            key: FormKey::new().ok(),
        }
    }

    /// Asks whether something is to be done.
    pub(super) async fn ask(&self, site: &Web, action: &WantedAction) -> Response<Body> {
        let (key, token) = match self.may_order(site) {
            Ok(both) => both,
            Err((status, text)) => return refusal(status, &text, action),
        };
        match self.orders.describe(action).await {
            Ok(question) => {
                let token = key.token(token, &action.to_string(), since_1970());
                confirmation(action, &question, &token)
            }
            Err((status, text)) => refusal(status, &text, action),
        }
    }

    /// Carries out an order, if the form of this site orders it.
    pub(super) async fn order(
        &self,
        site: &Web,
        from: IpAddr,
        action: &WantedAction,
        parts: &Parts,
        body: Body,
    ) -> Response<Body> {
        match self.judge(site, action, &parts.headers, body).await {
            Ok(form) => {
                tracing::info!(%from, %action, "ordered through the dashboard");
                let by = author::daemon(Some(from));
                match self.orders.carry_out(action, form.time.as_deref(), by).await {
                    Ok(()) => done(action),
                    Err((status, text)) => {
                        // After other errors it is not known whether something was done.
                        if let Some(key) = self.key.as_ref().filter(|_| status.is_client_error()) {
                            key.give_back(form.value);
                        }
                        refusal(status, &text, action)
                    }
                }
            }
            Err((status, text)) => {
                tracing::warn!(%from, %action, "refused an order through the dashboard: {text}");
                refusal(status, &text, action)
            }
        }
    }

    fn may_order<'s>(&self, site: &'s Web) -> Result<(&FormKey, &'s Secret), RefusedAction> {
        let Some(token) = &site.token else {
            return Err((StatusCode::FORBIDDEN, READ_ONLY.into()));
        };
        let no_key = || {
            let text = "The system gave no random numbers when the daemon started: nothing can be ordered here.";
            (StatusCode::SERVICE_UNAVAILABLE, text.into())
        };
        Ok((self.key.as_ref().ok_or_else(no_key)?, token))
    }

    /// Reads a form, and checks that it is one of this site for this action, and was not sent before.
    async fn judge(
        &self,
        site: &Web,
        action: &WantedAction,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<JudgedForm, RefusedAction> {
        let (key, token) = self.may_order(site)?;
        if !same_site::is_own(headers, site.is_behind_proxy()) {
            let text = "This order did not come from a page of this dashboard: nothing was done. Open the page here, and order it there.";
            return Err((StatusCode::FORBIDDEN, text.into()));
        }
        let media = headers.get(header::CONTENT_TYPE).and_then(|media| media.to_str().ok());
        let media = media.and_then(|media| media.split(';').next()).unwrap_or_default();
        if !media.trim().eq_ignore_ascii_case(FORM_TYPE) || headers.contains_key(header::CONTENT_ENCODING) {
            let text = format!("An order is a form ({FORM_TYPE}): nothing was done.");
            return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
        }
        let text = self.read(body).await?;
        let fields = fields(&text);
        let now = since_1970();
        let Some(value) = key.read(token, &action.to_string(), &fields.token, now) else {
            let text =
                "This form is too old, or the daemon was started anew since: nothing was done. Order it once more.";
            return Err((StatusCode::FORBIDDEN, text.into()));
        };
        if !key.spend(value, now) {
            let text = "This form was sent before, and orders once: nothing was done this time. Go back to the page, and order it there \
                        once more if you mean it.";
            return Err((StatusCode::CONFLICT, text.into()));
        }
        let time = fields.time;
        Ok(JudgedForm { value, time })
    }

    async fn read(&self, body: Body) -> Result<Vec<u8>, RefusedAction> {
        match timeout(self.times.body_piece, Limited::new(body, FORM).collect()).await {
            Ok(Ok(body)) => Ok(body.to_bytes().to_vec()),
            Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
                let text = format!("The form has more than {FORM} bytes: nothing was done.");
                Err((StatusCode::PAYLOAD_TOO_LARGE, text))
            }
            Ok(Err(_)) => Err((
                StatusCode::BAD_REQUEST,
                "The form could not be read: nothing was done.".into(),
            )),
            Err(_) => Err((
                StatusCode::REQUEST_TIMEOUT,
                "The form did not come in time: nothing was done.".into(),
            )),
        }
    }
}

fn fields(text: &[u8]) -> ActionFields {
    let field = |wanted: &str| {
        let mut pairs = form_urlencoded::parse(text);
        pairs
            .find(|(name, _)| name == wanted)
            .map(|(_, value)| value.into_owned())
    };
    ActionFields {
        token: field("token").unwrap_or_default(),
        time: field("for"),
    }
}

#[cfg(test)]
mod tests;
