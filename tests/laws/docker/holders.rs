//! The port of a service stays with it while its containers are replaced, also if those of another service wait for it.

use super::*;

const PORT: u16 = 2001;

fn another(container: Container, id: &str) -> Container {
    Container {
        id: id.into(),
        ..container
    }
}

impl World {
    /// Asserts that the thief is told why it waits, and that nothing else is wrong with labels.
    #[track_caller]
    fn thief_waits(&self, words: &str) {
        let all = self.core.problems();
        let problems: Vec<&Problem> = all.iter().filter(|of| of.kind == ProblemKind::Container).collect();
        let [problem] = problems.as_slice() else {
            panic!("{problems:?}")
        };
        assert_eq!(problem.service.as_deref(), Some("thief"));
        assert!(
            problem.message.contains("container \"thief-1\"") && problem.message.contains(words),
            "{}",
            problem.message
        );
    }
}

#[test]
fn a_container_that_waits_gets_no_port_while_those_of_the_holder_are_replaced() {
    let mut world = World::new();
    let (app, thief) = (container("app-1", 1, PORT), container("thief-1", 2, PORT));
    world.settle(&[app.clone(), thief.clone()]);
    assert_eq!(world.reached(PORT), set(&[1]));
    // Compose restarts it, and creates it anew: the new one is there before the old one is gone.
    let new = container("app-1", 3, PORT);
    for containers in [
        vec![stopping(app.clone()), thief.clone()],
        vec![down(app.clone()), thief.clone()],
        vec![down(app), down(new.clone()), thief.clone()],
        vec![down(new.clone()), thief.clone()],
    ] {
        world.settle(&containers);
        assert_eq!(world.reached(PORT), set(&[]));
        world.thief_waits("of service \"app\", which has served it before, and which container \"app-1\" is of");
    }
    world.settle(&[new.clone(), thief.clone()]);
    assert_eq!(world.reached(PORT), set(&[3]));
    // The next daemon knows whose port it is, though the thief was created before.
    world.restart();
    world.settle(&[new.clone(), thief.clone()]);
    assert_eq!(world.reached(PORT), set(&[3]));
    world.settle(&[stopping(new), thief.clone()]);
    assert_eq!(world.reached(PORT), set(&[]));
    world.thief_waits("\"app\"");
}

#[test]
fn a_service_that_is_removed_and_created_keeps_its_port() {
    let mut world = World::new();
    let (app, thief) = (container("app-1", 1, PORT), container("thief-1", 2, PORT));
    world.settle(&[app.clone(), thief.clone()]);
    world.tell(std::slice::from_ref(&thief));
    world.wait(Duration::from_secs(5));
    assert_eq!(world.reached(PORT), set(&[]));
    world.thief_waits("last container was removed a moment ago");
    world.settle(&[another(app, "new"), thief.clone()]);
    assert_eq!(world.reached(PORT), set(&[1]));
    world.thief_waits("\"app\"");
    // Who comes no more has the port no more.
    world.settle(std::slice::from_ref(&thief));
    assert_eq!(
        (world.reached(PORT), world.problem(ProblemKind::Container)),
        (set(&[2]), None)
    );
    world.settle(&[]);
    assert_eq!(world.providers(), [].into());
}

/// A service that moves to another port leaves its port to others at once.
#[test]
fn a_port_that_its_service_has_left_is_free() {
    let mut world = World::new();
    let (old, moved) = (container("app-1", 1, PORT), container("app-2", 2, 2002));
    let next = container("thief-1", 3, PORT);
    world.settle(&[old.clone(), moved.clone(), next.clone()]);
    assert_eq!((world.reached(PORT), world.reached(2002)), (set(&[1]), set(&[])));
    world.settle(&[stopping(old.clone()), moved.clone(), next.clone()]);
    world.settle(&[down(old), moved.clone(), next.clone()]);
    world.settle(&[down(container("app-3", 4, 2002)), moved, next]);
    assert_eq!((world.reached(PORT), world.reached(2002)), (set(&[3]), set(&[2])));
}

/// A new project beside the old one takes over where both name the same service.
#[test]
fn projects_of_one_service_take_over_from_each_other() {
    let mut world = World::new();
    let project = |name: &str, last: u8| {
        let mut container = container(name, last, PORT);
        container.labels.insert("tcpgw.service".into(), "app".into());
        container
    };
    let (blue, green) = (project("blue-1", 1), project("green-1", 2));
    world.settle(std::slice::from_ref(&blue));
    world.settle(&[blue.clone(), green.clone()]);
    assert_eq!(world.reached(PORT), set(&[1, 2]));
    world.settle(&[stopping(blue.clone()), green.clone()]);
    world.settle(&[down(blue), green.clone()]);
    assert_eq!(world.reached(PORT), set(&[2]));
    world.settle(&[green]);
    assert_eq!(
        (world.reached(PORT), world.problem(ProblemKind::Container)),
        (set(&[2]), None)
    );
}
