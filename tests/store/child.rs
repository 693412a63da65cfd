//! Child process that changes a store until it is killed, and checks of the contents that the store must then have.
//!
//! The changes at each revision follow from its number alone, so that the number tells the expected contents.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tcpgw::store::{
    ChangeAuthor, DeployPhase, DeployStep, Expect, HistoryBounds, HistoryFilter, NewDeploy, Store, StoreChange,
    StoreEdit, StoreError,
};
use tcpgw_core::model::{self, Service};

const STORE: &str = "TCPGW_TEST_STORE";
const UNTIL: &str = "TCPGW_TEST_UNTIL";
const NAMES: u64 = 7;
const EVERYTHING: usize = 1_000_000;
const KEEP: HistoryBounds = HistoryBounds {
    entries: 1_000_000,
    bytes: 1 << 40,
    deploys: 1_000_000,
};

pub(crate) type Services = BTreeMap<Box<str>, (Arc<Service>, u64)>;

fn random(seed: u64) -> u64 {
    // SplitMix64.
    let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn name(nth: u64) -> Box<str> {
    format!("s{}", nth % NAMES).into()
}

/// Returns a service. Some have many backends, so that changes take several pages.
fn service(name: &str, revision: u64) -> Arc<Service> {
    let many = random(revision).is_multiple_of(5);
    let backends: Vec<String> = (0..if many { 250 } else { 2 })
        .map(|at| format!("10.{}.{}.{at}:80", revision % 100, 1 + revision % 250))
        .collect();
    // No revision is like the one before.
    let json = json!({
        "name": name, "port": 1 + revision % 60_000, "backends": backends, "labels": {"revision": revision.to_string()},
    });
    Arc::new(model::parse_service(json.to_string().as_bytes()).expect("it is valid"))
}

fn is_deploy(revision: u64) -> bool {
    revision.is_multiple_of(3)
}

/// Returns the edits of a revision.
fn edits(revision: u64) -> Vec<StoreEdit> {
    let at = random(revision);
    let put = |name: Box<str>| StoreEdit::Put(service(&name, revision), Expect::Anything);
    if is_deploy(revision) {
        return vec![put(name(at))];
    }
    let mut edits = vec![put(name(at)), put(name(at + 1)), put(name(at + 2))];
    if at.is_multiple_of(4) {
        edits.push(StoreEdit::Delete(name(at + 3), Expect::Anything));
    }
    edits
}

/// Returns the services at a revision, and the number of changes of single services up to it.
pub(crate) fn expected(revision: u64) -> (Services, usize) {
    let (mut services, mut changes) = (Services::new(), 0);
    for revision in 1..=revision {
        for edit in edits(revision) {
            match edit {
                StoreEdit::Put(service, _) => {
                    services.insert(service.name.clone(), (service, revision));
                    changes += 1;
                }
                StoreEdit::Delete(name, _) => changes += usize::from(services.remove(&name).is_some()),
            }
        }
    }
    (services, changes)
}

fn by() -> ChangeAuthor {
    ChangeAuthor {
        uid: 7,
        pid: std::process::id(),
        what: "test".into(),
    }
}

fn step(id: u64, phase: DeployPhase) -> DeployStep {
    DeployStep {
        id,
        phase,
        reason: None,
    }
}

/// Largest number of changes in one transaction.
const AT_ONCE: usize = 2;

/// Returns the change from the revision before to this one.
fn change(revision: u64) -> StoreChange {
    StoreChange {
        edits: edits(revision),
        expect: Some(revision - 1),
        deploy: None,
        resources: Vec::new(),
        rests: Vec::new(),
    }
}

/// Makes the next revisions, up to one of them, and says so after each.
fn work(store: &mut Store, until: u64, mut say: impl FnMut(char, u64)) -> Result<(), StoreError> {
    let mut revision = store.load()?.revision;
    // Finish open deploys, as a daemon does after a crash.
    for deploy in store.unfinished_deploys()? {
        let phase = if deploy.phase == DeployPhase::Switched {
            DeployPhase::Drained
        } else {
            DeployPhase::Undone
        };
        store.deploy_update(&step(deploy.id, phase), Duration::from_secs(revision))?;
    }
    while revision < until {
        // Several in one transaction, which are acknowledged when it is over.
        let together = (revision + 1..=until)
            .take(AT_ONCE)
            .take_while(|next| !is_deploy(*next));
        let together: Vec<(StoreChange, ChangeAuthor)> = together.map(|next| (change(next), by())).collect();
        if random(revision).is_multiple_of(3) && together.len() > 1 {
            for done in store.commit_together(&together, Duration::from_secs(revision)) {
                revision += 1;
                assert_eq!(done?.revision, revision);
                say('c', revision);
            }
            continue;
        }
        revision += 1;
        let at = Duration::from_secs(revision);
        let mut change = change(revision);
        if is_deploy(revision) {
            let new = NewDeploy {
                service: name(random(revision)),
                targets: Vec::new(),
                details: json!({ "revision": revision }),
                supersedes: Vec::new(),
                ends: Vec::new(),
            };
            let id = store.deploy_begin(&new, &by(), at)?;
            say('b', id);
            change.deploy = Some(step(id, DeployPhase::Switched));
        }
        assert_eq!(store.commit(&change, &by(), at)?.revision, revision);
        say('c', revision);
        if let Some(switched) = change.deploy {
            store.deploy_update(&step(switched.id, DeployPhase::Drained), at)?;
            say('d', switched.id);
        }
    }
    Ok(())
}

/// Process that [`command`] starts; run as a test it does nothing.
#[test]
fn child() {
    let (Ok(path), Ok(until)) = (std::env::var(STORE), std::env::var(UNTIL)) else {
        return;
    };
    let until = until.parse().expect("a number");
    // Not print!, which the test harness keeps back.
    let say = |what: char, number: u64| {
        let line = format!("\n{what} {number} .\n");
        std::io::stdout().write_all(line.as_bytes()).expect("somebody listens");
    };
    let done = Store::open_with(Path::new(&path), KEEP).and_then(|mut store| work(&mut store, until, say));
    if let Err(error) = done {
        eprintln!("{error}");
        std::process::exit(3);
    }
}

/// Returns a command that runs this test binary again, as the child. The child prints a line for each finished step.
pub(crate) fn command(before: &[&str], path: &Path, until: u64) -> Command {
    let own = std::env::current_exe().expect("it runs");
    let mut argv = before.iter().map(std::ffi::OsStr::new).chain([own.as_os_str()]);
    let mut command = Command::new(argv.next().expect("there is one"));
    let test = format!("{}::child", module_path!().split_once("::").expect("a module").1);
    command.args(argv).args(["--exact", &test, "--test-threads=1"]);
    command.env(STORE, path).env(UNTIL, until.to_string());
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Last acknowledged number of each kind of step.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Acknowledged {
    pub(crate) begun: u64,
    pub(crate) committed: u64,
    pub(crate) drained: u64,
}

impl Acknowledged {
    pub(crate) fn read(&mut self, output: &str) {
        for line in output.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let [what, number, "."] = words[..] else { continue };
            let number = number.parse().expect("a number");
            match what {
                "b" => self.begun = number,
                "c" => self.committed = number,
                "d" => self.drained = number,
                other => panic!("{other}"),
            }
        }
    }

    /// Asserts that the store has all acknowledged steps, and each step completely. Returns its revision.
    pub(crate) fn check(self, path: &Path) -> u64 {
        let mut store = Store::open_with(path, KEEP).expect("it opens");
        assert_eq!(store.trouble(), None);
        assert!(!store.lacks_writes(), "it has all that was acknowledged, and says so");
        let loaded = store.load().expect("it is whole");
        let revision = loaded.revision;
        assert!(
            (self.committed..=self.committed + AT_ONCE as u64).contains(&revision),
            "{self:?}, found {revision}"
        );
        let (services, changes) = expected(revision);
        let found: Services = loaded
            .services
            .into_iter()
            .map(|stored| (stored.service.name.clone(), (stored.service, stored.revision)))
            .collect();
        assert!(found == services, "revision {revision}: {found:?}");
        let all = HistoryFilter {
            limit: EVERYTHING,
            ..HistoryFilter::default()
        };
        let history = store.history(&all).expect("it is whole");
        assert_eq!(history.len(), changes);
        assert_eq!(history.first().map_or(0, |entry| entry.revision), revision);
        let deploys = store.deploys(None, EVERYTHING).expect("they are whole");
        assert!(deploys.first().map_or(0, |deploy| deploy.id) >= self.begun, "{self:?}");
        let mut switched = 0;
        for deploy in &deploys {
            let made = deploy.revision.is_some();
            assert_eq!(
                made,
                matches!(deploy.phase, DeployPhase::Switched | DeployPhase::Drained),
                "{deploy:?}"
            );
            assert!(
                deploy.id > self.drained || deploy.phase.is_over(),
                "{self:?} {deploy:?}"
            );
            if made {
                assert_eq!(deploy.details, json!({ "revision": deploy.revision }));
                switched += 1;
            }
        }
        // Each third revision is that of a deploy, which has switched, then.
        assert_eq!(switched, revision / 3);
        revision
    }
}
