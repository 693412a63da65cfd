//! Members that have to answer first, since another container has their endpoint.

use super::*;

/// Returns service "web" with one backend that drains by definition.
fn stopping(last: u8) -> Arc<Service> {
    let backend = format!(r#"{{"address":"10.2.0.{last}","port":80,"state":"draining"}}"#);
    service("web", 8000, &[&backend])
}

/// Another container has the address of one that drains, and begins slowly.
#[test]
fn who_has_to_answer_is_no_last_resort() {
    let mut play = Play::serving(&[1]);
    play.want("web", Some(stopping(1)));
    play.settle();
    assert_eq!(play.seen("web"), "1-");
    play.want("web", Some(web(&[1])));
    play.membership.prove_again(&"web".into(), endpoint(1), play.now);
    play.settle();
    assert_eq!(play.seen("web"), "1-");
    play.judge(1, false);
    assert_eq!(play.seen("web"), "1-", "it was the container before that had served");
    play.wait(TIME);
    play.judge(1, true);
    assert_eq!(play.seen("web"), "1");
    play.judge(1, false);
    assert_eq!(play.seen("web"), "1", "it has served itself");
}

/// One that gets connections may be started again by nobody that has told: it keeps them while there is no other one.
#[test]
fn who_is_served_and_has_to_answer_again_stays_until_another_one_answers() {
    let mut play = Play::serving(&[1, 2]);
    play.judge(2, false);
    play.membership.prove_again(&"web".into(), endpoint(1), play.now);
    play.settle();
    assert_eq!(play.seen("web"), "1 2");
    play.wait(TIME);
    play.judge(2, true);
    assert_eq!(play.seen("web"), "1- 2");
}

#[test]
fn an_ended_container_is_no_last_resort() {
    for has_successor in [false, true] {
        let mut play = Play::serving(&[1]);
        play.want("web", Some(web(&[2])));
        play.settle();
        assert_eq!(play.seen("web"), "1", "until the other one answers");
        if has_successor {
            play.want("web", Some(web(&[1, 2])));
            play.membership.prove_again(&"web".into(), endpoint(1), play.now);
        }
        play.membership.ended(endpoint(1), |_| true);
        play.settle();
        assert_eq!(play.seen("web"), "1-");
        play.wait(TIME / 2);
        assert_eq!(play.seen("web"), "1-");
        play.judge(2, true);
        assert_eq!(play.seen("web"), "1- 2");
        assert!(play.membership.ended.is_empty());
    }
}

#[test]
fn a_service_is_unserved_until_a_backend_gets_connections() {
    let mut play = Play::new();
    play.want("web", Some(web(&[1])));
    play.settle();
    let begun = play.now;
    assert_eq!(play.membership.unserved_since("web"), Some(begun));
    play.wait(TIME);
    play.want("web", Some(web(&[1, 2])));
    assert_eq!(play.membership.unserved_since("web"), Some(begun));
    play.judge(2, true);
    assert_eq!(play.membership.unserved_since("web"), None);
    play.want("web", Some(web(&[])));
    play.settle();
    play.wait(TIME);
    play.want("web", Some(web(&[3])));
    play.settle();
    assert_eq!(
        (play.seen("web").as_str(), play.membership.unserved_since("web")),
        ("", None)
    );
    play.want("web", None);
    play.settle();
    play.want("web", Some(web(&[3])));
    assert_eq!(
        play.membership.unserved_since("web"),
        Some(play.now),
        "a new one of the same name"
    );
}

/// A daemon that starts does not know whether a service without backends has served.
#[test]
fn a_service_with_backends_in_the_kernel_has_served() {
    for (backends, is_new) in [(&[][..], true), (&[1], false)] {
        let mut play = Play::new();
        let found = vec![Service::clone(&web(backends))];
        play.membership.adopt(found, &BTreeMap::new(), play.now);
        play.want("web", Some(web(&[1])));
        assert_eq!(play.membership.unserved_since("web").is_some(), is_new, "{backends:?}");
    }
}
