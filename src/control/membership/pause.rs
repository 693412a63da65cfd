//! Pauses of services.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::control::request::PauseView;

/// A pause of a service's new connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pause {
    /// Time at which new connections are accepted again.
    pub until: Instant,
    /// Duration of the whole pause.
    pub time: Duration,
    /// Begin, in seconds since the Unix epoch.
    pub since: u64,
    /// User id of the client that ordered it.
    pub uid: u32,
    /// Address of the browser, if it was ordered through the dashboard.
    pub browser: Option<IpAddr>,
}

impl Pause {
    /// Returns the pause for display.
    pub fn view(&self) -> PauseView {
        PauseView {
            since: self.since,
            until: self.since + self.time.as_secs(),
            uid: self.uid,
            browser: self.browser,
        }
    }
}
