//! Addresses that one container after another has: a new one gets no connection before it has answered.

use proptest::prelude::*;

use super::*;

const PORT: u16 = 2001;

#[derive(Debug, Clone, Copy)]
enum Event {
    /// A container starts at this address, unless one runs there. It listens later.
    Start(u8),
    /// It listens.
    Listen(u8),
    /// It is told to stop, and ends at the second time.
    Stop(u8),
    /// It ends without notice.
    Die(u8),
    /// It does not listen any more, and runs.
    Deaf(u8),
    /// A client connects, and stays until all connections end at the next time.
    Connect,
    /// Another one has its address, and nobody has told of the end.
    Replace(u8),
    /// It is started again, and nobody has told of the end.
    Again(u8),
    /// The daemon is killed, and another one starts.
    Restart,
    Wait(u8),
}

fn event() -> impl Strategy<Value = Event> {
    let at = || 1..4_u8;
    prop_oneof![
        4 => at().prop_map(Event::Start),
        3 => at().prop_map(Event::Listen),
        4 => at().prop_map(Event::Stop),
        1 => at().prop_map(Event::Die),
        1 => at().prop_map(Event::Deaf),
        2 => Just(Event::Connect),
        1 => at().prop_map(Event::Replace),
        1 => at().prop_map(Event::Again),
        1 => Just(Event::Restart),
        3 => (1..30_u8).prop_map(Event::Wait),
    ]
}

/// The containers of one service, by the last numbers of their addresses.
struct Addresses {
    world: World,
    /// The container that has the address.
    there: BTreeMap<u8, There>,
    /// Those that got connections when they were started again: nobody knows for certain that this has happened.
    kept: BTreeSet<u8>,
    begun: usize,
}

#[derive(Debug, Clone, Copy)]
struct There {
    container: usize,
    start: u64,
    is_stopping: bool,
}

impl Addresses {
    fn new() -> Self {
        Self {
            world: World::new(),
            there: BTreeMap::new(),
            kept: BTreeSet::new(),
            begun: 0,
        }
    }

    fn begin(&mut self, number: u8) {
        self.begun += 1;
        let there = There {
            container: self.begun,
            start: 0,
            is_stopping: false,
        };
        self.there.insert(number, there);
        self.kept.remove(&number);
        self.is_deaf(number);
    }

    fn is_deaf(&mut self, number: u8) {
        self.world.containers.down.insert(at(number));
        self.world.containers.met.remove(&at(number));
    }

    fn end(&mut self, number: u8) {
        self.there.remove(&number);
        self.kept.remove(&number);
        self.world.containers.down.insert(at(number));
    }

    fn tell(&mut self) {
        let containers = self.there.iter().map(|(number, there)| Container {
            id: format!("id-{}", there.container).into(),
            is_stopping: there.is_stopping,
            start: there.start,
            ..container(&format!("app-{number}"), *number, PORT)
        });
        // One that does not run any more, so that the service stays.
        let old = down(container("app-9", 9, PORT));
        let containers: Vec<Container> = containers.chain([old]).collect();
        self.world.tell(&containers);
    }

    fn happen(&mut self, event: Event) {
        // Of an answer in the very moment of a change nobody can tell which container gave it.
        self.world.wait(Duration::from_millis(1));
        match event {
            Event::Start(number) if !self.there.contains_key(&number) => self.begin(number),
            Event::Listen(number) if self.there.contains_key(&number) => {
                self.world.containers.down.remove(&at(number));
            }
            Event::Stop(number) => match self.there.get_mut(&number) {
                Some(there) if !there.is_stopping => {
                    there.is_stopping = true;
                    self.kept.remove(&number);
                }
                _ => self.end(number),
            },
            Event::Die(number) => self.end(number),
            Event::Deaf(number) => drop(self.world.containers.down.insert(at(number))),
            Event::Replace(number) if self.runs(number) => self.begin(number),
            Event::Again(number) if self.runs(number) => {
                if self.world.reached(PORT).contains(&at(number)) {
                    self.kept.insert(number);
                }
                self.is_deaf(number);
                self.there.entry(number).and_modify(|there| there.start += 1);
            }
            Event::Connect if self.world.kernel().flows.is_empty() => {
                for pick in 0..10 {
                    let syn = Syn {
                        client: ([198, 51, 100, 8], 50_000 + pick).into(),
                        ..world::kernel::syn(PORT)
                    };
                    self.world.connect(&syn, pick.into());
                }
            }
            Event::Connect => self.world.kernel().flows.clear(),
            Event::Restart => self.world.restart(),
            Event::Wait(_) | Event::Start(_) | Event::Listen(_) | Event::Replace(_) | Event::Again(_) => {}
        }
        self.tell();
    }

    /// Returns whether a container runs at the address that was not told to stop.
    fn runs(&self, number: u8) -> bool {
        self.there.get(&number).is_some_and(|there| !there.is_stopping)
    }

    /// Checks that clients reach only containers that have answered, or that were reached before.
    fn check(&mut self) -> Result<(), TestCaseError> {
        for backend in self.world.reached(PORT) {
            let mut there = self.there.iter().filter(|(number, _)| at(**number) == backend);
            let Some((number, there)) = there.next() else {
                prop_assert!(false, "{backend} has no container");
                continue;
            };
            prop_assert!(!there.is_stopping, "{} was told to stop", backend);
            let has_answered = self.world.containers.met.contains(&backend);
            prop_assert!(
                has_answered || self.kept.contains(number),
                "{} has not answered",
                backend
            );
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Whatever starts, stops and gets an address that others had: a container gets connections after it has answered, and what is
    /// served outlives the daemon.
    #[test]
    fn who_has_not_answered_gets_no_connection(events in prop::collection::vec(event(), 1..30)) {
        let mut addresses = Addresses::new();
        for event in events {
            let before = addresses.world.reached(PORT);
            addresses.happen(event);
            addresses.check()?;
            match event {
                Event::Wait(seconds) => {
                    for _ in 0..seconds {
                        addresses.world.wait(Duration::from_secs(1));
                        addresses.check()?;
                    }
                }
                Event::Restart => prop_assert!(addresses.world.reached(PORT).is_superset(&before), "{:?}", before),
                _ => {}
            }
        }
        addresses.world.containers.down.clear();
        addresses.tell();
        addresses.world.wait(LONG);
        let active = addresses.there.iter().filter(|(_, there)| !there.is_stopping);
        let expected: BTreeSet<SocketAddr> = active.map(|(number, _)| at(*number)).collect();
        prop_assert_eq!(addresses.world.reached(PORT), expected);
    }
}

/// The first container of a new image has the address of the last one of the old image, and takes long to begin.
#[test]
fn a_container_that_begins_slowly_gets_nothing_at_an_address_that_was_served() {
    let mut world = World::new();
    let old = container("app-1", 1, PORT);
    world.settle(std::slice::from_ref(&old));
    // A connection is there, so that the old one drains.
    assert_eq!(
        world.connect(&world::kernel::syn(PORT), 0),
        ConnectOutcome::Backend(at(1))
    );
    world.tell(&[stopping(old.clone())]);
    world.wait(Duration::from_secs(2));
    world.containers.down.insert(at(1));
    world.tell(&[down(old)]);
    let new = Container {
        id: "new".into(),
        ..container("app-1", 1, PORT)
    };
    world.tell(&[new]);
    for _ in 0..60 {
        world.wait(Duration::from_secs(1));
        assert_eq!(world.reached(PORT), set(&[]));
    }
    world.containers.down.clear();
    world.wait(Duration::from_secs(3));
    assert_eq!(world.reached(PORT), set(&[1]));
}
