//! The exchange with an engine as long as it is followed: connect, read events, list, and connect again.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::time::{sleep, sleep_until};

use super::decode::{ContainerEntry, ContainerFacts};
use super::engine::{EngineClient, EngineError, EventStream};
use super::news::{DockerNews, DockerSnapshot};
use super::tracker::{ListedContainer, TrackedContainers, Tracker, TrackerWork};
use tcpgw_core::container::{RunState, is_addressed, services_of};
use tcpgw_core::escape;
use tcpgw_core::model::Fences;

/// Pause before the first attempt to connect again, which doubles with each further one.
const AGAIN: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Time before the first connection whose events are read, too: a container may have been told to stop just before.
const EARLIER: Duration = Duration::from_secs(120);
/// Time by which events of a new connection overlap those of the last one.
const OVERLAP: u64 = 1_000_000_000;

/// An engine to follow, and the bounds of what its containers may have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DockerSettings {
    /// The socket of the engine.
    pub socket: PathBuf,
    /// Bounds of ports and backends.
    pub fences: Fences,
}

/// Containers of a list, with their configurations and the drivers of their networks, by id.
struct EngineList {
    containers: Vec<ListedContainer>,
    known: KnownConfigurations,
}

/// Configurations of containers and drivers of networks, which do not change.
#[derive(Debug, Clone, Default)]
struct KnownConfigurations {
    facts: Arc<BTreeMap<String, ContainerFacts>>,
    drivers: Arc<BTreeMap<String, String>>,
}

type Listing<'l> = Pin<Box<dyn Future<Output = Result<EngineList, EngineError>> + Send + 'l>>;

/// Follows an engine until `settings` is closed. Sends what is known of it, whenever that changes.
pub async fn follow(mut settings: watch::Receiver<DockerSettings>, news: watch::Sender<DockerNews>) {
    let mut follower = EngineFollower {
        tracker: Tracker::new(Instant::now()),
        last_event: None,
        containers: None,
        known: KnownConfigurations::default(),
        news,
    };
    let mut pause = AGAIN;
    loop {
        let current = settings.borrow_and_update().clone();
        follower.publish(&current);
        let ended = follower.serve(&current.socket, &mut settings).await;
        follower.tracker.disconnected();
        let (error, has_answered) = match ended {
            Ok(EngineEnd::Closed) => return,
            Ok(EngineEnd::OtherSocket) => {
                follower.forget();
                pause = AGAIN;
                continue;
            }
            Err(error) => error,
        };
        if has_answered {
            // Whether it is away, the next attempt tells.
            tracing::info!("lost the connection to Docker's engine, trying again: {error}");
            pause = AGAIN;
        } else {
            follower.trouble(&current, &error);
        }
        tokio::select! {
            () = sleep(pause) => {}
            changed = settings.changed() => if changed.is_err() { return },
        }
        pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
    }
}

/// End of a connection that is not an error of the engine.
enum EngineEnd {
    /// The settings are closed.
    Closed,
    /// Another engine is to be followed.
    OtherSocket,
}

struct EngineFollower {
    tracker: Tracker,
    /// Time of the last event, in nanoseconds since the Unix epoch.
    last_event: Option<u64>,
    /// Containers as they were last known.
    containers: Option<TrackedContainers>,
    known: KnownConfigurations,
    news: watch::Sender<DockerNews>,
}

impl EngineFollower {
    /// Follows the engine as long as it answers. An error comes with whether a list was received.
    async fn serve(
        &mut self,
        socket: &std::path::Path,
        settings: &mut watch::Receiver<DockerSettings>,
    ) -> Result<EngineEnd, (EngineError, bool)> {
        let connected = async {
            let client = EngineClient::open(socket).await?;
            let since = self
                .last_event
                .map_or_else(earlier, |last| last.saturating_sub(OVERLAP));
            let events = client.events(since).await?;
            Ok((client, events))
        };
        let (client, mut events): (EngineClient, EventStream) = tokio::select! {
            connected = connected => connected.map_err(|error| (error, false))?,
            end = ended(settings, socket) => return Ok(end),
        };
        self.tracker.connected(Instant::now());
        let mut has_answered = false;
        let mut listing: Option<(Instant, Listing<'_>)> = None;
        loop {
            while let Some(work) = self.tracker.take(Instant::now()) {
                match work {
                    TrackerWork::List => {
                        let list = list(&client, self.known.clone());
                        listing = Some((Instant::now(), Box::pin(list)));
                    }
                    TrackerWork::Snapshot(containers) => {
                        self.containers = Some(containers);
                        let current = settings.borrow().clone();
                        self.publish(&current);
                    }
                }
            }
            let due = self.tracker.due();
            tokio::select! {
                biased;
                event = events.next() => {
                    let event = event.map_err(|error| (error, has_answered))?;
                    if self.last_event.is_none_or(|last| event.nanoseconds > last) {
                        self.last_event = Some(event.nanoseconds);
                        self.tracker.event(&event.event, Instant::now());
                    }
                }
                listed = finished(&mut listing) => {
                    let (began, listed) = (listing.take().map(|(began, _)| began), listed.map_err(|error| (error, has_answered))?);
                    let now = Instant::now();
                    has_answered = true;
                    self.known = listed.known;
                    self.tracker.listed(listed.containers, began.unwrap_or(now), now);
                    self.recovered();
                }
                () = sleep_until(due.unwrap_or_else(Instant::now).into()), if due.is_some() => {}
                changed = settings.changed() => {
                    let current = settings.borrow_and_update().clone();
                    match changed {
                        Err(_) => return Ok(EngineEnd::Closed),
                        Ok(()) if current.socket != socket => return Ok(EngineEnd::OtherSocket),
                        Ok(()) => self.publish(&current),
                    }
                }
            }
        }
    }

    /// Sends the services of the containers as they were last known, if they have changed.
    fn publish(&self, settings: &DockerSettings) {
        let Some(TrackedContainers { containers, is_certain }) = &self.containers else {
            return;
        };
        let found = services_of(containers, &settings.fences);
        self.news.send_if_modified(|news| {
            let last = news.snapshot.as_deref();
            let snapshot = DockerSnapshot::new(found, *is_certain, last);
            let is_new = last != Some(&snapshot);
            if is_new {
                news.snapshot = Some(Arc::new(snapshot));
            }
            is_new
        });
    }

    fn trouble(&self, settings: &DockerSettings, error: &EngineError) {
        let socket = escape::path(&settings.socket);
        let trouble = format!("Docker's engine at {socket} does not answer: {error}");
        self.news.send_if_modified(|news| {
            let is_new = news.trouble.as_ref() != Some(&trouble);
            news.trouble = Some(trouble);
            is_new
        });
    }

    fn recovered(&self) {
        self.news.send_if_modified(|news| news.trouble.take().is_some());
    }

    /// Forgets the containers, since another engine is followed from here on.
    fn forget(&mut self) {
        self.tracker = Tracker::new(Instant::now());
        self.last_event = None;
        self.containers = None;
        self.known = KnownConfigurations::default();
    }
}

/// Waits until another engine or none is to be followed.
async fn ended(settings: &mut watch::Receiver<DockerSettings>, socket: &std::path::Path) -> EngineEnd {
    loop {
        if settings.changed().await.is_err() {
            return EngineEnd::Closed;
        }
        if settings.borrow().socket != socket {
            return EngineEnd::OtherSocket;
        }
    }
}

async fn finished(listing: &mut Option<(Instant, Listing<'_>)>) -> Result<EngineList, EngineError> {
    match listing {
        Some((_, list)) => list.await,
        None => std::future::pending().await,
    }
}

/// Returns the time from which events of the first connection are read.
fn earlier() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.saturating_sub(EARLIER).as_nanos()).unwrap_or_default()
}

/// Lists the containers that have labels, and asks for the configurations that are not known.
async fn list(client: &EngineClient, known: KnownConfigurations) -> Result<EngineList, EngineError> {
    let entries = client.containers().await?;
    let entries: Vec<ContainerEntry> = entries.into_iter().filter(ContainerEntry::has_usable_id).collect();
    let is_known = |id: &str| known.drivers.contains_key(id);
    let drivers = if entries.iter().flat_map(ContainerEntry::network_ids).all(is_known) {
        known.drivers
    } else {
        let networks = client.networks().await?.into_iter();
        Arc::new(networks.map(|network| (network.id, network.driver)).collect())
    };
    let mut facts = BTreeMap::new();
    let mut containers = Vec::new();
    for entry in entries {
        let mut container = entry.container(&drivers);
        if !is_addressed(&container) {
            continue;
        }
        let of = match known.facts.get(&*container.id) {
            Some(of) => of.clone(),
            // While an engine starts a container, it does not answer. Until it runs, nothing depends on its configuration.
            None if container.state == RunState::Down => {
                let stop = ContainerFacts::default().stop;
                containers.push(ListedContainer { container, stop });
                continue;
            }
            None => match client.inspect(&container.id).await? {
                Some(answer) => answer.into(),
                None => continue,
            },
        };
        container.exposed.clone_from(&of.exposed);
        facts.insert(container.id.to_string(), of.clone());
        containers.push(ListedContainer {
            container,
            stop: of.stop,
        });
    }
    let facts = Arc::new(facts);
    Ok(EngineList {
        containers,
        known: KnownConfigurations { facts, drivers },
    })
}
