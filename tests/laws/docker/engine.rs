//! What the engine tells of containers: they are served, drain, and are started again.

use super::*;

#[test]
fn containers_are_served_and_drain_when_they_are_told_to_stop() {
    let mut world = World::new();
    let (a, b) = (container("app-1", 1, 2001), container("app-2", 2, 2001));
    world.settle(&[a.clone(), b.clone()]);
    assert_eq!(world.reached(2001), set(&[1, 2]));
    assert_eq!(world.providers(), [("app".to_owned(), "docker")].into());
    // The kernel is told at once, also while the gateway cannot be examined and another container begins.
    world.examinations.stick(world.clock.now, Duration::from_secs(30));
    world.tell(&[
        stopping(a.clone()),
        b.clone(),
        container("app-3", 3, 2001),
        container("web", 4, 2002),
    ]);
    assert_eq!(world.reached(2001), set(&[2]));
    world.wait(LONG);
    assert_eq!((world.reached(2001), world.reached(2002)), (set(&[2, 3]), set(&[4])));
    // A service without containers that run is still there, and one without any is gone.
    world.settle(&[down(a), down(b)]);
    assert_eq!(world.reached(2001), set(&[]));
    assert_eq!(world.providers(), [("app".to_owned(), "docker")].into());
    assert_eq!(
        world.problem(ProblemKind::NoActiveBackend).map(|of| of.severity),
        Some(Severity::Error)
    );
    world.settle(&[]);
    assert_eq!(
        (world.providers().len(), world.problem(ProblemKind::NoActiveBackend)),
        (0, None)
    );
}

/// Containers of one service are told in a burst: the kernel is changed once for each of their snapshots.
#[test]
fn a_thousand_containers_are_a_few_transactions() {
    let mut world = World::new();
    let many: Vec<Container> = (0..1000_u16)
        .map(|number| Container {
            id: format!("{number}").into(),
            networks: vec![ContainerNetwork {
                name: "web".into(),
                reach: NetworkReach::Routed,
                addresses: vec![
                    [
                        10,
                        10,
                        u8::try_from(number / 200).unwrap(),
                        u8::try_from(1 + number % 200).unwrap(),
                    ]
                    .into(),
                ],
            }],
            ..container(&format!("app{}x-1", number / 250), 1, 2001 + number / 250)
        })
        .collect();
    let before = world.core.own_metrics().commits.count();
    world.settle(&many);
    assert_eq!(
        world
            .core
            .membership()
            .wanted()
            .values()
            .map(|of| of.backends.len())
            .sum::<usize>(),
        1000
    );
    let commits = world.core.own_metrics().commits.count() - before;
    assert!(commits <= 4, "{commits}");
}

/// One that was started again at the same address does not listen yet, though its probes were answered before.
#[test]
fn a_container_that_was_started_again_answers_a_probe_first() {
    let mut world = World::new();
    let (a, b) = (container("app-1", 1, 2001), container("app-2", 2, 2001));
    world.settle(&[a.clone(), b.clone()]);
    let again = Container { start: 1, ..a.clone() };
    let another = Container {
        id: "other".into(),
        ..a.clone()
    };
    for new in [again, another] {
        world.tell(&[stopping(a.clone()), b.clone()]);
        world.tell(&[down(a.clone()), b.clone()]);
        world.containers.down.insert(at(1));
        world.tell(&[new.clone(), b.clone()]);
        assert_eq!(world.reached(2001), set(&[2]));
        world.containers.down.clear();
        world.wait(LONG);
        assert_eq!(world.reached(2001), set(&[1, 2]));
        world.settle(&[a.clone(), b.clone()]);
    }
}
