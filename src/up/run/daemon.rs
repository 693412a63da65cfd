//! The daemon that `tcpgw up` starts.

use std::os::unix::net::UnixStream;

use super::Up;
use super::output::pass_on;
use crate::up::error::{UpError, system};
use crate::up::network::gateway_of;
use crate::up::own_daemon::{self, OwnDaemon};

impl Up<'_> {
    /// Starts a daemon, and notes that.
    pub(super) fn start_daemon(&mut self) -> Result<(), UpError> {
        let settings = self.settings;
        let mut shared = self.places.shared();
        let config = if settings.has_addon {
            settings.config.clone()
        } else {
            let host = gateway_of(self.subnet);
            let directory = self.places.shared_directory()?;
            Some(own_daemon::write_configuration(
                &directory,
                &settings.text,
                host,
                settings.port,
            )?)
        };
        if shared.store.is_none() && !settings.store.exists() {
            shared.store = Some(settings.store.clone());
        }
        shared.config.clone_from(&config);
        // Recorded before the daemon starts: a later clean-up must know that there may be a table.
        shared.daemon = Some(0);
        shared.starter = Some(self.owner.clone());
        self.places.set_shared(&shared)?;
        let wanted = own_daemon::DaemonFiles {
            config,
            socket: settings.socket.clone(),
            run_dir: self.places.run_dir().to_owned(),
        };
        let (daemon, log) = OwnDaemon::start(&wanted)?;
        shared.daemon = Some(daemon.id());
        self.daemon = Some(daemon);
        self.keeps_daemon = true;
        self.places.set_shared(&shared)?;
        pass_on(log, self.output.clone()).map_err(system("start a thread"))
    }

    /// Starts a daemon in the place of one that is gone, unless another app has done so.
    pub(super) fn replace_daemon(&mut self) -> Result<(), UpError> {
        let _lock = self.places.lock()?;
        if UnixStream::connect(&self.settings.socket).is_ok() {
            return Ok(());
        }
        self.output.say("system", "the daemon has ended: starting another");
        self.start_daemon()
    }
}
