//! Services that the configured fences exclude.

use tcpgw::config::Config;
use tcpgw::control::request::ServiceEdit;
use tcpgw_core::problem::ProblemKind;

use super::expected::problem_of;
use super::{Event, Loss, WRITTEN, World};

fn fenced(text: &str) -> Config {
    Config::parse("/fences.toml".as_ref(), format!("[fences]\n{text}\n").as_bytes()).unwrap()
}

/// Narrower fences end no service that is served and are reported; services outside of them that are not served stay out of the
/// kernel.
#[test]
fn fences_keep_services_out_that_are_not_served_and_end_none() {
    for (text, fence) in [
        ("ports = \"9001-9003\"", "fences.ports in /fences.toml allows 9001-9003"),
        (
            "backends = [\"10.9.0.1\", \"10.9.0.2\", \"10.9.0.3\", \"10.9.0.50\"]",
            "fences.backends in /fences.toml",
        ),
        (
            "max_services = 3",
            "there are 4 services; fences.max_services in /fences.toml allows 3",
        ),
        (
            "max_backends = 7",
            "there are 8 backends; fences.max_backends in /fences.toml allows 7",
        ),
    ] {
        let tells_of_a2 = |world: &World, kind| {
            let problem = problem_of(world, kind);
            let [(service, message)] = &problem[..] else {
                panic!("{text}: {problem:?}")
            };
            assert_eq!(service, "a2");
            assert!(
                message.contains(fence) && message.contains("tcpgw service rm a2"),
                "{message}"
            );
        };
        let mut world = World::new();
        world.config = fenced(text);
        world.happen(Event::Restart([].into()));
        world.check().unwrap();
        tells_of_a2(&world, ProblemKind::OutsideFences);
        assert_eq!(problem_of(&world, ProblemKind::HeldBack), []);

        world.happen(Event::Restart([Loss::Reboot].into()));
        assert_eq!(world.served(), [9001, 9002, 9003].into(), "{text}");
        tells_of_a2(&world, ProblemKind::HeldBack);
        assert_eq!(problem_of(&world, ProblemKind::OutsideFences), []);

        world.config = Config::default();
        world.set_key(true, false);
        world.wait(WRITTEN);
        world.check().unwrap();
        assert_eq!(problem_of(&world, ProblemKind::HeldBack), []);

        world.config = fenced(text);
        world.set_key(true, false);
        world.wait(WRITTEN);
        world.check().unwrap();
        assert_eq!(problem_of(&world, ProblemKind::OutsideFences).len(), 1, "{text}");
        world.clients.ports.remove(&9004);
        assert!(world.order("a2", ServiceEdit::Delete));
        world.wait(WRITTEN);
        assert_eq!(problem_of(&world, ProblemKind::OutsideFences), []);
        world.check().unwrap();
    }
}

/// The last good state of a file that the fences refuse is not served outside of them after a boot.
#[test]
fn fences_hold_for_the_last_good_state_of_a_file() {
    let mut world = World::new();
    world.config = fenced("ports = [9001, \"9003-9004\"]");
    world.write_file(None);
    world.happen(Event::Restart([].into()));
    world.check().unwrap();
    assert_eq!(problem_of(&world, ProblemKind::OutsideFences).len(), 1);
    world.happen(Event::Restart([Loss::Reboot].into()));
    assert_eq!(world.served(), [9001, 9003, 9004].into());
    let problem = problem_of(&world, ProblemKind::HeldBack);
    assert!(problem[0].1.contains("change it in /state.json"), "{problem:?}");
}
