//! Fences that are drawn narrower while containers are served: those stay, and what is new is refused.

use super::*;

fn fenced(text: &str) -> Config {
    let whole = format!("[fences]\n{text}\n[docker]\n");
    Config::parse(std::path::Path::new("config.toml"), whole.as_bytes()).unwrap()
}

fn app(number: u8) -> Container {
    container(&format!("app-{number}"), number, 2001)
}

impl World {
    #[track_caller]
    fn tells(&self, kind: ProblemKind, words: &[&str]) {
        let problem = self.problem(kind).unwrap_or_else(|| panic!("{kind:?}"));
        for word in words {
            assert!(problem.message.contains(word), "{word}: {}", problem.message);
        }
    }
}

#[test]
fn a_service_on_a_port_that_is_fenced_off_stays() {
    let mut world = World::new();
    world.settle(&[app(1), app(2)]);
    world.reload_with(fenced("ports = \"2002-2003\""));
    world.wait(LONG);
    let new = container("new-1", 4, 2005);
    for containers in [vec![app(1), app(2)], vec![app(1), app(2), app(3), new.clone()]] {
        world.settle(&containers);
        assert!(world.reached(2001).is_superset(&set(&[1, 2])));
        world.tells(ProblemKind::OutsideFences, &["app", "2001"]);
    }
    assert_eq!((world.reached(2001), world.reached(2005)), (set(&[1, 2, 3]), set(&[])));
    world.tells(ProblemKind::Container, &["\"new-1\"", "outside of the fences"]);
    // The next daemon finds it in the kernel.
    world.restart();
    world.settle(&[app(2), app(3)]);
    assert_eq!(world.reached(2001), set(&[2, 3]));
    // A service that has ended begins within the fences.
    world.settle(&[]);
    world.settle(&[app(2)]);
    assert_eq!(world.reached(2001), set(&[]));
    world.reload_with(following());
    world.wait(LONG);
    assert_eq!(
        (world.reached(2001), world.problem(ProblemKind::Container)),
        (set(&[2]), None)
    );
}

#[test]
fn backends_in_networks_that_are_fenced_off_stay() {
    let mut world = World::new();
    world.settle(&[app(1), app(9)]);
    world.reload_with(fenced("backends = \"10.9.0.0/30\""));
    world.wait(LONG);
    assert_eq!(world.reached(2001), set(&[1, 9]));
    world.tells(ProblemKind::OutsideFences, &["10.9.0.9"]);
    world.settle(&[app(1), app(2), app(9), app(10)]);
    assert_eq!(world.reached(2001), set(&[1, 2, 9]));
    world.tells(
        ProblemKind::Container,
        &["\"app-10\"", "10.9.0.10 is outside of the fences"],
    );
    world.settle(&[app(1), app(2)]);
    assert_eq!(
        (world.reached(2001), world.problem(ProblemKind::OutsideFences)),
        (set(&[1, 2]), None)
    );
}

#[test]
fn more_services_and_backends_than_are_allowed_stay_and_new_ones_are_refused() {
    let mut world = World::new();
    let web = container("web-1", 8, 2008);
    world.settle(&[app(1), app(2), app(3), web.clone()]);
    world.reload_with(fenced("max_services = 1\nmax_backends = 3"));
    world.wait(LONG);
    assert_eq!((world.reached(2001), world.reached(2008)), (set(&[1, 2, 3]), set(&[8])));
    assert!(world.problem(ProblemKind::OutsideFences).is_some());
    world.settle(&[app(1), app(2), app(3), app(4), app(5), web.clone()]);
    assert_eq!((world.reached(2001), world.reached(2008)), (set(&[1, 2, 3]), set(&[8])));
    world.tells(ProblemKind::Container, &["(app-4, app-5)", "max_backends"]);
    world.restart();
    world.settle(&[app(1), stopping(app(2)), app(3), app(4), web.clone()]);
    assert_eq!((world.reached(2001), world.reached(2008)), (set(&[1, 3]), set(&[8])));
    world.settle(&[app(1), app(3), web.clone(), container("new-1", 6, 2006)]);
    assert_eq!((world.reached(2001), world.reached(2006)), (set(&[1, 3]), set(&[])));
    world.tells(ProblemKind::Container, &["new-1", "max_services"]);
    // As many of the new containers as fit are served.
    world.reload_with(fenced("max_backends = 4"));
    world.settle(&[app(1), app(3), app(4), app(5), web]);
    assert_eq!(world.reached(2001), set(&[1, 3, 4]));
    world.tells(ProblemKind::Container, &["(app-5)"]);
}
