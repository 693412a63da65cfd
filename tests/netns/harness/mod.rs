//! A gateway with everything around it, driven like a shell session.
//!
//! A [`Net`] is one set of namespaces drawn in `vagrant/topology`; it is gone when the value is dropped.

pub(crate) mod brief;
pub(crate) mod browser;
pub(crate) mod client;
pub(crate) mod conntrack;
pub(crate) mod counters;
pub(crate) mod daemon;
pub(crate) mod forge;
pub(crate) mod gateway_state;
pub(crate) mod iperf;
pub(crate) mod libraries;
pub(crate) mod pace;
pub(crate) mod plan;
pub(crate) mod sample;
pub(crate) mod server;
pub(crate) mod shell;
pub(crate) mod state;
pub(crate) mod views;
pub(crate) mod wire;

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Condvar, Mutex, Once, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

const TOPOLOGY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/vagrant/topology");
const NAMESPACES: &str = "/run/netns";
/// Pauses of [`wait_until`].
const SHORTEST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(30);

/// Name of the configuration of commands and daemons that name none.
const SETTINGS: &str = "usual.toml";

/// A topology of its own, and a directory for its files.
pub(crate) struct Net {
    prefix: String,
    dir: tempfile::TempDir,
    /// Whether commands read the configuration at its default path.
    has_own_etc: AtomicBool,
    _permit: TopologyPermit,
}

impl Net {
    /// Makes a topology beside those of other tests.
    pub(crate) fn new() -> Self {
        Self::during(TopologyPermit::shared())
    }

    /// Makes a topology while no other test has one: for measurements.
    pub(crate) fn alone() -> Self {
        Self::during(TopologyPermit::alone())
    }

    fn during(permit: TopologyPermit) -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        static PREPARED: Once = Once::new();
        assert!(
            nix::unistd::geteuid().is_root(),
            "needs root for network namespaces: run scripts/test"
        );
        PREPARED.call_once(|| {
            remove_leftovers();
            allow_many_sockets();
        });
        let prefix = format!("tcpgw-{}-{}", process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        topology("up", &prefix);
        let dir = tempfile::tempdir().expect("failed to make a directory");
        // Commands that name no socket find no daemon, whatever runs on this machine.
        let nobody = dir.path().join("nobody.sock");
        let settings = format!("[daemon]\nsocket = \"{}\"\n", nobody.to_string_lossy());
        fs::write(dir.path().join(SETTINGS), settings).expect("failed to write the configuration");
        Self {
            prefix,
            dir,
            has_own_etc: AtomicBool::new(false),
            _permit: permit,
        }
    }

    /// Returns the prefix of the names of this topology's namespaces.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Returns the path of a file that is removed with this topology.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Returns the environment that keeps tcpgw away from files of the machine: run directory, store, configuration and the
    /// usual socket are those of this topology.
    pub(crate) fn environment(&self) -> Vec<(&'static str, PathBuf)> {
        let mut variables = vec![
            ("TCPGW_RUN_DIR", self.file("run")),
            ("TCPGW_STORE", self.file("store.db")),
        ];
        if !self.has_own_etc.load(Ordering::Relaxed) {
            variables.push(("TCPGW_CONFIG", self.file(SETTINGS)));
        }
        variables
    }

    /// Lets commands read the configuration at its default path, for a test that has a `/etc` of its own.
    pub(crate) fn use_own_etc(&self) {
        self.has_own_etc.store(true, Ordering::Relaxed);
    }

    /// Runs `work` in the host's namespace. Sockets that it makes stay there.
    ///
    /// Files under `/proc/self/net` are the process's: read `/proc/thread-self/net`.
    pub(crate) fn within<T: Send>(&self, host: &str, work: impl FnOnce() -> T + Send) -> T {
        let place = self.place(host);
        let done = thread::scope(|scope| {
            let entered = move || {
                place.enter();
                work()
            };
            scope.spawn(entered).join()
        });
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    pub(crate) fn place(&self, host: &str) -> Place {
        let path = Path::new(NAMESPACES).join(self.namespace(host));
        Place(File::open(&path).unwrap_or_else(|e| panic!("failed to open {}: {e}", path.to_string_lossy())))
    }

    pub(crate) fn namespace(&self, host: &str) -> String {
        format!("{}-{host}", self.prefix)
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        topology("down", &self.prefix);
    }
}

/// A namespace that a thread can enter.
pub(crate) struct Place(File);

impl Place {
    /// Moves the calling thread there for good.
    pub(crate) fn enter(&self) {
        setns(&self.0, CloneFlags::CLONE_NEWNET).expect("failed to enter a network namespace");
    }
}

/// Polls until `condition` holds, and says whether it did in time.
///
/// The longer it has waited, the longer are its pauses: most conditions are a request or a process, and the processor that
/// they take is what other tests wait for.
///
/// Times of [`client::PATIENCE`] and more keep a test from hanging and measure nothing: they are three times as long, for
/// machines on which much else runs.
pub(crate) fn wait_until(timeout: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let timeout = if timeout < client::PATIENCE {
        timeout
    } else {
        timeout * 3
    };
    let start = Instant::now();
    loop {
        if condition() {
            return true;
        }
        let waited = start.elapsed();
        if waited >= timeout {
            return false;
        }
        thread::sleep((waited / 16).clamp(SHORTEST_PAUSE, LONGEST_PAUSE));
    }
}

/// Returns the names of the namespaces that begin with `prefix`.
pub(crate) fn namespaces(prefix: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(NAMESPACES) else {
        return Vec::new();
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| name.starts_with(prefix)).collect()
}

/// The right to have a topology: some at a time, or one alone. A test that wants to be alone waits until no other test wants a
/// topology.
struct TopologyPermit {
    weight: usize,
}

static TAKEN: Mutex<usize> = Mutex::new(0);
static FREED: Condvar = Condvar::new();
const ALL: usize = usize::MAX / 2;
/// Environment variable with the largest number of topologies at a time. `vagrant/test` sets it below the number of threads, so
/// that tests that wait to be alone keep no other test from running.
const MOST_TOPOLOGIES: &str = "TCPGW_MOST_TOPOLOGIES";

impl TopologyPermit {
    fn shared() -> Self {
        static MOST: OnceLock<usize> = OnceLock::new();
        let most = || env::var(MOST_TOPOLOGIES).map_or(ALL, |most| most.parse().expect("a number of topologies"));
        let most = *MOST.get_or_init(most);
        Self::take(1, |taken| taken < most)
    }

    fn alone() -> Self {
        Self::take(ALL, |taken| taken == 0)
    }

    fn take(weight: usize, free: impl Fn(usize) -> bool) -> Self {
        let taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = FREED
            .wait_while(taken, |taken| !free(*taken))
            .unwrap_or_else(PoisonError::into_inner);
        *taken += weight;
        Self { weight }
    }
}

impl Drop for TopologyPermit {
    fn drop(&mut self) {
        *TAKEN.lock().unwrap_or_else(PoisonError::into_inner) -= self.weight;
        FREED.notify_all();
    }
}

fn topology(verb: &str, prefix: &str) {
    let output = Command::new(TOPOLOGY)
        .args([verb, prefix])
        .output()
        .expect("failed to run vagrant/topology");
    let trouble = String::from_utf8_lossy(&output.stderr);
    // A second panic while a test unwinds would abort the whole run.
    if !output.status.success() && thread::panicking() {
        eprintln!("topology {verb} {prefix}: {trouble}");
        return;
    }
    assert!(output.status.success(), "topology {verb} {prefix}: {trouble}");
}

/// Takes down what a test run that was killed has left.
fn remove_leftovers() {
    for name in namespaces("tcpgw-") {
        let Some((prefix, "gateway")) = name.rsplit_once('-') else {
            continue;
        };
        let Some(pid) = prefix.split('-').nth(1) else { continue };
        // A zombie has a directory there, but no program.
        let runs = fs::read_link(format!("/proc/{pid}/exe")).is_ok();
        if !runs {
            topology("down", prefix);
        }
    }
}

fn allow_many_sockets() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("failed to read the limit of open files");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("failed to raise the limit of open files");
}
