//! Limits of the system, and the settings that fit into them.

use std::num::NonZeroUsize;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::api::descriptors::DescriptorBudget;
use crate::api::limits::READ_ONLY_ALL;
use crate::config::Config;
use crate::config::daemon::DaemonSettings;

/// Raises the limit of open files, since each probe in flight has a socket. The initial limit of service managers
/// (1,024) is meant for programs that use `select`.
pub(super) fn allow_many_sockets() {
    let raised =
        getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, most)| setrlimit(Resource::RLIMIT_NOFILE, most, most));
    if let Err(error) = raised {
        tracing::debug!(%error, "failed to raise the limit of open files");
    }
}

/// Listeners that are on besides the socket of the API.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Listeners {
    /// Whether the provider API is on.
    pub(super) addon: bool,
    /// Whether the web listener, for metrics, is on.
    pub(super) web: bool,
    /// Whether the read-only socket is on.
    pub(super) read_only: bool,
}

impl Listeners {
    /// Returns the listeners that settings and a configuration switch on.
    pub(super) fn of(settings: &DaemonSettings, config: &Config) -> Self {
        Self {
            addon: config.addon.is_some(),
            web: config.web.is_some(),
            read_only: settings.socket_readonly.is_some(),
        }
    }
}

/// Returns the number of probes that the limit of open files allows beside the API's connections, the store and
/// netlink.
pub(super) fn probes_within(wanted: NonZeroUsize, files: u64, listeners: Listeners) -> NonZeroUsize {
    const OTHERS: u64 = 320;
    /// Number of files that a listener needs besides its connections.
    const LISTENER: u64 = 10;
    let of = |is_on: bool, connections: usize| {
        let connections = u64::try_from(connections).unwrap_or(u64::MAX);
        if is_on { connections + LISTENER } else { 0 }
    };
    let budget = DescriptorBudget::of(files);
    let listeners = of(listeners.addon, budget.slots())
        + of(listeners.web, budget.web_slots())
        + of(listeners.read_only, READ_ONLY_ALL);
    let others = OTHERS + listeners;
    let room = usize::try_from(files.saturating_sub(others)).unwrap_or(usize::MAX);
    wanted.min(NonZeroUsize::new(room).unwrap_or(NonZeroUsize::MIN))
}

/// Returns the settings with `max_probes` reduced to what the limit of open files allows.
pub(super) fn within_limits(settings: DaemonSettings, config: &Config) -> DaemonSettings {
    let listeners = Listeners::of(&settings, config);
    let files = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(now, _)| now);
    let max_probes = probes_within(settings.max_probes, files, listeners);
    if max_probes < settings.max_probes {
        tracing::warn!(
            wanted = settings.max_probes,
            max_probes,
            "max_probes is more than the limit of open files ({files}) allows: raise LimitNOFILE"
        );
    }
    DaemonSettings { max_probes, ..settings }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_leave_files_for_everything_else() {
        let probes =
            |wanted, files| probes_within(NonZeroUsize::new(wanted).unwrap(), files, Listeners::default()).get();
        assert_eq!(probes(4096, 524_288), 4096);
        assert_eq!(probes(4096, 1024), 704);
        assert_eq!(probes(100, 1024), 100);
        assert_eq!((probes(4096, 40), probes(4096, 0)), (1, 1));
        assert_eq!(probes(16_384, u64::MAX), 16_384);
        let wanted = NonZeroUsize::new(4096).unwrap();
        let probes = |addon, web, read_only| {
            let listeners = Listeners { addon, web, read_only };
            probes_within(wanted, 1024, listeners).get()
        };
        assert_eq!(probes(true, false, false), 438);
        assert_eq!(probes(false, true, false), 438);
        assert_eq!(probes(true, true, false), 172);
        assert_eq!(probes(true, true, true), 114);
    }
}
