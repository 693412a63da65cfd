//! Changes of containers and orders of an operator: each is told with who has asked for it.

use tcpgw::control::events::{After, EventContent};

use super::*;

const DOCKER: &str = "docker";

impl World {
    /// Returns the provider of the last change, as `status` names it; `None` for the state file and the API.
    fn origin(&mut self) -> Option<Box<str>> {
        let now = self.time();
        let applied = self.core.snapshot(now).services.applied;
        applied.expect("a change was made").provider
    }

    /// Returns the causes of all changes of the kernel.
    fn causes(&self) -> Vec<String> {
        let events = self.core.follow(&After::Start).kept;
        let causes = events.iter().filter_map(|event| match &event.what {
            EventContent::Committed { cause, .. } => Some(cause.clone()),
            _ => None,
        });
        causes.collect()
    }

    /// Carries an order out that changes what is served.
    fn ask(&mut self, order: Order) {
        match order {
            Order::Pause => drop(self.order_pause("app", Some(LONG * 9))),
            Order::Resume => drop(self.order_pause("app", None)),
            Order::Drain => drop(self.order_edit("own", ServiceEdit::Drain(vec![at(50).try_into().unwrap()]))),
            Order::Put => {
                let own = json!({"name": "own", "port": 2009, "backends": ["10.9.0.51:80"]});
                drop(self.order_edit("own", ServiceEdit::Put(own.to_string().into_bytes())));
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Order {
    Pause,
    Resume,
    Drain,
    Put,
}

/// A service of containers, and one of the API.
fn begun(is_paused: bool) -> World {
    let mut world = World::new();
    world
        .put(&json!({"name": "own", "port": 2009, "backends": ["10.9.0.50:80", "10.9.0.51:80"]}))
        .unwrap();
    world.settle(&[container("app-1", 1, 2001), container("app-2", 2, 2001)]);
    if is_paused {
        world.ask(Order::Pause);
    }
    world.wait(LONG);
    world
}

fn one_stops() -> [Container; 2] {
    [container("app-1", 1, 2001), stopping(container("app-2", 2, 2001))]
}

#[test]
fn a_change_of_docker_and_an_order_are_told_apart_in_any_order() {
    for order in [Order::Pause, Order::Resume, Order::Drain, Order::Put] {
        let mut world = begun(order == Order::Resume);
        world.tell(&one_stops());
        // A paused service does not change in the kernel by a stop.
        if order != Order::Resume {
            assert_eq!(world.origin().as_deref(), Some(DOCKER));
            assert_eq!(world.causes().pop().unwrap(), "Docker's containers");
        }
        world.ask(order);
        world.run();
        assert_eq!(world.origin(), None, "{order:?}");
        assert!(!world.causes().pop().unwrap().contains("Docker"), "{order:?}");

        let mut world = begun(order == Order::Resume);
        world.ask(order);
        world.run();
        assert_eq!(world.origin(), None, "{order:?}");
        if order != Order::Pause {
            world.tell(&one_stops());
            assert_eq!(world.origin().as_deref(), Some(DOCKER), "{order:?}");
            assert_eq!(world.causes().pop().unwrap(), "Docker's containers");
        }
    }
}

/// What comes while the kernel is being changed is another change.
#[test]
fn what_is_asked_meanwhile_is_not_the_origin_of_the_change_before() {
    let mut world = begun(false);
    world.news(&one_stops(), true);
    let now = world.time();
    let vet = &mut |_: &State, _: &world::examinations::IsKnown<'_>| unreachable!("nothing begins");
    assert!(world.core.decide_docker(vet, now));
    let job = world.core.next_job(now).expect("a job");
    world.ask(Order::Pause);
    world.perform(job);
    assert_eq!(world.origin().as_deref(), Some(DOCKER));
    world.run();
    assert_eq!(world.origin(), None);
    let causes = world.causes();
    assert_eq!(causes[causes.len() - 2..], ["Docker's containers", "pause"]);
    // And the other way round.
    let mut world = begun(false);
    world.ask(Order::Pause);
    let job = world.core.next_job(now).expect("a job");
    world.news(&one_stops(), true);
    assert!(world.core.decide_docker(vet, now));
    world.perform(job);
    assert_eq!(world.origin(), None);
}

/// One transaction of both names both, and the last one as its origin.
#[test]
fn one_transaction_of_both_names_both() {
    let mut world = begun(false);
    let now = world.time();
    let vet = &mut |_: &State, _: &world::examinations::IsKnown<'_>| unreachable!("nothing begins");
    world.news(&one_stops(), true);
    assert!(world.core.decide_docker(vet, now));
    world.ask(Order::Pause);
    world.run();
    assert_eq!(world.causes().pop().unwrap(), "Docker's containers, pause");
    assert_eq!(world.origin(), None);
}

/// A container that answers after an operator has ordered something else is still Docker's.
#[test]
fn the_first_answer_of_a_container_is_its_own_change() {
    let mut world = begun(false);
    world.containers.down.insert(at(3));
    let third = container("app-3", 3, 2001);
    let [one, two] = one_stops();
    world.tell(&[
        one,
        Container {
            is_stopping: false,
            ..two
        },
        third,
    ]);
    world.ask(Order::Put);
    world.run();
    assert_eq!(world.origin(), None);
    world.containers.down.clear();
    world.wait(LONG);
    assert_eq!(world.reached(2001), set(&[1, 2, 3]));
    assert_eq!(world.origin().as_deref(), Some(DOCKER));
}
