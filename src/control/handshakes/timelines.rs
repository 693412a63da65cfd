//! Whole outages, second by second: reports while clients come, are served, or are not.

mod lost_answers;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use super::completed::MOST_COMPLETED;
use super::failing::MOST_FAILING;
use super::*;

const A: &str = "a";
const B: &str = "b";
/// A client that the backend bans.
const BANNED: u32 = 1;
/// Other clients, by address.
const REAL: u32 = 100;
const FORGED: u32 = 1000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum AttemptEnd {
    Served,
    /// Served, and ended with a reset before the next observation.
    Reset,
    /// The handshake is not answered by a backend.
    Unanswered,
    /// The client does not confirm what the backend answers.
    Unconfirmed,
}
use AttemptEnd::{Reset, Served, Unanswered, Unconfirmed};

/// A client that connects at some second.
#[derive(Clone, Copy)]
struct Attempt {
    service: &'static str,
    second: u32,
    client: u32,
    end: AttemptEnd,
}

/// Returns attempts of a client of service [`A`] at these seconds.
fn each(seconds: impl Iterator<Item = u32>, client: u32, end: AttemptEnd) -> Vec<Attempt> {
    of(A, seconds, client, end)
}

/// Returns attempts of a client of this service at these seconds.
fn of(service: &'static str, seconds: impl Iterator<Item = u32>, client: u32, end: AttemptEnd) -> Vec<Attempt> {
    let attempt = |second| Attempt {
        service,
        second,
        client,
        end,
    };
    seconds.map(attempt).collect()
}

/// Returns the reports about [`A`], with one observation a second. `old`: number of flows that exist from the start,
/// of which 10 end each second.
fn told(attempts: &[Attempt], old: u32, seconds: u32) -> Vec<Option<Severity>> {
    let address = |client: u32| IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + client));
    told_of(attempts, address, old, seconds)
}

/// Returns the same for clients with these addresses.
fn told_of(attempts: &[Attempt], address: impl Fn(u32) -> IpAddr, old: u32, seconds: u32) -> Vec<Option<Severity>> {
    let (mut tracker, start) = (HandshakeTracker::default(), Instant::now());
    let mut severities = Vec::new();
    for second in 0..seconds {
        let now = start + Duration::from_secs(second.into());
        let is_heard = tracker.is_suspicious();
        let mut completed: Vec<(u32, &str, u32)> = (10 * second..old).map(|id| (1_000_000 + id, A, REAL)).collect();
        for (id, attempt) in (0..).zip(attempts).filter(|(_, attempt)| attempt.second <= second) {
            let (age, service, client) = (second - attempt.second, attempt.service, attempt.client);
            match attempt.end {
                Served => completed.push((id, service, client)),
                Unanswered if age <= 7 => tracker.handshake(id, service, address(client), false, now),
                Unconfirmed if age <= 5 => tracker.handshake(id, service, address(client), true, now),
                Unanswered | Unconfirmed | Reset => {}
            }
        }
        // The order of the kernel's hash table is random.
        completed.sort_by_key(|(id, ..)| id.wrapping_mul(0x9e37_79b1));
        if tracker.wants_completed(old < 4096, now) {
            completed
                .iter()
                .all(|(id, service, client)| tracker.completed(*id, service, address(*client)));
        }
        let reset = |attempt: &&Attempt| attempt.end == Reset && attempt.second + 1 == second;
        for attempt in attempts.iter().filter(reset).filter(|_| is_heard) {
            tracker.heard(
                attempt.service,
                address(attempt.client),
                now.checked_sub(Duration::from_secs(1)).unwrap(),
            );
        }
        let hearing = if is_heard {
            ReportedHandshakes::All
        } else {
            ReportedHandshakes::Part
        };
        let problems = tracker
            .end(hearing, now)
            .problems(|name| (name == A).then_some(80), false);
        severities.push(problems.first().map(|problem| problem.severity));
        assert!(tracker.families[0].failing.values().all(|of| of.len() <= MOST_FAILING));
    }
    severities
}

/// Returns each second at which the report changes, with the new report.
fn changes(told: &[Option<Severity>]) -> Vec<(usize, Option<Severity>)> {
    let mut changes: Vec<(usize, Option<Severity>)> = Vec::new();
    for (second, severity) in told.iter().enumerate() {
        if changes.last().and_then(|(_, last)| *last) != *severity {
            changes.push((second, *severity));
        }
    }
    changes
}

const ERROR: Option<Severity> = Some(Severity::Error);
const WARNING: Option<Severity> = Some(Severity::Warning);

#[test]
fn one_that_is_banned_is_an_error_until_another_is_served_and_never_again() {
    for (pause, first) in [(1, 3), (10, 3), (30, 3)] {
        let mut all = each((0..300).step_by(pause), BANNED, Unanswered);
        all.extend(each((9..300).step_by(14), REAL, Served));
        let severities = told(&all, 100, 300);
        let errors: Vec<usize> = (0..severities.len())
            .filter(|second| severities[*second] == ERROR)
            .collect();
        assert_eq!(
            errors,
            (first..9).collect::<Vec<_>>(),
            "one try each {pause} s: {severities:?}"
        );
        if pause < 11 {
            assert_eq!(changes(&severities), [(3, ERROR), (9, WARNING)], "{pause}");
        }
    }
}

/// Addresses of a network of 64 bits may all belong to one host.
#[test]
fn ever_new_addresses_of_one_ipv6_network_are_an_error_a_few_times() {
    let network = |client: u32| u128::from(if client >= FORGED { FORGED } else { client }) << 64;
    let address = |client: u32| IpAddr::V6(Ipv6Addr::from(network(client) + u128::from(client)));
    let mut attempts: Vec<Attempt> = Vec::new();
    for second in 0..120 {
        attempts.extend(each([second].into_iter(), FORGED + second, Unanswered));
    }
    attempts.extend(each((0..120).step_by(5), REAL, Served));
    let severities = told_of(&attempts, address, 0, 120);
    let errors = severities
        .iter()
        .skip(21)
        .filter(|severity| **severity == Some(Severity::Error));
    assert_eq!(errors.count(), 0, "{:?}", changes(&severities));
}

#[test]
fn one_that_is_banned_and_alone_is_an_error_a_minute_after_the_last_other() {
    let mut all = each(0..200, BANNED, Unanswered);
    all.extend(each([20].into_iter(), REAL, Served));
    let severities = changes(&told(&all, 0, 200));
    assert_eq!(severities[..2], [(3, ERROR), (20, WARNING)]);
    assert_eq!((severities.len(), severities[2].1), (3, ERROR), "{severities:?}");
    assert!((78..=84).contains(&severities[2].0), "{severities:?}");
}

/// Clients that were served a short time ago prove nothing.
#[test]
fn an_outage_is_an_error_within_seconds_with_one_that_is_banned_and_without() {
    for (is_banned, client) in [(false, REAL), (true, REAL), (true, REAL + 1)] {
        let mut all = each((5..100).step_by(14), REAL, Served);
        if is_banned {
            all.extend(each(0..300, BANNED, Unanswered));
        }
        // The first one that fails comes 12 s after one that was served.
        all.extend(each((101..180).step_by(10), client, Unanswered));
        all.extend(each((181..300).step_by(10), client, Served));
        let severities = told(&all, 10, 300);
        let outage = &severities[101..181];
        assert_eq!(
            outage.iter().position(|severity| *severity == ERROR),
            Some(3),
            "{severities:?}"
        );
        assert!(outage[3..].iter().all(|severity| *severity == ERROR), "{severities:?}");
        assert!(
            severities[20..101].iter().all(|severity| *severity != ERROR),
            "{severities:?}"
        );
        assert!(
            severities[181..].iter().all(|severity| *severity != ERROR),
            "{severities:?}"
        );
    }
}

/// Checks that each outage is reported although the address was served in between: clients may share an address.
#[test]
fn each_outage_of_the_same_client_is_told() {
    let mut all = Vec::new();
    for begin in [0, 40, 80] {
        all.extend(each((begin..begin + 20).step_by(2), REAL, Unanswered));
        all.extend(each((begin + 20..begin + 40).step_by(2), REAL, Served));
    }
    let severities = changes(&told(&all, 0, 120));
    let expected = [
        (3, ERROR),
        (20, WARNING),
        (35, None),
        (43, ERROR),
        (60, WARNING),
        (75, None),
        (83, ERROR),
        (100, WARNING),
        (115, None),
    ];
    assert_eq!(severities, expected);
}

#[test]
fn forged_handshakes_are_an_error_until_somebody_is_served_and_not_again_while_they_last() {
    // From few addresses, and from ever new ones.
    for addresses in [50, 100_000] {
        let mut all = Vec::new();
        for second in 0..200 {
            let from = (0..5).map(|n| FORGED + (5 * second + n) % addresses);
            all.extend(from.flat_map(|client| each([second].into_iter(), client, Unconfirmed)));
        }
        all.extend(each((14..200).step_by(14), REAL, Served));
        let severities = changes(&told(&all, 100, 200));
        assert_eq!(severities, [(3, ERROR), (14, WARNING)], "{addresses}");
    }
}

/// Backends that were silent in one outage say nothing about the answers in the next one.
#[test]
fn an_outage_of_answers_is_told_shortly_after_one_of_backends() {
    let mut all = Vec::new();
    for client in REAL..REAL + 3 {
        all.extend(each((0..20).step_by(2), client, Unanswered));
        all.extend(each((22..50).step_by(2), client, Unconfirmed));
    }
    all.extend(each([20].into_iter(), REAL, Served));
    let severities = told(&all, 0, 50);
    let (mended, broken) = severities[20..].split_at(5);
    assert!(mended.iter().all(|severity| *severity == WARNING), "{severities:?}");
    assert!(broken.iter().all(|severity| *severity == ERROR), "{severities:?}");
}

/// Old flows that end make room for others among the remembered ones; these are not new.
#[test]
fn old_flows_are_never_taken_for_new_ones() {
    let most = u32::try_from(MOST_COMPLETED).unwrap();
    for old in [most / 4, most + 1000, 2 * most] {
        let outage = each((0..30).step_by(3), REAL, Unanswered);
        assert_eq!(changes(&told(&outage, old, 30)), [(3, ERROR)], "{old}");
        // Some served clients are seen though there are more flows than are remembered.
        let mut all = outage;
        all.extend(each(0..30, REAL + 1, Served));
        let severities = told(&all, old, 30);
        assert!(
            severities[12..].iter().all(|severity| *severity == WARNING),
            "{old}: {severities:?}"
        );
    }
}

#[test]
fn clients_that_fail_are_remembered_up_to_a_number() {
    let mut all = each((0..100).step_by(14), REAL, Served);
    for client in 0..4000 {
        all.extend(each([client / 20].into_iter(), FORGED + client, Unanswered));
    }
    let severities = told(&all, 0, 160);
    assert_eq!(severities[59], WARNING, "one was served");
    // The clients that began to fail last are among the remembered ones.
    assert_eq!(severities[150], ERROR);
}

/// Connections that end with a reset are never there when flows are listed.
#[test]
fn clients_that_end_with_a_reset_are_served() {
    // One that is banned, beside others.
    let mut all = each(0..60, BANNED, Unanswered);
    all.extend(each(0..90, REAL, Reset));
    assert_eq!(changes(&told(&all, 0, 90)), [(3, WARNING), (76, None)]);
    // An outage that ends.
    let mut all = each((0..20).step_by(2), REAL, Unanswered);
    all.extend(each((20..60).step_by(2), REAL, Reset));
    assert_eq!(changes(&told(&all, 0, 60)), [(3, ERROR), (21, WARNING), (35, None)]);
}

/// Tests many addresses that a backend bans, each of which tries once.
#[test]
fn a_network_that_is_banned_is_an_error_a_few_times_while_others_are_served() {
    for pause in [5, 11, 20] {
        let mut all = Vec::new();
        for second in (0..600).step_by(3) {
            all.extend(each([second].into_iter(), FORGED + second, Unanswered));
        }
        all.extend(each((0..600).step_by(pause), REAL, Served));
        let before = told(&all, 0, 600);
        let errors = before.iter().skip(81).filter(|told| **told == ERROR).count();
        assert_eq!(errors, 0, "{pause}: {:?}", changes(&before));
        // An outage is told all the same.
        all.retain(|attempt| attempt.end != Served || attempt.second < 400);
        all.extend(each((400..600).step_by(pause), REAL, Unanswered));
        let severities = told(&all, 0, 600);
        let first = severities
            .iter()
            .skip(400)
            .position(|severity| *severity == ERROR)
            .unwrap();
        assert!(first <= 46, "{pause}: after {first} s");
        assert!(
            severities[400 + first..].iter().all(|severity| *severity == ERROR),
            "{pause}"
        );
    }
}

#[test]
fn one_that_is_banned_and_comes_seldom_is_an_error_once() {
    for pause in [70, 300, 800] {
        let mut all = each((0..2000).step_by(pause), BANNED, Unanswered);
        all.extend(each((9..2000).step_by(14), REAL, Served));
        let severities = told(&all, 10, 2000);
        let errors: Vec<usize> = (0..severities.len())
            .filter(|second| severities[*second] == ERROR)
            .collect();
        assert_eq!(errors, (3..9).collect::<Vec<_>>(), "one try each {pause} s");
    }
}

/// Clients come again, forged ones do not.
#[test]
fn answers_of_one_service_that_are_lost_are_an_error_while_another_is_served() {
    let others = of(B, 0..60, REAL, Served);
    let mut all = others.clone();
    for client in 0..3 {
        all.extend(each((client..60).step_by(9), REAL + client, Unconfirmed));
    }
    let told_of_clients = told(&all, 0, 60);
    assert_eq!(told_of_clients.iter().position(|told| *told == ERROR), Some(14));
    assert!(told_of_clients[14..].iter().all(|told| *told == ERROR));
    let mut all = others;
    for second in 0..60 {
        all.extend(each([second].into_iter(), FORGED + second, Unconfirmed));
    }
    let severities = told(&all, 0, 60);
    assert!(severities.iter().all(|severity| *severity != ERROR), "{severities:?}");
}

/// Tests a slow machine, which observes less often: a handshake may be overdue at the observation after the first one
/// that saw it.
#[test]
fn nobody_is_called_dead_before_others_could_be_heard() {
    for (pause, is_served) in [(1, true), (4, true), (10, true), (4, false)] {
        let (mut tracker, start) = (HandshakeTracker::default(), Instant::now());
        let client = |client: u32| IpAddr::V4(Ipv4Addr::from(client));
        let mut severities = Vec::new();
        for second in (0..60).step_by(pause) {
            let now = start + Duration::from_secs(second);
            let is_heard = tracker.is_suspicious();
            if second >= 2 {
                tracker.handshake(BANNED, A, client(BANNED), false, now);
            }
            tracker.wants_completed(true, now);
            if is_heard && is_served {
                let last = now.checked_sub(Duration::from_secs(pause.try_into().unwrap())).unwrap();
                tracker.heard(A, client(REAL), last);
            }
            let hearing = if is_heard {
                ReportedHandshakes::All
            } else {
                ReportedHandshakes::Part
            };
            let problems = tracker.end(hearing, now).problems(|_| Some(80), false);
            severities.push(problems.first().map(|problem| problem.severity));
        }
        assert_eq!(severities.contains(&ERROR), !is_served, "{pause}: {severities:?}");
        assert!(
            severities[3..].iter().all(Option::is_some) || pause == 1,
            "{pause}: {severities:?}"
        );
    }
}

/// Clients that gave up in an outage and do not come back look as if they were banned.
#[test]
fn outages_that_come_again_are_told_each_time() {
    let is_out = |second: u32| second % 50 >= 30;
    let mut all = Vec::new();
    for second in 0..400 {
        let end = if is_out(second) { Unanswered } else { Served };
        all.extend(each([second].into_iter(), REAL + second, end));
    }
    let severities = told(&all, 0, 400);
    for begin in (30..400).step_by(50) {
        let first = severities[begin..begin + 20]
            .iter()
            .position(|severity| *severity == ERROR);
        assert!(
            first.is_some_and(|first| first <= 6),
            "at {begin} s: {:?}",
            changes(&severities)
        );
    }
    let false_alarms =
        (0..400).filter(|second| second % 50 > 1 && !is_out(*second) && severities[*second as usize] == ERROR);
    assert_eq!(false_alarms.count(), 0, "{:?}", changes(&severities));
}

/// Tests a ban of whole networks.
#[test]
fn many_that_are_banned_and_often_try_are_no_error_while_others_are_served() {
    for (of_each, addresses) in [(3, 250), (10, 100_000), (40, 100_000)] {
        let mut all = Vec::new();
        for second in 0..300 {
            let from = (0..of_each).map(|n| FORGED + (of_each * second + n) % addresses);
            all.extend(from.flat_map(|client| each([second].into_iter(), client, Unanswered)));
        }
        all.extend(each((0..300).step_by(5), REAL, Served));
        let severities = told(&all, 0, 300);
        let errors = severities
            .iter()
            .skip(21)
            .filter(|severity| **severity == ERROR)
            .count();
        assert_eq!(errors, 0, "{:?}", changes(&severities));
    }
}

/// Addresses of IPv6 are banned one by one, too.
#[test]
fn one_that_is_banned_in_the_network_of_one_that_is_served_is_an_error_once() {
    let address = |client: u32| IpAddr::V6(Ipv6Addr::from(0xfd00 << 112 | u128::from(client)));
    let mut all = each(0..120, BANNED, Unanswered);
    all.extend(each((6..120).step_by(5), REAL, Served));
    assert_eq!(changes(&told_of(&all, address, 0, 120)), [(3, ERROR), (6, WARNING)]);
}

/// Tests a port scan, which confirms no handshake.
#[test]
fn a_scan_of_many_services_hides_no_dead_one() {
    let names: Vec<String> = (0..1000).map(|number| format!("s{number:04}")).collect();
    let (mut tracker, start) = (HandshakeTracker::default(), Instant::now());
    let scanner = IpAddr::V4(Ipv4Addr::from(FORGED));
    let mut first = None;
    for second in 0..40_u32 {
        let now = start + Duration::from_secs(second.into());
        let hearing = if tracker.is_suspicious() {
            ReportedHandshakes::All
        } else {
            ReportedHandshakes::Part
        };
        for (id, name) in (0..).zip(&names) {
            tracker.handshake(id, name, scanner, true, now);
        }
        if second >= 10 {
            tracker.handshake(5000, &names[999], IpAddr::V4(Ipv4Addr::from(REAL)), false, now);
        }
        tracker.wants_completed(false, now);
        let problems = tracker
            .end(hearing, now)
            .problems(|name| (*name == *names[999]).then_some(80), false);
        if problems.iter().any(|problem| problem.severity == Severity::Error) {
            first.get_or_insert(second);
        }
    }
    assert_eq!(first, Some(13));
}

#[test]
fn forged_handshakes_that_come_in_bursts_are_an_error_once() {
    let mut all = Vec::new();
    for burst in [20, 65, 110] {
        all.extend((0..5).flat_map(|client| each([burst].into_iter(), FORGED + client, Unconfirmed)));
    }
    all.extend(each((0..150).step_by(15), REAL, Served));
    let severities = told(&all, 0, 150);
    let errors: Vec<usize> = (0..150).filter(|second| severities[*second] == ERROR).collect();
    assert!(errors.iter().all(|second| *second < 31), "{errors:?}");
}

/// Tests a proxy or a NAT, which has one address for all clients.
#[test]
fn some_that_are_banned_behind_the_address_of_one_that_is_served_are_no_error() {
    let mut all = each(0..200, REAL, Unanswered);
    all.extend(each((4..200).step_by(6), REAL, Served));
    let severities = told(&all, 0, 200);
    let errors = severities
        .iter()
        .skip(40)
        .filter(|severity| **severity == ERROR)
        .count();
    assert_eq!(errors, 0, "{:?}", changes(&severities));
}

/// Tests clients that open some connections, and then none for a while.
#[test]
fn clients_that_come_in_bursts_beside_many_that_are_banned_are_no_error() {
    let mut all = Vec::new();
    for second in 0..400 {
        all.extend(each([second].into_iter(), FORGED + second, Unanswered));
    }
    for burst in (0..400).step_by(30) {
        all.extend(each(burst..burst + 5, REAL, Served));
    }
    let severities = told(&all, 0, 400);
    let errors = severities
        .iter()
        .skip(95)
        .filter(|severity| **severity == ERROR)
        .count();
    assert_eq!(errors, 0, "{:?}", changes(&severities));
}
