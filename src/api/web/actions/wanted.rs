//! Actions by their paths.

use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use tcpgw_core::escape;
use tcpgw_core::model::Endpoint;

/// Characters that a segment of a path or a value of a query may not have as they are.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b':');

/// An action of the dashboard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::api::web) enum WantedAction {
    /// Hold back new connections to a service for a time.
    Pause(Box<str>),
    /// End the pause of a service.
    Resume(Box<str>),
    /// Send no new connections to a backend of a service.
    Drain(Box<str>, Endpoint),
    /// Send new connections to a backend again.
    Undrain(Box<str>, Endpoint),
    /// End a deploy, or take it back.
    Rollback(u64),
}

impl fmt::Display for WantedAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pause(service) => write!(f, "pause {}", escape::text(service)),
            Self::Resume(service) => write!(f, "resume {}", escape::text(service)),
            Self::Drain(service, backend) => write!(f, "drain {} {backend}", escape::text(service)),
            Self::Undrain(service, backend) => write!(f, "undrain {} {backend}", escape::text(service)),
            Self::Rollback(id) => write!(f, "rollback {id}"),
        }
    }
}

impl WantedAction {
    /// Returns the action that a path and a query name; `None`: none.
    pub(in crate::api::web) fn read(segments: &[&str], query: &str) -> Option<Self> {
        let backend = || {
            let mut pairs = form_urlencoded::parse(query.as_bytes());
            pairs.find(|(name, _)| name == "backend")?.1.parse().ok()
        };
        let name = |text: &str| Some(Box::from(&*percent_decode_str(text).decode_utf8().ok()?));
        match *segments {
            ["services", service, "pause"] => Some(Self::Pause(name(service)?)),
            ["services", service, "resume"] => Some(Self::Resume(name(service)?)),
            ["services", service, "drain"] => Some(Self::Drain(name(service)?, backend()?)),
            ["services", service, "undrain"] => Some(Self::Undrain(name(service)?, backend()?)),
            ["deploys", id, "rollback"] => Some(Self::Rollback(id.parse().ok()?)),
            _ => None,
        }
    }

    /// Returns the URL of the page that asks.
    pub(in crate::api::web) fn url(&self) -> String {
        let page = self.page();
        let encoded = |backend: &Endpoint| utf8_percent_encode(&backend.to_string(), ENCODED).to_string();
        match self {
            Self::Pause(_) => format!("{page}/pause"),
            Self::Resume(_) => format!("{page}/resume"),
            Self::Drain(_, backend) => format!("{page}/drain?backend={}", encoded(backend)),
            Self::Undrain(_, backend) => format!("{page}/undrain?backend={}", encoded(backend)),
            Self::Rollback(_) => format!("{page}/rollback"),
        }
    }

    /// Returns the URL of the page of what it changes.
    pub(super) fn page(&self) -> String {
        match self {
            Self::Pause(service) | Self::Resume(service) | Self::Drain(service, _) | Self::Undrain(service, _) => {
                format!("/services/{}", utf8_percent_encode(service, ENCODED))
            }
            Self::Rollback(id) => format!("/deploys/{id}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_one_action_and_each_has_a_path() {
        let backend = "[2001:db8::1]:80".parse().unwrap();
        for action in [
            WantedAction::Pause("web".into()),
            WantedAction::Resume("a b/<c>".into()),
            WantedAction::Drain("web".into(), backend),
            WantedAction::Undrain("web".into(), "10.0.0.1:80".parse().unwrap()),
            WantedAction::Rollback(7),
        ] {
            let url = action.url();
            let (path, query) = url.split_once('?').unwrap_or((&url, ""));
            let segments: Vec<&str> = path.split('/').skip(1).collect();
            assert_eq!(WantedAction::read(&segments, query), Some(action), "{url}");
        }
        for (segments, query) in [
            (&["services", "web"][..], ""),
            (&["services", "web", "drain"], ""),
            (&["services", "web", "drain"], "backend=x"),
            (&["services", "web", "delete"], ""),
            (&["services", "%ff", "pause"], ""),
            (&["services", "web", "pause", ""], ""),
            (&["deploys", "-1", "rollback"], ""),
            (&["deploys", "1"], ""),
        ] {
            assert_eq!(WantedAction::read(segments, query), None, "{segments:?}");
        }
    }
}
