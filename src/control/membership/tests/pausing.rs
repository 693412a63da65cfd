//! Services that get no new connections for a time.

use super::*;

fn pause(until: Instant) -> Pause {
    Pause {
        until,
        time: Duration::from_secs(60),
        since: 0,
        uid: 0,
        browser: None,
    }
}

#[test]
fn a_paused_service_gets_nothing_and_comes_back_as_it_was() {
    let mut play = Play::serving(&[1, 2]);
    let until = play.now + Duration::from_secs(5);
    assert!(play.membership.pause("web", Some(pause(until))));
    play.settle();
    assert_eq!(play.seen("web"), "1- 2-");
    assert_eq!(play.membership.serving()["web"].on_empty, PacketRefusal::Drop);
    assert!(play.membership.draining_backends().is_empty());
    play.judge(1, false);
    play.judge(2, false);
    play.settle();
    assert_eq!(play.seen("web"), "1- 2-");
    assert!(
        play.membership
            .pause("web", Some(pause(until + Duration::from_secs(5))))
    );
    assert!(!play.membership.is_dirty());
    assert_eq!(play.membership.next_deadline(), Some(until + Duration::from_secs(5)));
    assert!(play.membership.tick(until).is_empty());
    assert_eq!(play.membership.tick(until + Duration::from_secs(5)), ["web".into()]);
    play.settle();
    assert_eq!(play.seen("web"), "1 2", "both failed in one wave, as without a pause");
    assert_eq!(play.membership.serving()["web"].on_empty, PacketRefusal::Reset);
}

#[test]
fn a_replacement_during_a_pause_takes_over_after_it() {
    let mut play = Play::serving(&[1]);
    play.membership
        .pause("web", Some(pause(play.now + Duration::from_secs(60))));
    play.want("web", Some(web(&[2])));
    play.settle();
    assert_eq!(play.seen("web"), "1-");
    play.judge(2, true);
    play.settle();
    assert_eq!(play.seen("web"), "1- 2-");
    assert!(play.membership.is_balanced(endpoint(2)) && !play.membership.is_balanced(endpoint(1)));
    assert!(play.membership.pause("web", None));
    play.settle();
    assert_eq!(play.seen("web"), "1- 2");
}
