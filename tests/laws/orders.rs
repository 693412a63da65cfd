//! The daemon's core with a store on disk and a kernel in memory, under orders: whatever is ordered, and whenever the daemon
//! dies, each order is carried out completely or not at all, acknowledged orders stay, and the kernel agrees with the store.

mod ending;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};
use tcpgw::config::Config;
use tcpgw::config::daemon::DaemonSettings;
use tcpgw::control::core::{Core, MOST_ORDERS, Now, Order, Vetted};
use tcpgw::control::events::What;
use tcpgw::control::job::JobOutcome;
use tcpgw::control::request::{
    After, BatchItem, BatchOrder, DeployOrder, EditOrder, Edited, EditedBatch, PauseOrder, Peer, Refused, ServiceEdit,
    TornDown, UndoOrder, Which,
};
use tcpgw::control::storage::{Write, Written};
use tcpgw::daemon::kernel_thread::perform;
use tcpgw::daemon::store_thread::{self};
use tcpgw::provider::News;
use tcpgw::reconcile::Desired;
use tcpgw::reconcile::engine::Engine;
use tcpgw::record;
use tcpgw::store::last::Last;
use tcpgw::store::{Expect, HistoryFilter, Phase, Store, StoreError, superseded_by};
use tcpgw_core::health;
use tcpgw_core::model::{BackendState, Endpoint, FlowMark, Service, State};
use tcpgw_core::ruleset::links::Links;
use tcpgw_core::summary::{FlowVerdict, Summary};
use tcpgw_kernel::conntrack::Status;
use tcpgw_kernel::fake::{Call, ConnectOutcome, Fail, Fake, Syn};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use crate::clock::next_step;
use crate::looking::{self, IsKnown, Looking};
use crate::states::{desired, links};

const NAMESPACE: u64 = 8;
const SEEN_REPLY: u32 = 2;
const ENDPOINTS: u8 = 8;
const SERVICES: [&str; 2] = ["a", "b"];
/// Time that is longer than any drain, timeout or retry.
const LONG: Duration = Duration::from_secs(180);

/// Longest pause between two attempts to tell the kernel.
const LONGEST_RETRY: Duration = Duration::from_secs(60);

const PEER: Peer = Peer {
    uid: 1000,
    gid: 1000,
    pid: Some(7),
};

#[derive(Debug, Clone)]
enum Event {
    /// A service is put with these backends.
    Put(usize, Vec<u8>),
    /// The limit of a service changes.
    Patch(usize, u32),
    /// Both services get other backends in one change.
    Batch(Vec<u8>, Vec<u8>),
    /// A service is removed.
    Delete(usize),
    /// Backends of a service get no new connections, or get them again.
    Drain(usize, bool, Index),
    /// A deploy begins with these targets, of which so many have to answer; the flag tells whether it supersedes one that probes.
    Deploy(usize, Vec<u8>, Index, bool),
    /// The last deploy is undone.
    Undo(usize),
    /// New connections are paused for so many seconds, or a pause ends.
    Pause(usize, Option<u64>),
    /// A backend dies, or comes back.
    Flip(u8),
    /// Time passes.
    Wait(u64),
    /// A client connects.
    Connect(usize, u32),
    /// A connection ends.
    End(Index),
    /// The next commit fails.
    Fail(Fail),
    /// The store accepts no writes for a while.
    Full(u64),
    /// The kernel gives no answers about addresses, routes and listeners for so many seconds.
    Stuck(u64),
    /// Everything is torn down.
    Teardown,
    /// The daemon is killed before or after so many of the next writes, and another one starts.
    Kill(usize, bool),
}

fn event() -> impl Strategy<Value = Event> {
    let which = || 0..SERVICES.len();
    // Most are of one service only.
    let to = || {
        (which(), prop::collection::btree_set(1..=5_u8, 0..4)).prop_map(|(which, set)| {
            let of = |last: u8| if which == 0 { last } else { ENDPOINTS + 1 - last };
            (which, set.into_iter().map(of).collect::<Vec<u8>>())
        })
    };
    let fail = prop::sample::select(vec![
        Fail::Outdated,
        Fail::UnknownBefore,
        Fail::UnknownAfter,
        Fail::Refused(Errno::ENOMEM),
    ]);
    prop_oneof![
        2 => to().prop_map(|(which, to)| Event::Put(which, to)),
        1 => (which(), 1..5_u32).prop_map(|(which, pps)| Event::Patch(which, pps)),
        1 => which().prop_map(Event::Delete),
        2 => (which(), any::<bool>(), any::<Index>()).prop_map(|(which, back, at)| Event::Drain(which, back, at)),
        8 => (to(), any::<Index>(), any::<bool>()).prop_map(|((which, to), min, over)| Event::Deploy(which, to, min, over)),
        2 => (to(), to()).prop_map(|((_, first), (_, second))| Event::Batch(first, second)),
        2 => which().prop_map(Event::Undo),
        1 => (which(), prop::option::of(1..20_u64)).prop_map(|(which, time)| Event::Pause(which, time)),
        3 => (1..=ENDPOINTS).prop_map(Event::Flip),
        5 => (0..40_000_u64).prop_map(Event::Wait),
        4 => (which(), any::<u32>()).prop_map(|(which, pick)| Event::Connect(which, pick)),
        2 => any::<Index>().prop_map(Event::End),
        1 => fail.prop_map(Event::Fail),
        1 => (1..6_u64).prop_map(Event::Full),
        1 => (1..20_u64).prop_map(Event::Stuck),
        1 => Just(Event::Teardown),
        3 => (0..4_usize, any::<bool>()).prop_map(|(after, done)| Event::Kill(after, done)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn orders_happen_as_a_whole_or_not_at_all(
        events in prop::collection::vec((event(), prop::bool::weighted(0.2)), 1..40),
    ) {
        let mut world = World::new();
        for (event, held) in events {
            world.held = held;
            world.happen(event);
            if !held {
                world.run();
            }
            world.check()?;
        }
        world.end()?;
    }
}

/// A change is answered when a teardown comes while it is being written or waits for the kernel.
#[test]
fn a_change_that_a_teardown_overtakes_is_answered() {
    let mut world = World::new();
    let now = world.time();
    world.held = true;
    world.happen(Event::Patch(0, 3));
    let write = world.core.next_write(&mut |_, _| Ok(Vetted::default()), now).unwrap();
    assert!(world.keep(write, now));
    world.happen(Event::Teardown);
    world.happen(Event::Pause(0, Some(5)));
    // The file of last services, which a teardown waits for, is not written either: not for long.
    world.wait(Duration::from_secs(3));
    assert_eq!(world.unanswered(), 0);
    world.held = false;
    world.check().unwrap();
    world.end().unwrap();
}

/// A deploy whose switch meets a full store has failed: its clients are told at once, and the store gets the result later.
#[test]
fn a_deploy_whose_switch_cannot_be_stored_is_over() {
    let mut world = World::new();
    world.down.insert(endpoint(3));
    world.deploy(0, &[3], None);
    world.run();
    let deploy = |world: &World| world.core.deploys(world.time()).pop();
    assert_eq!(deploy(&world).unwrap().phase, "probing");
    world.happen(Event::Full(20));
    world.down.clear();
    world.wait(Duration::from_secs(5));
    let over = deploy(&world).unwrap();
    assert_eq!(over.phase, "failed");
    assert!(
        over.reason
            .as_ref()
            .is_some_and(|reason| reason.contains("no space is left")),
        "{over:?}"
    );
    let told = |world: &World| {
        let events = world.core.follow(&After::Start).kept;
        events
            .iter()
            .filter(|event| matches!(&event.what, What::Deploy { phase: "failed", .. }))
            .count()
    };
    assert_eq!(told(&world), 1);
    world.wait(Duration::from_secs(60));
    assert_eq!(deploy(&world), None);
    assert_eq!(told(&world), 1, "it is told once");
    assert_eq!(
        world.store.as_mut().unwrap().deploys(None, 1).unwrap()[0].phase,
        Phase::Failed
    );
    world.end().unwrap();
}

/// A deploy that has failed because the store is full does not block the next one: that is refused while the store is full, and
/// begins as soon as there is room.
#[test]
fn a_deploy_that_was_told_as_over_does_not_hold_up_the_next_one() {
    let mut world = World::new();
    world.down.insert(endpoint(3));
    world.deploy(0, &[3], None);
    world.run();
    world.happen(Event::Full(5));
    world.down.clear();
    world.wait(Duration::from_secs(1));
    let phases = |world: &World| -> Vec<std::borrow::Cow<'static, str>> {
        let deploys = world.core.deploys(world.time()).into_iter();
        deploys.map(|deploy| deploy.phase).collect()
    };
    assert_eq!(phases(&world), ["failed"]);
    world.deploy(0, &[4], None);
    let mut answer = world.deploys.pop().unwrap();
    world.run();
    let refused = answer.try_recv().unwrap().unwrap_err();
    assert!(
        refused.lines().concat().contains("no space is left"),
        "not for the one that is over: {refused:?}"
    );
    // Before the end of the first one is written for itself.
    world.full_until = None;
    world.down.insert(endpoint(4));
    world.deploy(0, &[4], None);
    let mut answer = world.deploys.pop().unwrap();
    world.run();
    let second = answer.try_recv().unwrap().unwrap();
    assert_eq!(phases(&world), ["probing"]);
    let stored = |world: &mut World| -> Vec<(u64, Phase)> {
        let deploys = world.store.as_mut().unwrap().deploys(None, 2).unwrap();
        deploys.iter().map(|deploy| (deploy.id, deploy.phase)).collect()
    };
    assert_eq!(
        stored(&mut world),
        [(second, Phase::Probing), (second - 1, Phase::Failed)]
    );
    world.down.clear();
    world.wait(Duration::from_secs(60));
    assert_eq!(stored(&mut world)[0], (second, Phase::Drained));
    world.end().unwrap();
}

/// A service that is in the store and not yet in the record when the daemon is killed stays the API's, and exists once.
#[test]
fn a_record_that_is_older_than_the_store_gives_nothing_away() {
    let mut world = World::new();
    world.has_file = true;
    world.happen(Event::Delete(0));
    world.happen(Event::Wait(60_000));
    world.happen(Event::Put(0, vec![1, 2]));
    world.happen(Event::Kill(0, true));
    world.happen(Event::Patch(0, 7));
    world.check().unwrap();
    world.end().unwrap();
}

/// A new deploy supersedes one that probes. Targets of both are still probed, those of the first only are not.
#[test]
fn a_deploy_supersedes_one_that_probes() {
    let mut world = World::new();
    world.down.extend([endpoint(3), endpoint(4)]);
    world.deploy(0, &[3, 4], None);
    world.run();
    let first = world.core.deploys(world.time())[0].id;
    world.deploy(0, &[4, 5], None);
    let mut answer = world.deploys.pop().unwrap();
    world.run();
    let refused = answer.try_recv().unwrap().unwrap_err().lines().concat();
    assert!(
        refused.contains("is under way") && refused.contains("--supersede"),
        "{refused}"
    );
    world.deploy_as(0, &[4, 5], None, true);
    let mut answer = world.deploys.pop().unwrap();
    world.run();
    let second = answer.try_recv().unwrap().unwrap();
    let live: Vec<u64> = world
        .core
        .deploys(world.time())
        .iter()
        .map(|deploy| deploy.id)
        .collect();
    assert_eq!(live, [second]);
    let stored = world.store.as_mut().unwrap().deploy(first).unwrap().unwrap();
    assert_eq!(
        (stored.phase, stored.reason),
        (Phase::Undone, Some(superseded_by(second)))
    );
    let events = world.core.follow(&After::Start).kept;
    let told = |wanted: u64, word: &str| {
        let is_it = |event: &&Arc<tcpgw::control::events::Event>| matches!(&event.what, What::Deploy { id, phase, .. } if *id == wanted && *phase == word);
        events.iter().filter(is_it).count()
    };
    assert_eq!((told(first, "undone"), told(second, "probing")), (1, 1));
    let is_probed = |world: &mut World, last| world.core.health().get(endpoint(last)).is_some();
    assert!(!is_probed(&mut world, 3) && is_probed(&mut world, 4) && is_probed(&mut world, 5));
    // Late results of the first deploy change nothing.
    world.down.clear();
    world.wait(Duration::from_secs(60));
    let phases: Vec<Phase> = world
        .store
        .as_mut()
        .unwrap()
        .deploys(None, 2)
        .unwrap()
        .iter()
        .map(|deploy| deploy.phase)
        .collect();
    assert_eq!(phases, [Phase::Drained, Phase::Undone]);
    let serving: Vec<Endpoint> = world.core.membership().serving()["a"]
        .backends
        .iter()
        .map(|backend| backend.endpoint)
        .collect();
    assert_eq!(serving, [4, 5].map(|last| Endpoint::try_from(endpoint(last)).unwrap()));
    world.check().unwrap();
    world.end().unwrap();
}

/// While the store is full a new deploy does not supersede the running one, which is not reported as ended.
#[test]
fn a_deploy_that_cannot_be_stored_supersedes_nothing() {
    let mut world = World::new();
    world.down.insert(endpoint(3));
    world.deploy(0, &[3], None);
    world.run();
    world.happen(Event::Full(5));
    world.deploy_as(0, &[4], None, true);
    world.run();
    let live = world.core.deploys(world.time());
    assert_eq!((live.len(), &*live[0].phase), (1, "probing"));
    world.wait(Duration::from_secs(10));
    world.down.clear();
    world.wait(Duration::from_secs(60));
    assert_eq!(
        world.core.membership().serving()["a"].backends[0].endpoint,
        Endpoint::try_from(endpoint(3)).unwrap()
    );
    world.end().unwrap();
}

/// Several services change together or not at all, and an error of one change names its service.
#[test]
fn a_batch_happens_as_a_whole_or_not_at_all() {
    let mut world = World::new();
    let ports = |world: &World| -> Vec<u16> {
        world
            .core
            .services()
            .services
            .iter()
            .map(|listed| listed.service.port.get())
            .collect()
    };
    let item = |name: &str, edit: ServiceEdit, expect: Expect| BatchItem {
        name: name.into(),
        edit,
        expect,
    };
    let port = |port: u16| ServiceEdit::Patch(json!({"port": port}).to_string().into_bytes());
    let before = world.core.services().revision;
    // Neither could be done alone: each takes the other's port.
    let mut answer = world.batch(vec![
        item("a", port(9002), Expect::Present),
        item("b", port(9001), Expect::Present),
    ]);
    world.run();
    let done = answer.try_recv().unwrap().unwrap();
    assert_eq!(
        (done.revision, done.changed, done.services.len()),
        (before + 1, true, 2)
    );
    assert!(
        done.services
            .iter()
            .all(|(_, edited)| edited.changed && edited.revision == before + 1)
    );
    assert_eq!(ports(&world), [9002, 9001]);
    for (items, told) in [
        (
            vec![
                item("a", port(9003), Expect::Present),
                item("b", port(0), Expect::Present),
            ],
            "services[1].port: ",
        ),
        (
            vec![
                item("a", port(9003), Expect::Present),
                item("c", port(9004), Expect::Present),
            ],
            "no service \"c\"",
        ),
        (
            vec![
                item("a", port(9003), Expect::Revision(1)),
                item("b", ServiceEdit::Delete, Expect::Present),
            ],
            "not as expected",
        ),
        (
            vec![
                item("a", port(9003), Expect::Present),
                item("b", port(9003), Expect::Present),
            ],
            "9003",
        ),
        (
            vec![
                item("a", port(9003), Expect::Present),
                item("a", port(9004), Expect::Present),
            ],
            "services[1].name: ",
        ),
        (vec![], "services: "),
    ] {
        let mut answer = world.batch(items);
        world.run();
        let refused = answer.try_recv().unwrap().unwrap_err().lines().join("; ");
        assert!(refused.contains(told), "{told}: {refused}");
        assert_eq!(
            (ports(&world), world.core.services().revision),
            (vec![9002, 9001], before + 1)
        );
    }
    // One change and one removal, in one entry each of the same revision.
    let mut answer = world.batch(vec![
        item("a", port(9001), Expect::Revision(before + 1)),
        item("b", ServiceEdit::Delete, Expect::Present),
    ]);
    world.run();
    assert_eq!(answer.try_recv().unwrap().unwrap().services[1].1.service, None);
    assert_eq!(ports(&world), [9001]);
    world.wait(Duration::from_secs(60));
    world.check().unwrap();
    world.end().unwrap();
}

/// A repeated deploy of the backends that already serve changes nothing.
#[test]
fn a_deploy_of_what_serves_already_changes_nothing() {
    let mut world = World::new();
    let mut last = |targets: &[u8]| {
        world.deploy(0, targets, None);
        world.wait(Duration::from_secs(30));
        let mut deploys = world.store.as_mut().unwrap().deploys(None, 1).unwrap();
        let deploy = deploys.remove(0);
        assert_eq!(deploy.phase, Phase::Drained, "{deploy:?}");
        deploy.reason.unwrap()
    };
    assert_eq!(last(&[3, 4]), "the old backends have left");
    assert_eq!(last(&[3, 4]), "nothing changed: these backends serve already");
    assert_eq!(last(&[3, 4, 5]), "there were no other backends, so none had to leave");
    world.end().unwrap();
}

fn endpoint(last: u8) -> SocketAddr {
    SocketAddr::new([10, 9, 0, last].into(), 80)
}

fn service(which: usize, backends: &[u8]) -> Value {
    json!({
        "name": SERVICES[which], "port": 9001 + which, "drain_timeout": "20s",
        "backends": backends.iter().map(|last| endpoint(*last).to_string()).collect::<Vec<_>>(),
    })
}

struct World {
    core: Core,
    engine: Option<Engine<Fake>>,
    store: Result<Store, StoreError>,
    /// True when there is also a state file without services.
    has_file: bool,
    directory: tempfile::TempDir,
    now: Instant,
    unix: Duration,
    begin: Instant,
    down: BTreeSet<SocketAddr>,
    met: BTreeSet<SocketAddr>,
    troubled: bool,
    full_until: Option<Instant>,
    /// Number of writes after which the daemon is killed, and whether the last one is done first.
    kill: Option<(usize, bool)>,
    /// Orders of edits that wait for a response. The store must have an acknowledged edit, until a later one replaces it.
    edits: Vec<(usize, oneshot::Receiver<Result<Edited, Refused>>)>,
    deploys: Vec<oneshot::Receiver<Result<u64, Refused>>>,
    pauses: Vec<oneshot::Receiver<Result<Vec<String>, Refused>>>,
    teardowns: Vec<oneshot::Receiver<Result<TornDown, Refused>>>,
    begun: BTreeSet<u64>,
    /// True while events happen at the same moment, so that they are carried out together.
    held: bool,
    waited_since: Option<Instant>,
    looking: Looking,
}

impl World {
    fn new() -> Self {
        // Every write waits for the disk: one of memory is faster.
        let directory = tempfile::tempdir_in("/dev/shm")
            .or_else(|_| tempfile::tempdir())
            .unwrap();
        let (now, unix) = (Instant::now(), Duration::from_secs(1_000_000));
        let mut world = Self {
            core: Core::new(
                DaemonSettings::default(),
                Config::default(),
                NAMESPACE,
                Now {
                    instant: now,
                    unix,
                    boot: Duration::ZERO,
                },
            ),
            engine: None,
            begin: now,
            store: Err(StoreError::NoDeploy(0)),
            has_file: false,
            directory,
            now,
            unix,
            down: BTreeSet::new(),
            met: BTreeSet::new(),
            troubled: false,
            full_until: None,
            kill: None,
            edits: Vec::new(),
            deploys: Vec::new(),
            pauses: Vec::new(),
            teardowns: Vec::new(),
            begun: BTreeSet::new(),
            held: false,
            waited_since: None,
            looking: Looking::default(),
        };
        world.start(Fake::default());
        world.run();
        world.happen(Event::Put(0, vec![1, 2]));
        world.happen(Event::Put(1, vec![7, 8]));
        world
    }

    fn start(&mut self, fake: Fake) {
        let record = record::RecordFile::new(self.directory.path(), NAMESPACE);
        let mut engine = Engine::new(fake, record, NAMESPACE, FlowMark::default());
        engine.set_links(links());
        self.engine = Some(engine);
        let settings = DaemonSettings {
            state: self.has_file.then(|| "state.json".into()),
            store: self.directory.path().join("store.db"),
            ..DaemonSettings::default()
        };
        self.core = Core::new(settings, Config::default(), NAMESPACE, self.time());
        let path = self.directory.path().join("store.db");
        let last = Last::load(&Last::path(&path)).unwrap().unwrap_or_default();
        let (store, opened) = store_thread::open(&path, &last, 0, self.time().unix).unwrap();
        self.store = Ok(store);
        self.core.opened(Ok(opened), self.time());
        self.core.served_last(last, record::boot_id());
        if self.has_file {
            let news = News::State(Arc::default(), Vec::new());
            let now = self.time();
            self.looking.restart();
            let looking = &mut self.looking;
            let vet = &mut |_: &State, _: &IsKnown<'_>| looking.vet(now.instant, Vetted::default);
            if self.core.file_news(news, vet, now) {
                self.core.begin(now);
            }
        } else {
            self.core.begin(self.time());
        }
    }

    fn restart(&mut self) {
        // Requests without an answer by then never get one, and may have been carried out.
        self.edits.clear();
        self.deploys.clear();
        self.pauses.clear();
        self.teardowns.clear();
        self.kill = None;
        self.store = Err(StoreError::NoDeploy(0));
        let mut fake = self.engine.take().unwrap().into_kernel();
        fake.restart();
        let active = Summary::of_kernel(&fake.ruleset(), &Summary::default());
        let active = active.services.iter().flat_map(|service| service.active.keys());
        self.met.extend(active);
        self.start(fake);
    }

    fn time(&self) -> Now {
        Now {
            instant: self.now,
            unix: self.unix,
            boot: self.now - self.begin,
        }
    }

    fn engine(&mut self) -> &mut Engine<Fake> {
        self.engine.as_mut().unwrap()
    }

    fn edit(&mut self, which: usize, edit: ServiceEdit) {
        let (reply, answer) = oneshot::channel();
        let order = EditOrder {
            name: SERVICES[which].into(),
            edit,
            expect: Expect::Anything,
            take_over: false,
            drain: None,
            by: PEER,
        };
        self.core.order(Order::Edit(order, reply));
        self.edits.push((which, answer));
    }

    fn batch(&mut self, items: Vec<BatchItem>) -> oneshot::Receiver<Result<EditedBatch, Refused>> {
        let (reply, answer) = oneshot::channel();
        let order = BatchOrder {
            items,
            revision: None,
            take_over: false,
            drain: None,
            by: PEER,
        };
        self.core.order(Order::Batch(order, reply));
        answer
    }

    fn deploy(&mut self, which: usize, targets: &[u8], min: Option<usize>) {
        self.deploy_as(which, targets, min, false);
    }

    fn deploy_as(&mut self, which: usize, targets: &[u8], min: Option<usize>, supersede: bool) {
        let (reply, answer) = oneshot::channel();
        let order = DeployOrder {
            service: SERVICES[which].into(),
            min,
            targets: targets.iter().map(|last| endpoint(*last).to_string().into()).collect(),
            timeout: Duration::from_secs(30),
            drain: Some(Duration::from_secs(10)),
            supersede,
            by: PEER,
        };
        self.core.order(Order::Deploy(order, reply));
        self.deploys.push(answer);
    }

    fn happen(&mut self, event: Event) {
        let now = self.time();
        match event {
            Event::Put(which, backends) => {
                let text = service(which, &backends).to_string().into_bytes();
                self.edit(which, ServiceEdit::Put(text));
            }
            Event::Patch(which, pps) => {
                let text = json!({"limit": {"pps": pps}}).to_string().into_bytes();
                self.edit(which, ServiceEdit::Patch(text));
            }
            Event::Batch(first, second) => {
                let put = |which: usize, backends: &[u8]| BatchItem {
                    name: SERVICES[which].into(),
                    edit: ServiceEdit::Put(service(which, backends).to_string().into_bytes()),
                    expect: Expect::Anything,
                };
                drop(self.batch(vec![put(0, &first), put(1, &second)]));
            }
            Event::Delete(which) => self.edit(which, ServiceEdit::Delete),
            Event::Drain(which, back, at) => {
                let last = u8::try_from(at.index(usize::from(ENDPOINTS))).unwrap() + 1;
                let which_one = vec![Endpoint::try_from(endpoint(last)).unwrap()];
                let edit = if back {
                    ServiceEdit::Undrain(which_one)
                } else {
                    ServiceEdit::Drain(which_one)
                };
                self.edit(which, edit);
            }
            Event::Deploy(which, targets, min, supersede) => {
                let min = (!targets.is_empty()).then(|| min.index(targets.len()) + 1);
                self.deploy_as(which, &targets, min, supersede);
            }
            Event::Undo(which) => {
                let (reply, answer) = oneshot::channel();
                let order = UndoOrder {
                    which: Which::Last(SERVICES[which].into()),
                    by: PEER,
                };
                self.core.order(Order::Undo(order, reply));
                self.deploys.push(answer);
            }
            Event::Pause(which, time) => {
                let (reply, answer) = oneshot::channel();
                let order = PauseOrder {
                    name: SERVICES[which].into(),
                    time: time.map(Duration::from_secs),
                    by: PEER,
                };
                self.core.pause(&order, reply, now);
                self.pauses.push(answer);
            }
            Event::Teardown => {
                let (reply, answer) = oneshot::channel();
                self.core.teardown(PEER, reply);
                self.teardowns.push(answer);
            }
            Event::Flip(last) => {
                if !self.down.remove(&endpoint(last)) {
                    self.down.insert(endpoint(last));
                }
            }
            Event::Wait(millis) => return self.wait(Duration::from_millis(millis)),
            Event::Connect(which, pick) => self.connect(which, pick),
            Event::End(at) => {
                let flows = &mut self.engine().kernel().flows;
                if !flows.is_empty() {
                    flows.remove(at.index(flows.len()));
                }
            }
            Event::Fail(fail) => {
                self.engine().kernel().fail_next(Call::Commit, fail);
                self.troubled = true;
            }
            Event::Full(seconds) => self.full_until = Some(self.now + Duration::from_secs(seconds)),
            Event::Stuck(seconds) => self.looking.stick(self.now, Duration::from_secs(seconds)),
            Event::Kill(0, _) => self.restart(),
            Event::Kill(after, done) => self.kill = Some((after, done)),
        }
        if !self.held {
            self.run();
        }
    }

    fn connect(&mut self, which: usize, pick: u32) {
        let syn = Syn {
            client: SocketAddr::new([198, 51, 100, 7].into(), 40_000),
            public: SocketAddr::new([192, 0, 2, 1].into(), 9001 + u16::try_from(which).unwrap()),
        };
        let ConnectOutcome::Backend(backend) = self.engine().kernel().connect(&syn, pick) else {
            return;
        };
        let answered = !self.down.contains(&backend);
        if let Some(flow) = self.engine().kernel().flows.last_mut()
            && answered
        {
            flow.status = Status(flow.status.0 | SEEN_REPLY);
        }
    }

    /// Carries out everything that is due now.
    fn run(&mut self) {
        for _ in 0..10_000 {
            let now = self.time();
            let mut idle = true;
            let looking = &mut self.looking;
            let vet = &mut |_: &State, _: &IsKnown<'_>| looking.vet(now.instant, Vetted::default);
            if let Some(news) = self.core.judges_again() {
                idle = false;
                if self.core.file_news(news, vet, now) {
                    self.core.begin(now);
                }
            }
            if self.core.is_judgement_due(now) {
                self.core.judge_surroundings(vet, now);
            }
            let write = self.core.next_write(vet, now);
            if self.looking.take_ended(now.instant) {
                idle = false;
                self.core.look_ended(now);
            }
            if let Some(write) = write {
                idle = false;
                if !self.keep(write, now) {
                    continue;
                }
            }
            if let Some(job) = self.core.next_job(now) {
                idle = false;
                let done = perform(self.engine.as_mut().unwrap(), job);
                let outcome = JobOutcome {
                    done,
                    at: self.now,
                    took: Duration::ZERO,
                    table: None,
                    record_trouble: None,
                };
                self.core.done(outcome, now);
            }
            self.hear();
            let probes = self.core.health().due(self.now);
            if probes.is_empty() && idle {
                self.waited_since = (self.unanswered() > 0).then(|| self.waited_since.unwrap_or(self.now));
                return;
            }
            for probe in probes {
                let outcome = if self.down.contains(&probe.endpoint) {
                    health::ProbeOutcome::TimedOut
                } else {
                    self.met.insert(probe.endpoint);
                    health::ProbeOutcome::Accepted
                };
                self.core.probed(probe.id, outcome, now);
            }
        }
        panic!("it never rests");
    }

    /// Performs a write as the store's thread does. Returns false when the daemon was killed before it got the result.
    fn keep(&mut self, write: Write, now: Now) -> bool {
        if let Some((left, done)) = self.kill.take() {
            if left <= 1 {
                if done {
                    store_thread::perform(&mut self.store, write);
                }
                self.restart();
                return false;
            }
            self.kill = Some((left - 1, done));
        }
        let written = if self.full_until.is_some_and(|until| until > self.now) {
            let full = || StoreError::Full("store.db".into());
            match write {
                Write::Change(..) | Write::RemoveOrphans(_) => Written::Changed(Err(full())),
                Write::Together(changes, _) => Written::Together(changes.iter().map(|_| Err(full())).collect()),
                Write::Begin(..) => Written::Began(Err(full())),
                Write::Step(..) => Written::Stepped(Err(full())),
                Write::Refresh => Written::Refreshed(Err(full())),
                Write::Remember(..) => Written::Remembered(Err("full".into()), Duration::ZERO),
            }
        } else {
            store_thread::perform(&mut self.store, write)
        };
        self.core.written(written, now);
        true
    }

    /// Receives the answers so far.
    fn hear(&mut self) {
        let store = self.store.as_mut().unwrap();
        self.edits.retain_mut(|(which, answer)| match answer.try_recv() {
            Ok(Ok(edited)) => {
                let loaded = store.load().unwrap();
                let there = loaded
                    .services
                    .iter()
                    .find(|stored| *stored.service.name == *SERVICES[*which]);
                // A later one may be there already; an earlier one may not.
                let revision = there.map_or(loaded.revision, |stored| stored.revision);
                assert!(revision >= edited.revision, "an acknowledged edit is not in the store");
                false
            }
            Ok(Err(_)) => false,
            Err(TryRecvError::Empty) => true,
            Err(TryRecvError::Closed) => panic!("an order is not answered"),
        });
        let begun = &mut self.begun;
        self.deploys.retain_mut(|answer| match answer.try_recv() {
            Ok(answer) => {
                begun.extend(answer.ok());
                false
            }
            Err(TryRecvError::Empty) => true,
            Err(TryRecvError::Closed) => panic!("a deploy is not answered"),
        });
    }

    /// Returns the number of orders that wait for a response.
    fn unanswered(&mut self) -> usize {
        fn waits<T>(answers: &mut Vec<oneshot::Receiver<T>>) -> usize {
            answers.retain_mut(|answer| match answer.try_recv() {
                Ok(_) => false,
                Err(TryRecvError::Empty) => true,
                Err(TryRecvError::Closed) => panic!("an order is not answered"),
            });
            answers.len()
        }
        waits(&mut self.pauses) + waits(&mut self.teardowns) + self.edits.len() + self.deploys.len()
    }

    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.run();
            let wakes = [
                self.core.wakes_at(),
                self.core.health().next_at(),
                self.looking.ends_at(),
            ];
            let Some(next) = next_step(wakes, self.now, end) else {
                break;
            };
            self.unix += next - self.now;
            self.now = next;
        }
        self.unix += end - self.now;
        self.now = end;
        self.run();
    }

    /// Checks the invariants that hold at any time.
    fn check(&mut self) -> Result<(), TestCaseError> {
        self.check_history()?;
        // Nothing here takes time: whatever was taken or refused is answered at once, or when a kernel that failed is told
        // again.
        let waited = self.waited_since.map_or(Duration::ZERO, |since| self.now - since);
        prop_assert!(waited <= LONGEST_RETRY, "somebody waits for an answer");
        let looks = self.looking.is_stuck(self.now);
        prop_assert!(
            !looks || self.troubled || self.held || waited <= looking::PATIENCE,
            "somebody waits for a look that does not end"
        );
        prop_assert!(
            looks || self.troubled || self.held || waited.is_zero(),
            "somebody waits for nothing"
        );
        if self.troubled || self.held {
            return Ok(());
        }
        let serving = self.core.membership().serving().clone();
        let (met, mark) = (self.met.clone(), FlowMark::default());
        let kernel = self.engine().kernel();
        // After a teardown there is nothing, not even what depends on links alone.
        let torn_down = serving.is_empty() && kernel.owner().is_none();
        let links = if torn_down { Links::default() } else { links() };
        let told = Desired::of(serving.values().map(AsRef::as_ref).collect(), &links);
        prop_assert_eq!(&kernel.ruleset(), &told.ruleset);
        for backend in told.summary.services.iter().flat_map(|service| service.active.keys()) {
            prop_assert!(met.contains(backend), "{} gets connections and never answered", backend);
        }
        for flow in kernel.flows.iter().filter(|flow| mark.matches(flow.mark)) {
            let standing = told.summary.standing(flow.public, flow.backend);
            prop_assert!(standing != FlowVerdict::Stale, "a stale flow to {}", flow.backend);
        }
        Ok(())
    }

    /// Checks that each change of a service begins where the one before has ended, that the last one leads to the present
    /// service, and that a deploy has changed its service as often as its phase implies.
    fn check_history(&mut self) -> Result<(), TestCaseError> {
        let store = self.store.as_mut().unwrap();
        let filter = HistoryFilter {
            limit: 10_000,
            ..HistoryFilter::default()
        };
        let history = store.history(&filter).unwrap();
        let mut now: BTreeMap<String, String> = BTreeMap::new();
        let mut of_deploys: BTreeMap<u64, usize> = BTreeMap::new();
        for entry in history.iter().rev() {
            prop_assert_eq!(
                now.remove(&entry.service),
                entry.old.as_ref().map(|old| old.get().to_owned())
            );
            if let Some(new) = &entry.new {
                now.insert(entry.service.clone(), new.get().to_owned());
            }
            *of_deploys.entry(entry.deploy.unwrap_or(0)).or_default() += 1;
        }
        let loaded = store.load().unwrap();
        let there = loaded.services.iter();
        let there: BTreeMap<String, String> = there
            .map(|stored| {
                (
                    stored.service.name.to_string(),
                    tcpgw_core::model::write::service_text(&stored.service),
                )
            })
            .collect();
        prop_assert_eq!(now, there);
        for deploy in store.deploys(None, 10_000).unwrap() {
            let changes = of_deploys.get(&deploy.id).copied().unwrap_or(0);
            let most = match deploy.phase {
                Phase::Probing | Phase::Failed => 0,
                Phase::Switched | Phase::Drained => 1,
                Phase::Undone => 2,
            };
            prop_assert!(changes <= most, "{:?} after {} changes", deploy, changes);
            prop_assert!(
                deploy.phase != Phase::Undone || changes != 1,
                "{:?} is undone by half",
                deploy
            );
        }
        Ok(())
    }

    /// Ends all trouble, lets time pass, and checks that every deploy is over and the kernel agrees with the store.
    fn end(mut self) -> Result<(), TestCaseError> {
        self.engine().kernel().restart();
        (self.troubled, self.kill) = (false, None);
        self.down.clear();
        self.held = false;
        self.wait(LONG);
        // After a teardown nothing is served before a resume, whatever else is ordered.
        let (reply, _) = oneshot::channel();
        self.core.resume(PEER, reply, self.time());
        self.wait(LONG);
        self.check()?;
        prop_assert!(self.core.in_sync());
        prop_assert!(self.core.membership().draining_backends().is_empty());
        prop_assert!(self.core.deploys(self.time()).is_empty());
        let store = self.store.as_mut().unwrap();
        prop_assert!(store.unfinished_deploys().unwrap().is_empty());
        let known: BTreeSet<u64> = store
            .deploys(None, 10_000)
            .unwrap()
            .iter()
            .map(|deploy| deploy.id)
            .collect();
        prop_assert!(
            self.begun.is_subset(&known),
            "a deploy that was acknowledged is forgotten"
        );
        let services = store.load().unwrap().services.into_iter();
        let active = |service: &Service| Service {
            backends: service
                .backends
                .iter()
                .filter(|b| b.state == BackendState::Active)
                .copied()
                .collect(),
            ..service.clone()
        };
        let want = State::new(services.map(|stored| active(&stored.service))).unwrap();
        prop_assert_eq!(&self.engine().kernel().ruleset(), &desired(&want).ruleset);
        Ok(())
    }
}

/// Orders beyond the bound of the queue are refused at once, and all others are carried out.
#[test]
fn orders_beyond_the_bound_are_refused() {
    let mut world = World::new();
    world.run();
    world.edits.clear();
    for _ in 0..=MOST_ORDERS {
        world.edit(0, ServiceEdit::Delete);
    }
    let (_, last) = world.edits.pop().expect("the last order");
    let mut last = last;
    let refused = last.try_recv().expect("it is answered at once");
    assert!(
        matches!(&refused, Err(Refused::Busy(text)) if text.contains("256 changes are waiting")),
        "{refused:?}"
    );
    let (_, first) = &mut world.edits[0];
    assert_eq!(first.try_recv(), Err(TryRecvError::Empty), "it waits");
}
