//! Endpoints that move from one service to another.

use super::*;

#[test]
fn an_endpoint_that_moves_leaves_nothing_behind() {
    let mut play = Play::serving(&[1, 2]);
    play.want("web", Some(web(&[2])));
    play.want("shop", Some(service("shop", 9000, &["\"10.2.0.1:80\""])));
    play.settle();
    assert_eq!((play.seen("web"), play.seen("shop")), ("2".into(), String::new()));
    assert!(play.membership.draining_backends().is_empty());
    assert!(!play.membership.is_balanced(endpoint(1)), "it has to answer first");
    play.judge(1, true);
    assert_eq!((play.seen("web"), play.seen("shop")), ("2".into(), "1".into()));
}

/// Returns "web" and "shop" on ports 8000 and 9000, with one backend each.
fn each(web_has: u8, shop_has: u8) -> Vec<Arc<Service>> {
    let shop = service("shop", 9000, &[&format!("\"10.2.0.{shop_has}:80\"")]);
    vec![web(&[web_has]), shop]
}

fn serving_each(web_has: u8, shop_has: u8) -> Play {
    let mut play = Play::new();
    play.good = [web_has, shop_has].into();
    play.edit(&Edits {
        put: each(web_has, shop_has),
        gone: Vec::new(),
    });
    play.settle();
    play
}

/// A container that may be another one gets connections while there is no other backend.
#[test]
fn services_that_swap_backends_serve_on_until_the_new_ones_have_answered() {
    let mut play = serving_each(1, 2);
    let put = each(2, 1);
    play.edit(&Edits { put, gone: Vec::new() });
    play.settle();
    assert_eq!((play.seen("web"), play.seen("shop")), ("1".into(), "2".into()));
    play.wait(TIME * 10);
    assert_eq!((play.seen("web"), play.seen("shop")), ("1".into(), "2".into()));
    play.judge(2, true);
    assert_eq!(
        (play.seen("web"), play.seen("shop")),
        ("2".into(), "2".into()),
        "without a drain"
    );
    play.judge(1, true);
    assert_eq!((play.seen("web"), play.seen("shop")), ("2".into(), "1".into()));
    assert!(play.membership.draining_backends().is_empty() && play.membership.moved.is_empty());
}

#[test]
fn who_moves_is_not_missed_before_its_successor_answers() {
    for answers in [true, false] {
        let mut play = serving_each(1, 2);
        let put = each(3, 1);
        play.edit(&Edits { put, gone: Vec::new() });
        play.settle();
        play.judge(1, true);
        assert_eq!(
            (play.seen("web"), play.seen("shop")),
            ("1".into(), "1 2-".into()),
            "in both"
        );
        if answers {
            play.judge(3, true);
            assert_eq!((play.seen("web"), play.seen("shop")), ("3".into(), "1 2-".into()));
            assert!(play.membership.moved.is_empty());
            continue;
        }
        play.dead.insert(3);
        play.judge(3, false);
        play.wait(TIME);
        assert_eq!((play.seen("web"), play.seen("shop")), ("1".into(), "1".into()));
        // The backend comes back before it was removed.
        let put = each(1, 2);
        play.edit(&Edits { put, gone: Vec::new() });
        play.settle();
        assert!(play.seen("web") == "1" && play.membership.moved.iter().all(|(_, name)| &**name == "shop"));
    }
}

/// The service may also get another name on the same port.
#[test]
fn who_moves_away_from_a_service_that_is_renamed_serves_on_there() {
    let mut play = serving_each(1, 2);
    play.edit(&Edits {
        put: vec![
            service("www", 8000, &["\"10.2.0.3:80\""]),
            service("shop", 9000, &["\"10.2.0.1:80\"", "\"10.2.0.2:80\""]),
        ],
        gone: vec!["web".into()],
    });
    play.settle();
    assert_eq!(
        (play.seen("web"), play.seen("www"), play.seen("shop")),
        ("-".into(), "1".into(), "2".into())
    );
    play.judge(3, true);
    assert_eq!(
        (play.seen("web"), play.seen("www"), play.seen("shop")),
        ("-".into(), "3".into(), "2".into())
    );
    assert!(play.membership.draining_backends().is_empty() && play.membership.moved.is_empty());
}

/// Tests the state of 10.2.0.1:80, which was in "web" on port 8000, after one change of the services.
#[test]
fn who_comes_to_another_service_has_to_answer_first() {
    let at = ["\"10.2.0.1:80\""];
    for (what, gone, put, is_new) in [
        (
            "another service",
            &[][..],
            vec![web(&[2]), service("shop", 9000, &at)],
            true,
        ),
        (
            "another service instead",
            &["web"],
            vec![service("shop", 9000, &at)],
            true,
        ),
        ("another name", &["web"], vec![service("shop", 8000, &at)], false),
        ("another port", &[], vec![service("web", 9000, &at)], false),
        (
            "names exchanged",
            &["other"],
            vec![service("web", 9001, &[]), service("shop", 8000, &at)],
            false,
        ),
        ("the same", &[], vec![web(&[1])], false),
        (
            "another port under another name",
            &["web"],
            vec![service("shop", 9000, &at)],
            true,
        ),
    ] {
        let mut play = Play::serving(&[1, 2]);
        play.want("other", Some(service("other", 9001, &[])));
        play.settle();
        play.take_probes();
        play.edit(&Edits {
            gone: gone.iter().map(|name| Name::from(*name)).collect(),
            put,
        });
        assert_eq!(
            matches!(play.probes.get(&endpoint(1)), Some(Probing::Anew(_))),
            is_new,
            "{what}"
        );
        play.settle();
        let served = ["web", "shop"]
            .iter()
            .any(|name| play.seen(name).split(' ').any(|at| at == "1"));
        assert_eq!(served, !is_new, "{what}");
    }
}
