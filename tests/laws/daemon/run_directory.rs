//! Orders that cannot be written into the run directory are reported, in the response to the order and in the list of problems.

use std::fs;
use std::time::Duration;

use serde_json::json;
use tcpgw::control::request::{Resumed, TornDown};
use tcpgw::record::boot_id;
use tcpgw::store::last_services::LastServices;
use tcpgw_core::problem::{ProblemKind, Severity};

use super::problems::{V4, file};
use super::{Event, World};
use crate::world::clients::PEER;

/// Time within which the record is tried again.
const AGAIN: Duration = Duration::from_secs(7);

impl World {
    fn tear_down(&mut self) -> TornDown {
        let mut torn = self.order_teardown();
        // The file of last services is not written here.
        self.wait(Duration::from_secs(3));
        torn.try_recv().unwrap().unwrap()
    }

    fn pause(&mut self, name: &str, time: Option<Duration>) -> Vec<String> {
        let mut answer = self.order_pause(name, time);
        self.run();
        answer.try_recv().unwrap().unwrap()
    }

    fn resume(&mut self) -> Resumed {
        let mut answer = self.order_resume();
        self.run();
        answer.try_recv().unwrap().unwrap()
    }

    fn restart_without_record(&mut self, last: LastServices, is_damaged: bool) {
        let record = self.record_path();
        if is_damaged {
            let bytes = fs::read(&record).unwrap();
            fs::write(&record, &bytes[..bytes.len() / 2]).unwrap();
        } else {
            fs::remove_file(&record).unwrap();
        }
        self.restart();
        self.core.served_last(last, boot_id());
        self.run();
    }

    fn record_problem(&self) -> Option<String> {
        let problem = self.core.problems().get(ProblemKind::Record)?;
        assert_eq!(problem.severity, Severity::Warning);
        Some(problem.message.clone())
    }
}

#[test]
fn a_teardown_that_cannot_be_written_is_carried_out_and_reported() {
    let mut world = World::new(file(&json!([V4])));
    world.wait(AGAIN);
    world.forbid_record();
    let torn = world.tear_down();
    assert!(torn.table_removed);
    let why = torn.not_lasting.expect("whoever asked is told");
    assert!(why.contains("torn-down"), "{why}");
    assert!(world.record_problem().unwrap().contains("the next one serves again"));
    // Nothing but the time has to pass until it is written.
    world.wait(AGAIN);
    assert!(world.record_problem().is_some());
    world.allow_record();
    world.wait(AGAIN);
    assert_eq!(world.record_problem(), None);
    let noted = world.record_file().load_torn_down();
    assert_eq!(noted.map(|noted| noted.uid), Some(PEER.uid));
    assert_eq!(
        world.resume(),
        Resumed {
            resumed: true,
            warnings: Vec::new()
        }
    );
    assert_eq!(world.tear_down().not_lasting, None);
    assert_eq!(world.record_problem(), None);
}

#[test]
fn a_pause_that_cannot_be_written_warns_until_it_can() {
    let mut world = World::new(file(&json!([V4])));
    world.wait(AGAIN);
    assert_eq!(world.pause("web", Some(Duration::from_secs(600))), [""; 0]);
    assert_eq!(world.pause("web", None), [""; 0]);
    world.wait(AGAIN);
    assert_eq!(world.record_problem(), None);
    world.forbid_record();
    let warnings = world.pause("web", Some(Duration::from_secs(600)));
    assert!(warnings[0].contains("ends with the daemon"), "{warnings:?}");
    assert!(world.record_problem().is_some());
    world.wait(AGAIN);
    assert!(world.record_problem().is_some());
    world.allow_record();
    world.wait(AGAIN);
    assert_eq!(world.record_problem(), None);
    // The pause is known to the next daemon now.
    world.happen(Event::Restart);
    assert!(world.core.services().services[0].paused.is_some());
    // A resume that cannot be written is known to this daemon only.
    world.wait(AGAIN);
    world.forbid_record();
    assert_eq!(world.pause("web", None).len(), 1);
    assert!(world.core.services().services[0].paused.is_none());
}

/// A pause goes on after a teardown for the rest of its time, also when another daemon ends the teardown.
#[test]
fn a_teardown_ends_no_pause() {
    const PAUSE: Duration = Duration::from_secs(600);
    let paused = |world: &World| world.core.services().services[0].paused;
    for restarts in [false, true] {
        let mut world = World::new(file(&json!([V4])));
        world.wait(AGAIN);
        assert_eq!(world.pause("web", Some(PAUSE)), [""; 0]);
        let before = paused(&world);
        assert!(before.is_some());
        world.tear_down();
        world.wait(PAUSE / 2);
        if restarts {
            world.happen(Event::Restart);
        }
        world.resume();
        assert_eq!(paused(&world), before, "restarts: {restarts}");
        world.wait(PAUSE / 3);
        assert!(paused(&world).is_some(), "it ended before its time");
        world.wait(PAUSE / 3);
        assert_eq!(paused(&world), None, "it lasts longer than its time");
    }
}

/// A service that is removed while no service is served loses its pause, too.
#[test]
fn a_service_that_is_removed_after_a_teardown_comes_back_without_its_pause() {
    for restarts in [false, true] {
        let mut world = World::new(file(&json!([V4])));
        world.wait(AGAIN);
        world.pause("web", Some(Duration::from_secs(600)));
        world.tear_down();
        let other = json!({"version": 1, "services": [{"name": "other", "port": 20009, "backends": [V4]}]});
        let other = tcpgw_core::model::parse(other.to_string().as_bytes()).unwrap();
        world.happen(Event::File(Box::new(other)));
        world.happen(Event::File(Box::new(file(&json!([V4])))));
        if restarts {
            world.happen(Event::Restart);
        }
        world.resume();
        assert_eq!(world.core.services().services[0].paused, None, "restarts: {restarts}");
    }
}

/// A run directory that cannot be written is reported before a write is due, and without a trial write.
#[test]
fn a_run_directory_that_cannot_be_written_is_reported_at_once() {
    let mut world = World::new(file(&json!([V4])));
    world.wait(AGAIN);
    let now = world.time();
    world.core.run_dir(Some("/run/tcpgw: no room".into()), now);
    assert!(world.core.next_job(now).is_none(), "nothing is due");
    assert!(world.record_problem().unwrap().contains("/run/tcpgw: no room"));
    // A write that does fail is reported with its own message.
    world.forbid_record();
    world.pause("web", Some(Duration::from_secs(60)));
    assert!(world.record_problem().unwrap().contains("paused and drained"));
    world.allow_record();
    world.wait(AGAIN);
    assert!(world.record_problem().unwrap().contains("no room"));
    let now = world.time();
    world.core.run_dir(None, now);
    assert_eq!(world.record_problem(), None);
}

/// A record that is lost while the table stays is reported, and a pause goes on according to the copy beside the store. Where the
/// copy does not have it, its end is reported, too.
#[test]
fn a_lost_record_is_reported_with_the_pauses_that_end_by_it() {
    const PAUSE: Duration = Duration::from_secs(600);
    for (has_copy, is_damaged) in [(true, false), (true, true), (false, false)] {
        let mut world = World::new(file(&json!([V4])));
        world.wait(AGAIN);
        assert_eq!(world.record_problem(), None);
        assert_eq!(world.pause("web", Some(PAUSE)), [""; 0]);
        let before = world.core.services().services[0].paused;
        let (_, last) = world.core.last_services(world.time()).expect("it is written at once");
        let last = if has_copy { last } else { LastServices::default() };
        world.restart_without_record(last, is_damaged);
        let problems = world.record_problem().expect("it is told");
        assert!(problems.contains("missing or damaged"), "{problems}");
        let after = world.core.services().services[0].paused;
        if has_copy {
            assert_eq!(after, before);
            assert!(
                problems.contains("paused still") && problems.contains("web"),
                "{problems}"
            );
            world.wait(PAUSE);
            assert_eq!(world.core.services().services[0].paused, None, "it ends at its time");
        } else {
            assert_eq!(after, None);
            assert!(problems.contains("may have ended with the record: web"), "{problems}");
        }
        let now = world.time();
        world
            .core
            .reload(world.core.settings().clone(), world.core.config().clone(), now);
        assert_eq!(world.record_problem(), None);
        // The next daemon finds the record that this one has written; one on a machine that has booted needs none.
        world.wait(AGAIN);
        world.happen(Event::Restart);
        assert_eq!(world.record_problem(), None);
    }
}

/// An older copy does not pause a service that was resumed after it was written.
#[test]
fn a_copy_that_is_older_than_a_resume_pauses_nothing() {
    let mut world = World::new(file(&json!([V4])));
    world.wait(AGAIN);
    world.pause("web", Some(Duration::from_secs(600)));
    let (_, last) = world.core.last_services(world.time()).unwrap();
    world.pause("web", None);
    world.wait(AGAIN);
    world.restart_without_record(last, false);
    assert_eq!(world.core.services().services[0].paused, None);
    let problems = world.record_problem().unwrap();
    assert!(!problems.contains("web"), "{problems}");
}
