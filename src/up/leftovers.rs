//! Cleaning up: the links, rules and resource of an app, and the things that apps share, which the last app of a network
//! namespace removes.
//!
//! Every step can be repeated, and needs nothing that an earlier step has removed: if a process is killed while it cleans up,
//! the next one goes on.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::abandoned;
use super::egress;
use super::gateway;
use super::id::AppId;
use super::network::{LinkOwner, Network};
use super::own_daemon::{self, DaemonFiles, OwnDaemon};
use super::record::{AppDirectory, RecordPaths, SharedRecord};
use crate::api::client::{self, At, Client, ClientError, FoundDaemon};
use crate::api::socket;
use crate::app_link;
use crate::lock;
use tcpgw_kernel::route::Routes;

/// Maximum time for a daemon to end.
const PATIENCE: Duration = Duration::from_secs(20);
/// Time after which the user is told that tcpgw waits for a daemon to end.
const UNSAID: Duration = Duration::from_millis(300);
/// Whether this machine forwards IPv4 packets, in the network namespace of the thread that asks.
const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

/// Removes links and rules of an app. The rules are removed even if the removal of the links fails, and the other way
/// round.
///
/// # Errors
/// Fails with a message about what could not be removed, and why.
pub fn remove_network(network: &Network, id: &AppId) -> Result<(), String> {
    let rules = egress::remove(id).map_err(|error| format!("the table {}: {error}", egress::table_name(id)));
    let links = network
        .remove_all(id)
        .map_err(|error| format!("the links of app {id}: {error}"));
    rules.and(links.map(drop))
}

/// Switches forwarding on if it is off, and returns the names of the virtual links that existed then; `None`: it was on.
///
/// # Errors
/// Fails when the setting cannot be read or written, or the links cannot be listed.
pub fn forward() -> io::Result<Option<BTreeSet<String>>> {
    if fs::read_to_string(FORWARDING)?.trim() != "0" {
        return Ok(None);
    }
    let links = virtual_links()?;
    fs::write(FORWARDING, "1")?;
    Ok(Some(links))
}

/// Switches forwarding off again, unless links of other programs have appeared meanwhile: they may need it, and would not
/// switch it on again.
fn forward_no_more(before: &BTreeSet<String>) -> io::Result<()> {
    let now = virtual_links()?;
    let new: Vec<&str> = now.difference(before).map(String::as_str).collect();
    if !new.is_empty() {
        let new = tcpgw_core::escape::text(&new.join(", "));
        tracing::warn!("net.ipv4.ip_forward stays on, since links have appeared that may need it: {new}");
        return Ok(());
    }
    fs::write(FORWARDING, "0")
}

/// Bridges, tunnels and the like: links of other programs that forward.
fn virtual_links() -> io::Result<BTreeSet<String>> {
    let links = Routes::open()
        .and_then(|mut routes| routes.links())
        .map_err(io::Error::other)?;
    let links = links.into_iter().filter(|link| link.kind.is_some());
    Ok(links
        .map(|link| link.name)
        .filter(|name| !app_link::is_of_app(name))
        .collect())
}

/// Returns the directories of apps whose `tcpgw up` has ended here without cleaning up, and the ids of the apps that live: by
/// the locks of the run directory, and by the owners of links, which may have another run directory, or one that was removed.
///
/// # Errors
/// Fails when the run directory or the links cannot be listed.
pub fn survey(places: &RecordPaths, network: &Network) -> Result<(Vec<AppDirectory>, BTreeSet<String>), String> {
    let (dead, mut living) = places.leftovers().map_err(|error| error.to_string())?;
    let apps = network.apps().map_err(|error| error.to_string())?;
    let by_links = apps
        .into_iter()
        .filter(|(_, owner)| matches!(owner, LinkOwner::Living(_)));
    living.extend(by_links.map(|(id, _)| id));
    let dead = dead.into_iter().filter(|place| !living.contains(place.id())).collect();
    Ok((dead, living))
}

/// Returns the same, and removes at once the links and rules of apps without a resource, and of apps without a record whose
/// owners have ended. Those of other apps are removed with the resource ([`remove_apps`]): otherwise the daemon would report
/// that it cannot reach their processes.
///
/// # Errors
/// Fails with a message about what could not be removed.
pub fn sweep(places: &RecordPaths, network: &Network) -> Result<(Vec<AppDirectory>, usize), String> {
    let (dead, living) = survey(places, network)?;
    let has_no_resource = |place: &&AppDirectory| place.record().is_some_and(|record| record.app.is_none());
    remove_networks(places, network, dead.iter().filter(has_no_resource))?;
    for (id, owner) in network.apps().map_err(|error| error.to_string())? {
        let is_known = living.contains(&id) || dead.iter().any(|place| place.id() == id && place.record().is_some());
        let app = AppId::of_digits(&id).filter(|_| owner == LinkOwner::Ended && !is_known);
        if let Some(app) = app {
            remove_network(network, &app)?;
        }
    }
    Ok((dead, living.len()))
}

/// Removes links and rules of apps that have ended.
///
/// # Errors
/// Fails with a message about what could not be removed.
pub fn remove_networks<'p>(
    places: &RecordPaths,
    network: &Network,
    dead: impl IntoIterator<Item = &'p AppDirectory>,
) -> Result<(), String> {
    for record in dead.into_iter().filter_map(AppDirectory::record) {
        remove_network(network, &places.id_of(&record.directory))?;
    }
    Ok(())
}

/// Ends a daemon whose `tcpgw up` is gone, and waits until it has ended. Such a daemon was told to end, or soon will be;
/// meanwhile it does not answer, or answers and then ends, and keeps another one from starting. `say` gets a line if that takes
/// a while.
pub fn end_orphan(places: &RecordPaths, socket: &Path, is_alone: bool, say: &dyn Fn(&str)) {
    let shared = places.shared();
    let Some(expected) = shared.daemon else { return };
    let is_orphan = shared.starter.map_or(is_alone, |starter| !starter.lives());
    let (begin, mut is_told, mut is_said) = (Instant::now(), false, false);
    loop {
        let answering = Client::connect(socket)
            .and_then(|daemon| gateway::daemon(&daemon))
            .map(|daemon| daemon.pid);
        match answering {
            Ok(Some(process)) if process == expected && is_orphan => {
                if !std::mem::replace(&mut is_told, true) {
                    // The daemon itself has reported this process number.
                    let _ = kill(Pid::from_raw(process.cast_signed()), Signal::SIGTERM);
                }
            }
            Ok(_) => return,
            Err(_) if lock::held_by(places.run_dir(), places.namespace()).is_none() => return,
            // The daemon is starting or ending.
            Err(_) => {}
        }
        let waited = begin.elapsed();
        if waited >= PATIENCE {
            return;
        }
        if waited >= UNSAID && !std::mem::replace(&mut is_said, true) {
            say("waiting for the daemon of a `tcpgw up` that was killed to end");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Removes the resources of apps that have ended, their links and rules, and their records.
///
/// # Errors
/// Fails with the message of the daemon, or with one about what could not be removed.
pub fn remove_apps(
    daemon: &Client,
    places: &RecordPaths,
    network: &Network,
    dead: Vec<AppDirectory>,
) -> Result<(), String> {
    for place in dead {
        let app = place.record().and_then(|record| record.app);
        let deprovisioned = app.map_or(Ok(()), |app| {
            gateway::deprovision(daemon, &app).map_err(|error| format!("the resource of app {app}: {error}"))
        });
        remove_networks(places, network, [&place])?;
        deprovisioned?;
        place.remove();
    }
    Ok(())
}

/// Shared things that the last app of a network namespace removes.
#[derive(Debug)]
pub struct SharedCleanup<'a> {
    /// Files of the network namespace in the run directory.
    pub places: &'a RecordPaths,
    /// The daemon's socket.
    pub socket: &'a Path,
    /// Record of the things that apps share.
    pub shared: SharedRecord,
    /// Whether the daemon has services of others, which go on being served.
    pub serves_others: bool,
}

impl SharedCleanup<'_> {
    /// Removes the shared things, once no daemon runs that a `tcpgw up` has started; `teardown` removes the gateway's table.
    ///
    /// # Errors
    /// Fails with a message about what could not be removed.
    pub fn remove(self, teardown: &dyn Fn() -> Result<(), String>) -> Result<(), String> {
        if self.shared.daemon.is_some() && !self.serves_others {
            teardown()?;
        }
        if self.shared.daemon.is_some() {
            socket::remove_lock(self.socket);
        }
        if let Some(store) = self.shared.store.filter(|_| !self.serves_others) {
            own_daemon::remove_store(&store);
        }
        if let Some(before) = &self.shared.forwarding {
            forward_no_more(before).map_err(|error| format!("failed to switch forwarding off again: {error}"))?;
        }
        self.places
            .set_shared(&SharedRecord::default())
            .map_err(|error| error.to_string())
    }
}

/// Inputs of the cleaning.
pub struct Cleaning<'c> {
    /// Files of the network namespace in the run directory.
    pub places: &'c RecordPaths,
    /// The network.
    pub network: &'c Network,
    /// The daemon's socket.
    pub socket: &'c Path,
    /// The store of a daemon that is started.
    pub store: &'c Path,
    /// Quarantine of the ports of that store.
    pub rest: Duration,
    /// Removes the gateway's table, where no daemon runs.
    pub teardown: &'c dyn Fn() -> Result<(), String>,
    /// Gets lines for the user.
    pub say: &'c dyn Fn(&str),
}

/// Cleans up after apps whose `tcpgw up` was killed; returns their number, and the number of apps that live. Handles the apps
/// with a record in the run directory first, then those that only the store knows.
///
/// # Errors
/// Fails with a message about what could not be removed.
pub fn clean(cleaning: &Cleaning<'_>) -> Result<(usize, usize), String> {
    let Cleaning {
        places,
        network,
        socket,
        store,
        rest,
        teardown,
        say,
    } = *cleaning;
    let (number, living) = clean_recorded(places, network, socket, teardown, say)?;
    let lives = |id: &str| abandoned::lives(places, network, id);
    let abandoned = match client::search(At::Named(socket)) {
        Ok(FoundDaemon::Daemon(daemon)) => {
            gateway::wait_until_started(&daemon).map_err(|error| error.to_string())?;
            abandoned::remove(&daemon, &lives)?.len()
        }
        Ok(FoundDaemon::Nobody) | Err(ClientError::NoDaemon { .. }) if living == 0 => {
            let swept = abandoned::sweep_store(store, rest, &lives)?;
            if !swept.apps.is_empty() && !swept.serves_others {
                teardown()?;
            }
            if swept.is_of_up {
                own_daemon::remove_store(store);
            }
            swept.apps.len()
        }
        // Another app is to start a daemon, or it is one of another network namespace.
        _ => 0,
    };
    Ok((number + abandoned, living))
}

/// Cleans up after the apps with a record. A resource is removed by the daemon: by the running one, or by one that is started
/// for this, if a `tcpgw up` had started the earlier one.
///
/// # Errors
/// Fails with a message about what could not be removed.
fn clean_recorded(
    places: &RecordPaths,
    network: &Network,
    socket: &Path,
    teardown: &dyn Fn() -> Result<(), String>,
    say: &dyn Fn(&str),
) -> Result<(usize, usize), String> {
    let (dead, living) = sweep(places, network)?;
    let number = dead.len();
    let shared = places.shared();
    if number == 0 && (living > 0 || shared == SharedRecord::default()) {
        return Ok((0, living));
    }
    // Without the store there is no resource to remove, and a daemon would take the services from the kernel.
    let is_store_gone = shared.store.as_ref().is_some_and(|store| !store.exists());
    let has_resources = !is_store_gone
        && dead
            .iter()
            .any(|place| place.record().is_some_and(|record| record.app.is_some()));
    end_orphan(places, socket, living == 0, say);
    let mut own = None;
    let found = Client::connect(socket).ok();
    let daemon = match found {
        Some(daemon) => Some(daemon),
        None if has_resources && shared.daemon.is_some() => {
            let wanted = wanted(places, &shared, socket);
            let (started, _) = OwnDaemon::start(&wanted).map_err(|error| error.to_string())?;
            own = Some(started);
            Client::connect(socket).ok()
        }
        None => None,
    };
    let mut serves_others = false;
    match &daemon {
        Some(daemon) => {
            gateway::wait_until_started(daemon).map_err(|error| error.to_string())?;
            remove_apps(daemon, places, network, dead)?;
            serves_others = gateway::services_of(daemon).map_err(|error| error.to_string())? > 0;
        }
        None if has_resources => {
            remove_networks(places, network, &dead)?;
            return Err(
                "no daemon answers, and only a daemon removes the resources of the apps: start it, and repeat".into(),
            );
        }
        None => {
            remove_networks(places, network, &dead)?;
            dead.into_iter().for_each(AppDirectory::remove);
        }
    }
    let is_foreign = daemon.is_some() && own.is_none();
    if let Some(own) = own {
        own.stop();
    }
    if living == 0 {
        let serves_others = serves_others || is_foreign;
        let last = SharedCleanup {
            places,
            socket,
            shared,
            serves_others,
        };
        last.remove(teardown)?;
    }
    Ok((number, living))
}

/// Returns where the daemon of these apps keeps its things.
pub fn wanted(places: &RecordPaths, shared: &SharedRecord, socket: &Path) -> DaemonFiles {
    DaemonFiles {
        config: shared.config.clone().filter(|config| config.exists()),
        socket: socket.to_owned(),
        run_dir: places.run_dir().to_owned(),
    }
}
