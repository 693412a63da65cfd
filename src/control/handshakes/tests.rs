//! Tests of handshakes by single observations, without a kernel.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use super::completed::MOST_COMPLETED;
use super::remembered::{RECENT, REMEMBERED};
use super::tracker::{MOST_HANDSHAKES, SUSPICIOUS};
use super::*;

const A: &str = "a";
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));
/// Client of the other family.
const CLIENT_6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7));

fn client(last: u8) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, last).into()
}

fn observe(tracker: &mut HandshakeTracker, begun: &[(u32, bool)], completed: &[u32], now: Instant) -> HandshakeReport {
    for (id, is_answered) in begun {
        tracker.handshake(*id, A, CLIENT, *is_answered, now);
    }
    if tracker.wants_completed(true, now) {
        for id in completed {
            tracker.completed(*id, A, CLIENT);
        }
    }
    tracker.end(ReportedHandshakes::All, now)
}

/// Returns the report about IPv4 clients of service `a`.
fn of_a(report: &HandshakeReport) -> Overdue {
    report.services[&(A.into(), Family::V4)]
}

fn severity(report: &HandshakeReport) -> Option<Severity> {
    report
        .problems(|_| Some(80), false)
        .first()
        .map(|problem| problem.severity)
}

#[test]
fn a_handshake_is_overdue_that_was_there_at_two_observations() {
    let mut tracker = HandshakeTracker::default();
    let start = Instant::now();
    let first = observe(&mut tracker, &[(1, false), (2, false)], &[], start);
    assert_eq!(first.services.len(), 0);
    let early = observe(&mut tracker, &[(1, false)], &[], start + Duration::from_secs(2));
    assert_eq!(early.services.len(), 0);
    // Flow 2 is another one with the same id: it was gone at the last observation.
    let second = observe(&mut tracker, &[(1, false), (2, false)], &[], start + PATIENCE);
    let expected = Overdue {
        unanswered: 1,
        last_unanswered: 1,
        is_unserved: true,
        is_recent: true,
        ..Overdue::default()
    };
    assert_eq!(of_a(&second), expected);
    assert_eq!(severity(&second), Some(Severity::Error));
    let gone = observe(&mut tracker, &[], &[], start + PATIENCE * 2);
    let expected = Overdue {
        unanswered: 0,
        ..expected
    };
    assert_eq!(of_a(&gone), expected, "nobody has been served since");
    assert_eq!(gone.unanswered(), [(A.into(), 0)].into());
}

/// Looks once a second at clients that try again and again, each of which gives up after 4 s: conntrack knows a
/// handshake for 5 s from its last SYN, which is sent at 0, 1 and 3 s. Returns what was told after each second.
/// `mended_at`: from that second on clients are served.
fn outage(client: IpAddr, of_each: impl Fn(u32) -> u32, seconds: u32, mended_at: u32) -> Vec<Option<Severity>> {
    let mut tracker = HandshakeTracker::default();
    let start = Instant::now();
    let mut collected = Vec::new();
    for second in 0..seconds {
        let now = start + Duration::from_secs(second.into());
        for begun in (0..=second).filter(|begun| begun % 9 == 0 && *begun < mended_at) {
            // Observations one second apart may miss a handshake at its end.
            if second - begun < 8 && begun + 3 < mended_at {
                tracker.handshake(begun, A, client, false, now);
            }
        }
        if tracker.wants_completed(true, now) {
            for id in 0..of_each(second) {
                tracker.completed(10_000 + id, A, client);
            }
        }
        collected.push(severity(&tracker.end(ReportedHandshakes::All, now)));
    }
    collected
}

/// Clients that give up and try again leave times in which no handshake is overdue.
#[test]
fn a_service_is_told_of_until_a_client_is_served() {
    for client in [CLIENT, CLIENT_6] {
        let mended = 40;
        let severities = outage(client, |second| second.saturating_sub(mended).min(1) + 3, 60, mended);
        let first = severities.iter().position(Option::is_some).expect("an error");
        assert_eq!(first, 3);
        let served = usize::try_from(mended).unwrap() + 1;
        let (broken, later) = severities.split_at(served);
        assert!(
            broken[first..]
                .iter()
                .all(|severity| *severity == Some(Severity::Error)),
            "{severities:?}"
        );
        assert!(
            later.iter().all(|severity| *severity != Some(Severity::Error)),
            "{severities:?}"
        );
        let is_over = later.iter().position(Option::is_none).expect("an end");
        assert!(is_over <= 13, "{severities:?}");
        assert!(later[is_over..].iter().all(Option::is_none), "{severities:?}");
    }
}

#[test]
fn a_service_that_serves_some_is_warned_of_without_a_break() {
    let severities = outage(CLIENT, |second| second / 2, 60, 60);
    assert!(
        severities[3..]
            .iter()
            .all(|severity| *severity == Some(Severity::Warning)),
        "{severities:?}"
    );
}

/// A service without further clients gives no sign whether clients are served.
#[test]
fn a_service_that_nobody_tries_is_forgotten() {
    let mut tracker = HandshakeTracker::default();
    let start = Instant::now();
    let mut reported = |begun: &[(u32, bool)], seconds: u64| {
        severity(&observe(
            &mut tracker,
            begun,
            &[7],
            start + Duration::from_secs(seconds),
        ))
    };
    reported(&[(1, false)], 0);
    assert_eq!(reported(&[(1, false)], 3), Some(Severity::Error));
    assert_eq!(reported(&[], 50), Some(Severity::Error));
    assert_eq!(reported(&[(2, false)], 55), Some(Severity::Error), "one begins again");
    assert_eq!(reported(&[], 100), Some(Severity::Error));
    assert_eq!(reported(&[], 54 + REMEMBERED.as_secs()), Some(Severity::Error));
    assert_eq!(reported(&[], 55 + REMEMBERED.as_secs()), None);
    assert_eq!(reported(&[(3, false)], 200), None);
}

#[test]
fn clients_of_one_family_do_not_hide_those_of_the_other() {
    let mut tracker = HandshakeTracker::default();
    let start = Instant::now();
    for second in 0..30 {
        let now = start + Duration::from_secs(second);
        tracker.handshake(1, A, CLIENT_6, false, now);
        assert!(tracker.wants_completed(true, now));
        for id in 0..second {
            tracker.completed(1000 + u32::try_from(id).unwrap(), A, CLIENT);
        }
        let report = tracker.end(ReportedHandshakes::All, now);
        assert_eq!(severity(&report), (second >= 3).then_some(Severity::Error), "{second}");
        if second >= 3 {
            let problems = report.problems(|_| Some(80), false);
            assert!(
                problems[0].message.contains("1 handshake of IPv6 clients"),
                "{problems:?}"
            );
            assert_eq!(problems.len(), 1);
        }
    }
    // Clients of both families become one problem.
    let now = start + Duration::from_secs(30);
    for (id, client) in [(1, CLIENT_6), (2, CLIENT)] {
        tracker.handshake(id, A, client, false, now);
    }
    tracker.end(ReportedHandshakes::All, now);
    let later = now + Duration::from_secs(12);
    for (id, client) in [(1, CLIENT_6), (2, CLIENT)] {
        tracker.handshake(id, A, client, false, later);
    }
    tracker.wants_completed(true, later);
    let problems = tracker
        .end(ReportedHandshakes::All, later)
        .problems(|_| Some(80), false);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].message.contains("IPv4") && problems[0].message.contains("IPv6"));
}

#[test]
fn what_is_remembered_ends_with_the_service_and_not_with_a_look_that_fails() {
    let mut tracker = HandshakeTracker::default();
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    observe(&mut tracker, &[(1, false)], &[], start);
    assert!(!tracker.remembers());
    assert_eq!(
        severity(&observe(&mut tracker, &[(1, false)], &[], at(3))),
        Some(Severity::Error)
    );
    tracker.handshake(2, A, CLIENT, false, at(4));
    tracker.abandon();
    assert_eq!(severity(&observe(&mut tracker, &[], &[], at(5))), Some(Severity::Error));
    assert!(tracker.remembers());
    assert_eq!(
        observe(&mut tracker, &[], &[], at(6)).problems(|_| None, false),
        [],
        "there is no such service"
    );
    tracker.retain(|name| name != A);
    assert_eq!(observe(&mut tracker, &[], &[], at(7)), HandshakeReport::default());
}

/// conntrack keeps handshakes that backends have answered for a minute.
#[test]
fn answers_that_reach_clients_again_are_no_error_while_old_ones_are_remembered() {
    let mut tracker = HandshakeTracker::default();
    let start = Instant::now();
    let mut after = |clients: &[u8], others: &[u32], seconds| {
        let now = start + Duration::from_secs(seconds);
        severity(&observe_answered(&mut tracker, clients, (A, others), now))
    };
    after(&[1, 2, 3], &[5], 0);
    after(&[1, 2, 3], &[5], 1);
    assert_eq!(after(&[1, 2, 3], &[5], 3), Some(Severity::Error));
    assert_eq!(after(&[], &[5], 20), Some(Severity::Error), "nobody was served since");
    assert_eq!(after(&[1, 2, 3], &[5], 21), Some(Severity::Error));
    assert_eq!(after(&[1, 2, 3], &[5], 24), Some(Severity::Error));
    assert_eq!(after(&[1, 2, 3], &[5, 6], 25), Some(Severity::Warning), "one is served");
    for seconds in 26..80 {
        assert_eq!(after(&[1, 2, 3], &[5, 6], seconds), Some(Severity::Warning));
    }
    assert_eq!(after(&[], &[5, 6], 80 + RECENT.as_secs()), None);
}

/// Flows that existed when the first of them began prove nothing.
#[test]
fn flows_from_before_do_not_hide_that_nobody_gets_in_any_more() {
    let mut tracker = HandshakeTracker::default();
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    observe(&mut tracker, &[(1, false)], &[7], start);
    observe(&mut tracker, &[(1, false)], &[7], at(1));
    let all_fail = observe(&mut tracker, &[(1, false)], &[7], at(3));
    assert_eq!(severity(&all_fail), Some(Severity::Error));
    assert!(
        all_fail.problems(|_| Some(80), false)[0]
            .message
            .contains("none is completed meanwhile")
    );
    let served = observe(&mut tracker, &[(1, false)], &[7, 8], at(4));
    assert_eq!(severity(&served), Some(Severity::Warning), "somebody gets in");
    assert!(
        served.problems(|_| Some(80), false)[0]
            .message
            .contains("others are completed meanwhile")
    );
    assert_eq!(
        severity(&observe(&mut tracker, &[(1, false)], &[7, 8], at(9))),
        Some(Severity::Warning)
    );
    for seconds in 10..=30 {
        let observed = observe(&mut tracker, &[(1, false)], &[7, 8], at(seconds));
        assert_eq!(severity(&observed), Some(Severity::Warning), "it is the same handshake");
    }
    observe(&mut tracker, &[(2, false)], &[7, 8], at(31));
    let again = observe(&mut tracker, &[(2, false)], &[7, 8], at(34));
    assert_eq!(severity(&again), Some(Severity::Error), "none since it began");
    assert_eq!(
        severity(&observe(&mut tracker, &[], &[7], at(38))),
        Some(Severity::Error)
    );
    assert_eq!(
        severity(&observe(&mut tracker, &[], &[7, 9], at(39))),
        Some(Severity::Warning)
    );
    assert_eq!(severity(&observe(&mut tracker, &[], &[7, 9], at(44))), None);
}

/// Tests one client behind a broken path: clients that are served while it waits show that the service works.
#[test]
fn one_that_fails_while_others_are_completed_is_no_error() {
    for are_few in [true, false] {
        let mut tracker = HandshakeTracker::default();
        let start = Instant::now();
        let mut completed = vec![7];
        for second in 0..30 {
            let now = start + Duration::from_secs(second);
            tracker.handshake(1, A, CLIENT, false, now);
            if tracker.wants_completed(are_few, now) {
                for id in &completed {
                    tracker.completed(*id, A, CLIENT);
                }
            }
            let latest = severity(&tracker.end(ReportedHandshakes::All, now));
            let expected = (second >= 3).then_some(Severity::Warning);
            assert_eq!(latest, expected, "after {second} s, {are_few}");
            if second % 2 == 0 {
                completed.push(100 + u32::try_from(second).unwrap());
            }
        }
    }
}

/// If there are many flows, they are recorded only for handshakes that take long.
#[test]
fn completed_flows_are_asked_for_once_a_handshake_takes_long() {
    let mut tracker = HandshakeTracker::default();
    let start = Instant::now();
    tracker.handshake(1, A, CLIENT, false, start);
    assert!(!tracker.wants_completed(false, start));
    tracker.end(ReportedHandshakes::All, start);
    let later = start + SUSPICIOUS;
    tracker.handshake(1, A, CLIENT, false, later);
    tracker.handshake(2, "b", CLIENT, false, later);
    assert!(tracker.wants_completed(false, later));
    tracker.completed(7, A, CLIENT);
    let followed = &tracker.families[0].completed;
    assert!(followed.contains_key(A) && !followed.contains_key("b"));
    assert!(tracker.end(ReportedHandshakes::All, later).services.is_empty());
    let overdue = start + PATIENCE;
    tracker.handshake(1, A, CLIENT, false, overdue);
    assert!(tracker.wants_completed(false, overdue));
    tracker.completed(7, A, CLIENT);
    assert_eq!(
        severity(&tracker.end(ReportedHandshakes::All, overdue)),
        Some(Severity::Error)
    );
}

/// One observation of handshakes that backends have answered, each of the client with that last byte, while flows of a
/// service are completed.
fn observe_answered(
    tracker: &mut HandshakeTracker,
    clients: &[u8],
    (service, completed): (&str, &[u32]),
    now: Instant,
) -> HandshakeReport {
    for last in clients {
        tracker.handshake((*last).into(), A, client(*last), true, now);
    }
    tracker.wants_completed(true, now);
    for id in completed {
        tracker.completed(*id, service, CLIENT);
    }
    tracker.end(ReportedHandshakes::All, now)
}

#[test]
fn forged_syns_are_no_error_while_anybody_is_served() {
    let mut tracker = HandshakeTracker::default();
    let start = Instant::now();
    let mut after = |seconds, clients: &[u8], others: &[u32]| {
        let now = start + Duration::from_secs(seconds);
        severity(&observe_answered(&mut tracker, clients, ("b", others), now))
    };
    assert_eq!(after(0, &[1, 2, 3], &[5]), None);
    let severity = after(3, &[1, 2, 3], &[5, 6]);
    assert_eq!(severity, Some(Severity::Warning), "somebody is served elsewhere");
    for seconds in 4..60 {
        let severity = after(seconds, &[1, 2, 3, 4], &[5, 6]);
        assert_eq!(
            severity,
            Some(Severity::Warning),
            "somebody was served a short time ago"
        );
    }
    after(70, &[8, 9, 10], &[5, 6]);
    let severity = after(73, &[8, 9, 10], &[5, 6]);
    assert_eq!(severity, Some(Severity::Error), "nobody is served anywhere");
}

#[test]
fn what_one_client_does_not_confirm_is_no_error() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut tracker = HandshakeTracker::default();
    for seconds in 0..300 {
        let report = observe_answered(&mut tracker, &[1, 2], (A, &[]), at(seconds));
        let expected = (seconds >= 3).then_some(Severity::Warning);
        assert_eq!(severity(&report), expected, "two clients after {seconds} s");
        let with_cause = report
            .problems(|_| Some(80), true)
            .first()
            .map(|problem| problem.severity);
        assert_eq!(with_cause, expected.map(|_| Severity::Error), "a cause is known");
    }
    // An unanswered handshake of a backend cannot be forged.
    tracker.handshake(9, A, client(9), false, at(300));
    observe_answered(&mut tracker, &[1], (A, &[]), at(300));
    tracker.handshake(9, A, client(9), false, at(303));
    let report = observe_answered(&mut tracker, &[1], (A, &[]), at(303));
    assert_eq!(severity(&report), Some(Severity::Error));
}

#[test]
fn clients_that_fail_within_a_minute_are_counted_together() {
    let start = Instant::now();
    let mut tracker = HandshakeTracker::default();
    let mut overdue = |last: u8, seconds: u64| {
        for wait in [0, 3] {
            let now = start + Duration::from_secs(seconds + wait);
            let report = observe_answered(&mut tracker, &[last], (A, &[]), now);
            if wait > 0 {
                return (severity(&report).unwrap(), of_a(&report).anywhere.clients);
            }
        }
        unreachable!("there are two observations")
    };
    assert_eq!(overdue(1, 0), (Severity::Warning, 1));
    assert_eq!(overdue(2, 10), (Severity::Warning, 2));
    assert_eq!(overdue(1, 20), (Severity::Warning, 2), "the same one again");
    assert_eq!(overdue(3, 30), (Severity::Error, 3));
    assert_eq!(overdue(4, 40), (Severity::Error, 3));
    assert_eq!(overdue(5, 200), (Severity::Warning, 1), "the others are forgotten");
}

#[test]
fn memory_is_bounded() {
    let mut tracker = HandshakeTracker::default();
    let (start, most) = (Instant::now(), u32::try_from(MOST_HANDSHAKES).unwrap());
    for now in [start, start + PATIENCE] {
        for id in 0..most + 1000 {
            tracker.handshake(id, A, CLIENT, false, now);
        }
        assert!(tracker.wants_completed(false, now) == (now > start));
        for id in 0..10_000 {
            tracker.completed(id, A, CLIENT);
        }
        let report = tracker.end(ReportedHandshakes::All, now);
        assert!(tracker.first_seen.len() <= MOST_HANDSHAKES);
        if now > start {
            assert_eq!(of_a(&report).unanswered, u64::from(most));
        }
    }
    assert!(tracker.families[0].completed[A].len() <= MOST_COMPLETED);
}
