//! Labels that ask for what others have, or for what is not possible.

use super::*;

#[test]
fn a_container_cannot_take_the_port_or_name_of_another_provider() {
    let mut world = World::new();
    world
        .put(&json!({"name": "own", "port": 2001, "backends": ["10.9.0.50:80"]}))
        .unwrap();
    world
        .put(&json!({"name": "app", "port": 2002, "backends": ["10.9.0.51:80"]}))
        .unwrap();
    world.wait(LONG);
    let containers = [
        container("thief", 1, 2001),
        container("app", 2, 2003),
        container("good", 3, 2004),
    ];
    world.settle(&containers);
    assert_eq!(world.reached(2001), set(&[50]));
    assert_eq!(world.reached(2002), set(&[51]));
    assert_eq!((world.reached(2003), world.reached(2004)), (set(&[]), set(&[3])));
    let problems: Vec<Problem> = world
        .core
        .problems()
        .iter()
        .filter(|of| of.kind == ProblemKind::Container)
        .cloned()
        .collect();
    let told: Vec<(Option<&str>, bool)> = problems
        .iter()
        .map(|of| (of.service.as_deref(), of.severity == Severity::Error))
        .collect();
    assert_eq!(told, [(Some("thief"), true), (Some("app"), true)]);
    assert!(
        problems[0].message.contains("2001 is already taken by service \"own\""),
        "{}",
        problems[0].message
    );
    assert!(
        problems[1].message.contains("it came in through the API"),
        "{}",
        problems[1].message
    );
    // Nor can others take theirs.
    let refused = world
        .put(&json!({"name": "x", "port": 2004, "backends": []}))
        .unwrap_err();
    assert!(format!("{refused:?}").contains("taken by service"), "{refused:?}");
    for edit in [ServiceEdit::Delete, ServiceEdit::Drain(Vec::new())] {
        let refused = world.order("good", edit).unwrap_err().lines().join(";");
        assert!(
            refused.contains("defined by labels of Docker's containers (good): change their labels"),
            "{refused}"
        );
    }
    // When the reason is gone, it is served.
    world.order("own", ServiceEdit::Delete).unwrap();
    world.order("app", ServiceEdit::Delete).unwrap();
    world.wait(LONG);
    assert_eq!((world.reached(2001), world.reached(2003)), (set(&[1]), set(&[2])));
    assert_eq!(world.problem(ProblemKind::Container), None);
}

/// What is served goes on where its new form is not possible, with the containers that are left.
#[test]
fn a_change_that_is_not_possible_ends_no_service() {
    let mut world = World::new();
    world
        .put(&json!({"name": "own", "port": 2009, "backends": []}))
        .unwrap();
    let mut config = following();
    config.fences = Fences {
        max_backends: Some(2.try_into().unwrap()),
        ..Fences::default()
    };
    world.reload_with(config);
    let (a, b, c) = (
        container("app-1", 1, 2001),
        container("app-2", 2, 2001),
        container("app-3", 3, 2001),
    );
    world.settle(&[a.clone(), b.clone()]);
    world.settle(&[a.clone(), b.clone(), c.clone()]);
    assert_eq!(world.reached(2001), set(&[1, 2]));
    let problem = world.problem(ProblemKind::Container).unwrap();
    assert!(
        problem.message.contains("max_backends") && problem.severity == Severity::Warning,
        "{problem:?}"
    );
    world.settle(&[stopping(a), b.clone(), c.clone()]);
    assert_eq!(world.reached(2001), set(&[2]), "three containers are still too many");
    world.settle(&[b, c]);
    assert_eq!(
        (world.reached(2001), world.problem(ProblemKind::Container)),
        (set(&[2, 3]), None)
    );
    // All containers want a port that another service has: nobody defines the old one any more.
    world.settle(&[container("app-4", 4, 2009)]);
    assert_eq!(world.reached(2001), set(&[]));
    assert!(
        world
            .problem(ProblemKind::Container)
            .is_some_and(|of| of.severity == Severity::Error)
    );
}

#[test]
fn a_local_program_keeps_its_port() {
    let mut world = World::new();
    world.surroundings.listening.insert(2001);
    world.settle(&[container("app-1", 1, 2001), container("web-1", 2, 2002)]);
    assert_eq!((world.reached(2001), world.reached(2002)), (set(&[]), set(&[2])));
    let problem = world.problem(ProblemKind::HeldBack).unwrap();
    assert!(problem.message.contains("`take_over = true`"), "{}", problem.message);
    world.surroundings.listening.clear();
    world.wait(LONG);
    assert_eq!(world.reached(2001), set(&[1]));
}

/// A state file that is read at the start comes first, whoever is quicker.
#[test]
fn a_state_file_comes_first_when_both_are_new() {
    let mut world = world::World::without_daemon(Nobody);
    world.config = following();
    world.file.is_named = true;
    let file = json!({"version": 1, "services": [{"name": "file", "port": 2001, "backends": ["10.9.0.50:80"]}]});
    world.file.content = Some(model::parse(file.to_string().as_bytes()).unwrap());
    world.start(Fake::default());
    world.settle(&[container("app-1", 1, 2001)]);
    assert_eq!(world.reached(2001), set(&[50]));
    assert!(world.problem(ProblemKind::Container).is_some());
    assert_eq!(world.problem(ProblemKind::RejectedState), None);
}
