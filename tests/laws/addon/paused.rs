//! A pause and a suspension of one service, in either order and over a restart: clients of a suspended app are reset.
use std::time::Duration;

use std::num::NonZeroU16;

use tcpgw::addon::Dialect;
use tcpgw::control::request::Refused;
use tcpgw_kernel::fake::ConnectOutcome;

use super::{Event, World};

const RESET: ConnectOutcome = ConnectOutcome::Empty { reset: true };
const PAUSED: ConnectOutcome = ConnectOutcome::Empty { reset: false };

impl World {
    /// Pauses the first app's service for ten minutes, or ends its pause.
    fn pause(&mut self, pauses: bool) -> Result<Vec<String>, Refused> {
        let name = self.resource(0).id.service();
        let mut answer = self.order_pause(&name, pauses.then_some(Duration::from_secs(600)));
        self.run();
        answer.try_recv().expect("an answer")
    }

    /// Carries an event out, and gives the kernel the time to hold it.
    fn happens(&mut self, event: &Event) {
        self.happen(event);
        self.wait(Duration::from_secs(10));
    }

    fn is_paused(&self) -> bool {
        let services = self.core.services().services;
        services.iter().any(|listed| listed.paused.is_some())
    }
}

fn served() -> (World, NonZeroU16) {
    let mut world = World::new();
    world.happens(&Event::Provision(Dialect::Scalingo, 0, 0, None));
    world.happens(&Event::Register(0, 2));
    let port = world.resource(0).port;
    assert!(matches!(world.connect_to(port), ConnectOutcome::Backend(_)));
    (world, port)
}

#[test]
fn a_suspension_ends_a_pause() {
    for restarts in [false, true] {
        let (mut world, port) = served();
        assert_eq!(world.pause(true), Ok(Vec::new()));
        world.wait(Duration::from_secs(10));
        assert_eq!(world.connect_to(port), PAUSED);
        world.happens(&Event::Suspend(0));
        assert_eq!(world.connect_to(port), RESET, "nobody waits for what does not come");
        assert!(!world.is_paused());
        if restarts {
            world.restart();
            world.wait(Duration::from_secs(10));
            assert_eq!(world.connect_to(port), RESET);
        }
        world.happens(&Event::Resume(0));
        assert!(matches!(world.connect_to(port), ConnectOutcome::Backend(_)));
        world.end().expect("all is as it is said");
    }
}

/// A suspension ends a pause that only the record has, because the daemon died when the suspension was on the disk.
#[test]
fn a_suspension_ends_a_pause_that_only_the_record_knows() {
    let (mut world, port) = served();
    assert_eq!(world.pause(true), Ok(Vec::new()));
    world.wait(Duration::from_secs(10));
    world.happens(&Event::Kill(true));
    world.happens(&Event::Suspend(0));
    assert!(
        world.clients.uncertain.contains(&0),
        "the daemon died before it could answer"
    );
    assert_eq!(world.connect_to(port), RESET);
    assert!(!world.is_paused());
    world.end().expect("all is as it is said");
}

#[test]
fn a_suspended_app_cannot_be_paused() {
    let (mut world, port) = served();
    world.happens(&Event::Suspend(0));
    let refused = world.pause(true).expect_err("it is suspended");
    assert!(
        matches!(&refused, Refused::Refused(why) if why.contains("app app-0 is suspended")),
        "{refused:?}"
    );
    assert!(!world.is_paused());
    assert_eq!(world.connect_to(port), RESET);
    assert_eq!(
        world.pause(false),
        Ok(Vec::new()),
        "who ends a pause that there is none of has it ended"
    );
    world.happens(&Event::Resume(0));
    assert!(matches!(world.connect_to(port), ConnectOutcome::Backend(_)));
    world.end().expect("all is as it is said");
}
