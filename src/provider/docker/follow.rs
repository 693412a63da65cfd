//! The exchange with an engine as long as it is followed: connect, read events, list, and connect again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::time::{sleep, sleep_until};

use super::decode::{ContainerEntry, ContainerFacts, ShortenedEvent, TimedEvent};
use super::engine::{AT_ONCE, EngineClient, EngineError, EventStream, StreamEvent};
use super::left_out::LeftOutEvents;
use super::news::{DockerNews, TrackedContainers};
use super::position::EventPosition;
use super::tracker::{EngineEvent, ListedContainer, Tracker, TrackerWork};
use tcpgw_core::container::{RunState, is_addressed};
use tcpgw_core::escape;

/// Pause before the first attempt to connect again, which doubles with each further one.
const AGAIN: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// An engine to follow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DockerSettings {
    /// The socket of the engine.
    pub socket: PathBuf,
}

/// Time that an engine has to show that it answers.
#[derive(Debug, Clone, Copy)]
pub(super) struct AnswerPatience {
    /// Pause between an answer and the next question.
    pub(super) pause: Duration,
    /// Time for the answer.
    pub(super) answer: Duration,
}

impl Default for AnswerPatience {
    fn default() -> Self {
        Self {
            pause: Duration::from_secs(5),
            answer: AT_ONCE,
        }
    }
}

/// Containers of a list, with their configurations and the drivers of their networks, by id.
struct EngineList {
    containers: Vec<ListedContainer>,
    known: KnownConfigurations,
    /// Ids of containers that were looked for, and those of them that exist.
    looked_for: BTreeSet<Box<str>>,
    found: BTreeSet<Box<str>>,
}

/// Configurations of containers and drivers of networks, which do not change.
#[derive(Debug, Clone, Default)]
struct KnownConfigurations {
    facts: Arc<BTreeMap<String, ContainerFacts>>,
    drivers: Arc<BTreeMap<String, String>>,
}

type Listing<'l> = Pin<Box<dyn Future<Output = Result<EngineList, EngineError>> + Send + 'l>>;

/// Follows an engine until `settings` is closed. Sends what is known of it, whenever that changes.
pub async fn follow(settings: watch::Receiver<DockerSettings>, news: watch::Sender<DockerNews>) {
    follow_patiently(settings, news, AnswerPatience::default()).await;
}

/// Follows an engine that is to answer within this time.
pub(super) async fn follow_patiently(
    mut settings: watch::Receiver<DockerSettings>,
    news: watch::Sender<DockerNews>,
    patience: AnswerPatience,
) {
    let mut follower = EngineFollower {
        patience,
        tracker: Tracker::new(Instant::now()),
        position: EventPosition::default(),
        left_out: LeftOutEvents::default(),
        known: KnownConfigurations::default(),
        news,
    };
    let mut pause = AGAIN;
    loop {
        let current = settings.borrow_and_update().clone();
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
    patience: AnswerPatience,
    tracker: Tracker,
    position: EventPosition,
    left_out: LeftOutEvents,
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
            let events = client.events(self.position.since(now())).await?;
            Ok((client, events))
        };
        let (client, mut events): (EngineClient, EventStream) = tokio::select! {
            connected = connected => connected.map_err(|error| (error, false))?,
            end = ended(settings, socket) => return Ok(end),
        };
        self.tracker.connected(Instant::now());
        self.left_out.connected();
        self.publish_left_out();
        let patience = self.patience;
        let (mut question, mut is_hung) = (Box::pin(answers(&client, patience)), false);
        let mut has_answered = false;
        let mut listing: Option<(Instant, Listing<'_>)> = None;
        loop {
            while let Some(work) = self.tracker.take(Instant::now()) {
                match work {
                    TrackerWork::List => {
                        let list = list(&client, self.known.clone(), self.left_out.containers());
                        listing = Some((Instant::now(), Box::pin(list)));
                    }
                    TrackerWork::Snapshot(containers) => self.publish(containers),
                }
            }
            let due = self.tracker.due();
            tokio::select! {
                biased;
                event = events.next() => {
                    self.take(event.map_err(|error| (error, has_answered))?);
                }
                listed = finished(&mut listing) => {
                    let (began, listed) = (listing.take().map(|(began, _)| began), listed.map_err(|error| (error, has_answered))?);
                    let now = Instant::now();
                    has_answered = true;
                    self.known = listed.known;
                    self.left_out.retain(&listed.looked_for, &listed.found);
                    self.publish_left_out();
                    self.tracker.listed(listed.containers, began.unwrap_or(now), now);
                    self.recovered();
                }
                answered = &mut question => {
                    match answered {
                        Err(error @ EngineError::Late(_)) => {
                            // What it has begun goes on: it may only be slow.
                            is_hung = true;
                            let current = settings.borrow().clone();
                            self.trouble(&current, &error);
                        }
                        Ok(()) if std::mem::take(&mut is_hung) => self.recovered(),
                        // If it has ended, so do its events.
                        Ok(()) | Err(_) => {}
                    }
                    question.set(answers(&client, patience));
                }
                () = sleep_until(due.unwrap_or_else(Instant::now).into()), if due.is_some() => {}
                changed = settings.changed() => {
                    let current = settings.borrow_and_update().clone();
                    match changed {
                        Err(_) => return Ok(EngineEnd::Closed),
                        Ok(()) if current.socket != socket => return Ok(EngineEnd::OtherSocket),
                        Ok(()) => {}
                    }
                }
            }
        }
    }

    /// Takes an event if it is new.
    fn take(&mut self, event: StreamEvent) {
        let (event, id) = match event {
            StreamEvent::Whole(TimedEvent { event, id }) => (event, id),
            StreamEvent::TooLong(ShortenedEvent { container, id }) => {
                if self.position.take(id) {
                    self.left_out.add(container);
                    self.publish_left_out();
                    // It may have been any event, and of any container.
                    self.tracker.event(&EngineEvent::of_any(), Instant::now());
                }
                return;
            }
        };
        if self.position.take(id) {
            self.tracker.event(&event, Instant::now());
        }
    }

    /// Sends the containers if they have changed.
    fn publish(&self, containers: TrackedContainers) {
        self.news.send_if_modified(|news| {
            let is_new = news.containers.as_deref() != Some(&containers);
            if is_new {
                news.containers = Some(Arc::new(containers));
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

    fn publish_left_out(&self) {
        let message = self.left_out.message();
        self.news.send_if_modified(|news| {
            let is_new = news.left_out != message;
            news.left_out = message;
            is_new
        });
    }

    /// Forgets the containers, since another engine is followed from here on.
    fn forget(&mut self) {
        self.tracker = Tracker::new(Instant::now());
        self.position = EventPosition::default();
        self.left_out = LeftOutEvents::default();
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

/// Returns the time of the clock, in nanoseconds since the Unix epoch.
fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// Asks whether the engine answers, after a pause.
async fn answers(client: &EngineClient, patience: AnswerPatience) -> Result<(), EngineError> {
    sleep(patience.pause).await;
    client.version(patience.answer).await.map(drop)
}

/// Lists the containers that have labels, and asks for the configurations that are not known. `looked_for`: ids
/// of containers that the answer tells to exist or not.
async fn list(
    client: &EngineClient,
    known: KnownConfigurations,
    looked_for: BTreeSet<Box<str>>,
) -> Result<EngineList, EngineError> {
    let entries = client.containers().await?;
    let entries: Vec<ContainerEntry> = entries.into_iter().filter(ContainerEntry::has_usable_id).collect();
    let ids = entries.iter().map(|entry| entry.id.as_str());
    let found = ids.filter(|id| looked_for.contains(*id)).map(Box::from).collect();
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
        looked_for,
        found,
    })
}
