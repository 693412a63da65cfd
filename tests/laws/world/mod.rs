//! The world that the laws of the daemon are about: the daemon's core over a kernel in memory, with its store, its state file,
//! containers, other programs on the gateway, and clocks. Time passes only when nothing else is due.
//!
//! It knows no law. The clients of a law, what they ask and what they may expect, are [`Clients`] of its own.

pub(crate) mod clients;
pub(crate) mod clock;
pub(crate) mod containers;
mod daemon;
pub(crate) mod examinations;
pub(crate) mod kernel;
mod record;
pub(crate) mod state_file;
pub(crate) mod storage;
pub(crate) mod surroundings;

use tcpgw::config::Config;
use tcpgw::config::daemon::DaemonSettings;
use tcpgw::control::core::{Core, Now};
use tcpgw::reconcile::engine::Engine;
use tcpgw::record::boot_id;
use tcpgw_core::ruleset::links::Links;
use tcpgw_kernel::fake::Fake;

pub(crate) use self::clients::Clients;
use self::clock::Clock;
use self::containers::Containers;
use self::examinations::Examinations;
use self::state_file::StateFile;
use self::storage::Storage;
use self::surroundings::Surroundings;
use crate::states::links;

/// Network namespace of the daemon, which names its record.
pub(crate) const NAMESPACE: u64 = 7;

/// A gateway with a daemon that may be killed and started again, and the clients `C` of that daemon.
pub(crate) struct World<C> {
    pub(crate) core: Core,
    engine: Option<Engine<Fake>>,
    /// `None` for a daemon that has no store.
    storage: Option<Storage>,
    directory: tempfile::TempDir,
    pub(crate) clock: Clock,
    /// Configuration that the next daemon reads.
    pub(crate) config: Config,
    /// Id of the kernel's boot.
    pub(crate) boot: String,
    pub(crate) file: StateFile,
    pub(crate) links: Links,
    pub(crate) examinations: Examinations,
    pub(crate) surroundings: Surroundings,
    pub(crate) containers: Containers,
    pub(crate) jobs: Jobs,
    /// Number of times that all services were judged by the state of the gateway.
    pub(crate) judgements: usize,
    /// True while the kernel may differ from what the daemon wants, because it failed.
    pub(crate) is_troubled: bool,
    pub(crate) clients: C,
}

/// Numbers of jobs of the kernel's thread.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Jobs {
    /// Jobs that read the whole table.
    pub(crate) whole_table: usize,
    /// Jobs that only delete flows.
    pub(crate) flushes: usize,
}

impl<C: Clients> World<C> {
    /// Returns a world in which no daemon runs yet; [`Self::start`] starts one.
    pub(crate) fn without_daemon(clients: C) -> Self {
        // Every write waits for the disk: one of memory is faster.
        let directory = tempfile::tempdir_in("/dev/shm")
            .or_else(|_| tempfile::tempdir())
            .unwrap();
        let clock = Clock::new();
        Self {
            core: Core::new(DaemonSettings::default(), Config::default(), NAMESPACE, clock.time()),
            engine: None,
            storage: Some(Storage::new(directory.path())),
            directory,
            clock,
            config: Config::default(),
            boot: boot_id(),
            file: StateFile::default(),
            links: links(),
            examinations: Examinations::default(),
            surroundings: Surroundings::default(),
            containers: Containers::default(),
            jobs: Jobs::default(),
            judgements: 0,
            is_troubled: false,
            clients,
        }
    }

    /// Takes the store away: the next daemon has none.
    pub(crate) fn remove_store(&mut self) {
        self.storage = None;
    }

    pub(crate) fn time(&self) -> Now {
        self.clock.time()
    }

    /// Returns the settings of the next daemon.
    pub(crate) fn settings(&self) -> DaemonSettings {
        let settings = DaemonSettings {
            state: self.file.is_named.then(|| self.file.path.clone()),
            allow_empty: self.file.may_be_empty,
            ..DaemonSettings::default()
        };
        match &self.storage {
            Some(storage) => DaemonSettings {
                store: storage.path().to_owned(),
                ..settings
            },
            None => settings,
        }
    }
}
