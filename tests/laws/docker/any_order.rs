//! Containers, an engine that goes away, restarts of the daemon and orders of others, in any order.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Event {
    /// The engine tells of these containers: number, port, whether it was told to stop.
    Tell(BTreeMap<u8, (u16, bool)>),
    /// The engine has just begun, and names none.
    Doubt,
    Away,
    /// The daemon is killed, and another one starts; the record is lost.
    Restart(bool),
    Wait(u16),
    /// The API makes or removes a service on that port.
    Put(u16),
    Remove(u16),
    /// Containers answer nothing until the next event.
    Flip(u8),
    Blind(u8),
}

fn event() -> impl Strategy<Value = Event> {
    let containers = prop::collection::btree_map(1..6_u8, (2001..2004_u16, any::<bool>()), 0..6);
    prop_oneof![
        6 => containers.prop_map(Event::Tell),
        1 => Just(Event::Doubt),
        1 => Just(Event::Away),
        2 => any::<bool>().prop_map(Event::Restart),
        2 => (0..100_u16).prop_map(Event::Wait),
        1 => (2001..2004_u16).prop_map(Event::Put),
        1 => (2001..2004_u16).prop_map(Event::Remove),
        1 => (1..6_u8).prop_map(Event::Flip),
        1 => (0..20_u8).prop_map(Event::Blind),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// In the end each port has the containers that the engine told of last, unless the API has it; and no container gets
    /// connections that was told to stop, at any time at which the daemon has read the gateway.
    #[test]
    fn the_end_is_what_the_engine_told_last(events in prop::collection::vec(event(), 1..25)) {
        let mut world = World::new();
        let mut last: BTreeMap<u8, (u16, bool)> = BTreeMap::new();
        for event in events {
            match event {
                Event::Tell(containers) => {
                    last.clone_from(&containers);
                    let containers: Vec<Container> = told(&containers);
                    world.tell(&containers);
                    if world.problem(ProblemKind::Starting).is_some() {
                        // A daemon that has not read the gateway changes nothing.
                        world.wait(LONG);
                        prop_assert_eq!(world.problem(ProblemKind::Starting), None);
                    }
                    for (number, (port, is_stopping)) in &last {
                        prop_assert!(!is_stopping || !world.reached(*port).contains(&at(*number)), "{} at {}", number, port);
                    }
                }
                Event::Doubt => world.tell_so(&[], false),
                Event::Away => world.is_away(),
                Event::Restart(loses_record) => {
                    if loses_record {
                        // Until it is written, nobody else knows whose service it is; one may have waited for an examination of 20 s.
                        world.wait(Duration::from_secs(25));
                    }
                    let kernel = world.kill();
                    if loses_record {
                        let _ = std::fs::remove_file(world.record_path());
                    }
                    world.start(kernel);
                    world.run();
                }
                Event::Wait(seconds) => world.wait(Duration::from_secs(seconds.into())),
                Event::Put(port) => {
                    let _ = world.put(&json!({"name": format!("api{port}"), "port": port, "backends": []}));
                }
                Event::Remove(port) => drop(world.order(&format!("api{port}"), ServiceEdit::Delete)),
                Event::Flip(number) => world.containers.flip(at(number)),
                Event::Blind(seconds) => world.examinations.stick(world.clock.now, Duration::from_secs(seconds.into())),
            }
        }
        world.containers.down.clear();
        world.tell(&told(&last));
        world.wait(LONG * 3);
        let providers = world.providers();
        for port in 2001..2004 {
            let mut expected: BTreeSet<SocketAddr> = BTreeSet::new();
            if !providers.contains_key(&format!("api{port}")) {
                let active = last.iter().filter(|(_, (of, is_stopping))| *of == port && !is_stopping);
                expected.extend(active.map(|(number, _)| at(*number)));
            }
            prop_assert_eq!(world.reached(port), expected, "{}", port);
        }
        let orphans = providers.values().filter(|provider| **provider == "orphan").count();
        prop_assert_eq!(orphans, 0);
    }
}

fn told(containers: &BTreeMap<u8, (u16, bool)>) -> Vec<Container> {
    let containers = containers.iter().map(|(number, (port, is_stopping))| Container {
        is_stopping: *is_stopping,
        ..container(&format!("s{port}x-{number}"), *number, *port)
    });
    containers.collect()
}
