//! What is to be said where a command works without the daemon: one was killed, listens elsewhere, or is of another network
//! namespace.

use std::path::Path;

use super::Global;
use crate::api::client::{self, Client, ClientError, Found};
use crate::daemon::presence::{self, Presence};
use crate::escape;
use crate::problem::{Kind, Problem};

impl Global {
    /// The daemon, or what is to be said of there being none.
    pub(super) fn daemon_or_why(&self) -> Result<Result<Client, Option<Problem>>, ClientError> {
        let named = self.socket.as_deref().filter(|socket| !socket.is_empty());
        Ok(match client::search(named.map(Path::new))? {
            Found::Daemon(client) => Ok(client),
            Found::Elsewhere(socket) => Err(Some(elsewhere(&socket))),
            Found::Nobody => Err(self.absent()),
        })
    }

    /// The daemon of this network namespace, of which nobody answered.
    pub(super) fn absent(&self) -> Option<Problem> {
        let namespace = client::namespace().ok()?;
        Some(match Presence::find(&self.run_dir, namespace)? {
            presence::Found::Gone(gone) => Problem::new(
                Kind::DaemonGone,
                format!(
                    "the daemon of this network namespace (process {}) was killed or has crashed: nothing probes, drains or repairs, so \
                     clients may be sent to backends that are gone; start it again (`systemctl start tcpgw`, or `tcpgw daemon`)",
                    gone.pid
                ),
            ),
            presence::Found::Running(there) => Problem::new(
                Kind::DaemonUnreachable,
                format!(
                    "the daemon of this network namespace (process {}) was not asked: it listens on {}, name that with --socket; if \
                     that file is gone, the daemon makes it again within some seconds",
                    there.pid,
                    escape::path(&there.socket)
                ),
            ),
        })
    }
}

fn elsewhere(socket: &Path) -> Problem {
    Problem::new(
        Kind::OtherNamespace,
        format!(
            "the daemon behind {} serves another network namespace than that of this command, which shows its own: run it there \
             (`nsenter -n`), or with `--socket none` where this one is meant",
            escape::path(socket)
        ),
    )
}
