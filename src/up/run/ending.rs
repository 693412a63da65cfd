//! End of `tcpgw up`: removes the things that it has made, and, as the last app, those that apps share.

use std::os::unix::net::UnixStream;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use super::Up;
use super::event::UpEvent;
use crate::api::client::Client;
use crate::up::control::UpAnswer;
use crate::up::error::UpError;
use crate::up::gateway::{self, GatewayEvent};
use crate::up::leftovers::{self, SharedCleanup};

/// Maximum time for the daemon to remove the resource after all processes have ended.
const END: Duration = Duration::from_secs(6);
/// Maximum time for the daemon to remove the resource after a second signal.
const END_AT_ONCE: Duration = Duration::from_secs(1);

impl Up<'_> {
    /// Removes everything that the app has on this machine.
    pub(super) fn finish(mut self, heard: &Receiver<UpEvent>, at_once: bool) -> Result<(), UpError> {
        let (begin, most) = (Instant::now(), if at_once { END_AT_ONCE } else { END });
        while self.orders.is_some() && self.end.is_none() && begin.elapsed() < most {
            match heard.recv_timeout(most.saturating_sub(begin.elapsed())) {
                Ok(UpEvent::Gateway(GatewayEvent::Ended(outcome))) => self.end = Some(outcome),
                Ok(UpEvent::Signal(_)) | Err(_) => break,
                Ok(_) => {}
            }
        }
        let mut left = Vec::new();
        let is_deprovisioned = self.orders.is_none() || matches!(self.end, Some(Ok(())));
        if let Some(Err(why)) = &self.end {
            left.push(format!("the resource of the app: {why}"));
        } else if !is_deprovisioned {
            left.push("the resource of the app: the daemon has not answered".into());
        }
        self.one_offs.clear();
        let clients = std::mem::take(&mut self.stop_clients);
        if let Err(why) = self.leave(is_deprovisioned) {
            left.push(why);
        }
        for client in clients {
            let _ = client.try_send(UpAnswer::Done);
        }
        if left.is_empty() {
            Ok(())
        } else {
            Err(UpError::Left(left.join("; ")))
        }
    }

    /// Removes the shared things, if this is the last app.
    pub(super) fn leave(self, is_deprovisioned: bool) -> Result<(), String> {
        let Self {
            places,
            place,
            daemon,
            settings,
            network,
            id,
            ..
        } = self;
        let lock = places.lock().map_err(|error| error.to_string())?;
        let shared = places.shared();
        let serves_others = match (&daemon, Client::connect(&settings.socket)) {
            (_, Ok(daemon)) => gateway::services_of(&daemon).map_or(true, |number| number > 0),
            (Some(_), Err(_)) => true,
            (None, Err(_)) => false,
        };
        let is_own = daemon.is_some();
        // Before its links go, which it would have to say something of.
        if let Some(daemon) = daemon {
            daemon.stop();
        }
        let removed = leftovers::remove_network(&network, &id);
        // A network that could not be removed is left for `tcpgw up stop`.
        if is_deprovisioned && removed.is_ok() {
            place.remove();
        } else {
            drop(place);
        }
        removed?;
        let (dead, living) = leftovers::survey(&places, &network)?;
        if !living.is_empty() || !dead.is_empty() {
            return Ok(());
        }
        let serves_others = serves_others || (!is_own && UnixStream::connect(&settings.socket).is_ok());
        let last = SharedCleanup {
            places: &places,
            socket: &settings.socket,
            shared,
            serves_others,
        };
        last.remove(settings.teardown)?;
        lock.discard();
        Ok(())
    }
}
