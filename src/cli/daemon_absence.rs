//! Problems to report where a command works without the daemon: the daemon was killed, listens elsewhere, or is of another
//! network namespace.

use std::path::Path;

use super::global::Global;
use crate::api::client::{self, Client, ClientError, FoundDaemon};
use crate::daemon::presence::{self, Presence};
use crate::lock;
use tcpgw_core::escape;
use tcpgw_core::problem::{Problem, ProblemKind};

impl Global {
    /// Returns the daemon, or the problem to report if there is none.
    pub(super) fn daemon_or_why(&self) -> Result<Result<Client, Option<Problem>>, ClientError> {
        Ok(match client::search(self.socket_at())? {
            FoundDaemon::Daemon(client) => Ok(client),
            FoundDaemon::Elsewhere(socket) => Err(Some(elsewhere(&socket))),
            FoundDaemon::Nobody => Err(self.absent()),
        })
    }

    /// Returns the process of the daemon that runs in this network namespace, as far as its file in the run directory tells.
    pub(super) fn running_daemon(&self) -> Option<u32> {
        match Presence::find(&self.run_dir, client::namespace().ok()?) {
            Some(presence::PresenceState::Running(there)) => Some(there.pid),
            _ => None,
        }
    }

    /// Returns the problem to report about the daemon of this network namespace, which was not asked: it was killed, or it is
    /// running. A daemon whose file is missing (it was removed, or the daemon is of an older version) is recognized by the
    /// lock.
    pub(super) fn absent(&self) -> Option<Problem> {
        let namespace = client::namespace().ok()?;
        match Presence::find(&self.run_dir, namespace) {
            Some(presence::PresenceState::Gone(gone)) => Some(Problem::new(
                ProblemKind::DaemonGone,
                format!(
                    "the daemon of this network namespace (process {}) was killed or has crashed: nothing probes, drains or repairs, so \
                     clients may be sent to backends that are gone; start it again (`systemctl start tcpgw`, or `tcpgw daemon`)",
                    gone.pid
                ),
            )),
            Some(presence::PresenceState::Running(there)) => Some(not_asked(
                &format!("process {}", there.pid),
                &format!("it listens on {}", escape::path(&there.socket)),
            )),
            None => {
                let holder = lock::held_by(&self.run_dir, namespace).filter(|holder| holder.contains(" daemon"))?;
                Some(not_asked(&holder, "where it listens is not known"))
            }
        }
    }
}

fn not_asked(who: &str, listens: &str) -> Problem {
    Problem::new(
        ProblemKind::DaemonUnreachable,
        format!(
            "the daemon of this network namespace ({who}) was not asked: {listens}, name that with --socket; if the file is gone, the \
             daemon makes it again within some seconds"
        ),
    )
}

pub(super) fn elsewhere(socket: &Path) -> Problem {
    Problem::new(
        ProblemKind::OtherNamespace,
        format!(
            "the daemon behind {} serves another network namespace than that of this command, which shows its own: run it there \
             (`nsenter -n`), or with `--socket none` where this one is meant",
            escape::path(socket)
        ),
    )
}
