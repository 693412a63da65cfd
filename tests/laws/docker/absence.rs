//! An engine that is away, has just begun or is not followed any more, and what is left of its services after a boot.

use super::*;

#[test]
fn what_the_engine_does_not_tell_stays_as_it_is() {
    let mut world = World::new();
    let both = [container("app-1", 1, 2001), container("app-2", 2, 2001)];
    world.settle(&both);
    world.is_away();
    let problem = world.problem(ProblemKind::Docker).unwrap();
    assert_eq!(problem.severity, Severity::Warning);
    assert!(
        problem.message.contains("goes on as it was last known"),
        "{}",
        problem.message
    );
    // A daemon that starts while the engine is away.
    world.restart();
    world.is_away();
    world.wait(LONG);
    assert_eq!(world.reached(2001), set(&[1, 2]));
    assert_eq!(world.providers(), [("app".to_owned(), "docker")].into());
    // An engine that has just begun and names none is not believed.
    world.tell_so(&[], false);
    world.wait(LONG);
    assert_eq!(world.reached(2001), set(&[1, 2]));
    assert!(
        world
            .problem(ProblemKind::Docker)
            .unwrap()
            .message
            .contains("names no container")
    );
    world.settle(&both[..1]);
    assert_eq!(
        (world.reached(2001), world.problem(ProblemKind::Docker)),
        (set(&[1]), None)
    );
    // It is believed when it says so for long.
    world.tell_so(&[], false);
    world.settle(&[]);
    assert_eq!((world.reached(2001), world.providers().len()), (set(&[]), 0));
}

/// The record and the file of last services know the provider.
#[test]
fn services_survive_the_loss_of_the_record_or_of_the_table() {
    for loses_record in [true, false] {
        let mut world = World::new();
        world.settle(&[container("app-1", 1, 2001)]);
        let mut kernel = world.kill();
        if loses_record {
            std::fs::remove_file(world.record_path()).unwrap();
        } else {
            kernel = Fake::default();
        }
        world.start(kernel);
        world.is_away();
        world.wait(LONG);
        assert_eq!(world.reached(2001), set(&[1]), "{loses_record}");
        assert_eq!(world.providers(), [("app".to_owned(), "docker")].into());
    }
}

/// Containers get other addresses when a machine boots: those of before may belong to others now.
#[test]
fn after_a_boot_services_wait_for_the_engine_without_backends() {
    let mut world = World::new();
    world.settle(&[container("app-1", 1, 2001)]);
    drop(world.kill());
    let kernel = world.boot();
    world.start(kernel);
    world.is_away();
    world.wait(LONG);
    assert_eq!(world.reached(2001), set(&[]));
    assert_eq!(world.providers(), [("app".to_owned(), "docker")].into());
    world.settle(&[container("app-1", 7, 2001)]);
    assert_eq!(world.reached(2001), set(&[7]));
}

#[test]
fn without_the_section_the_services_become_orphans() {
    for by_restart in [false, true] {
        let mut world = World::new();
        world.settle(&[container("app-1", 1, 2001)]);
        world.config = Config::default();
        if by_restart {
            world.restart();
        } else {
            world.reload_with(Config::default());
        }
        world.wait(LONG);
        assert_eq!(world.reached(2001), set(&[1]));
        assert_eq!(world.providers(), [("app".to_owned(), "orphan")].into(), "{by_restart}");
        assert_eq!(
            world.problem(ProblemKind::Orphaned).map(|of| of.severity),
            Some(Severity::Warning)
        );
        // With the section they are Docker's again.
        world.config = following();
        if by_restart {
            world.restart();
        } else {
            world.reload_with(following());
        }
        world.settle(&[container("app-1", 1, 2001)]);
        assert_eq!(world.providers(), [("app".to_owned(), "docker")].into(), "{by_restart}");
        assert_eq!(world.problem(ProblemKind::Orphaned), None);
    }
}
