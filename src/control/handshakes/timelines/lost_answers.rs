//! Answers of backends that do not reach clients, beside scanners that never confirm a handshake.

use super::*;

/// Addresses from which scanners come.
const SCANNERS: u32 = 250;
/// Number of timelines for each law.
const SEEDS: u32 = 40;

/// Returns handshakes of scanners, one each `pause` seconds, from ever other addresses.
fn scanned(seconds: u32, pause: u32) -> Vec<Attempt> {
    let scan = |second| each([second].into_iter(), FORGED + second / pause % SCANNERS, Unconfirmed);
    (0..seconds).step_by(pause as usize).flat_map(scan).collect()
}

/// Returns numbers that look random, each less than `most`.
fn random(seed: u32) -> impl FnMut(u32) -> u32 {
    let mut state = u64::from(seed) * 2 + 1;
    move |most| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        u32::try_from(state >> 33).unwrap() % most
    }
}

fn errors(told: &[Option<Severity>]) -> Vec<usize> {
    (0..told.len()).filter(|second| told[*second] == ERROR).collect()
}

/// Law: where clients are served, scanners are no error, however clients and scanners come, and though a client goes
/// away in the middle of a handshake. In the first seconds it is not known that scanners come all the time.
#[test]
fn scanners_beside_clients_that_are_served_are_never_an_error() {
    for seed in 0..SEEDS {
        let mut random = random(seed);
        let (pause, longest) = (1 + random(9), 2 + random(9));
        let mut all = scanned(300, pause);
        let (mut second, mut gone) = (0, None);
        while second < 300 {
            let client = REAL + random(5);
            all.extend(each([second].into_iter(), client, Served));
            // It goes away while it connects.
            if gone.is_none_or(|gone| second > gone + 60) {
                gone = Some(second);
                all.extend(each([second + 1].into_iter(), client, Unconfirmed));
            }
            second += 1 + random(longest);
        }
        let told = told(&all, 0, 300);
        assert_eq!(errors(&told[30..]), [0; 0], "{seed}: {:?}", changes(&told));
    }
}

/// Law: if the answers to all clients are lost, it is an error after some seconds, each time, beside scanners and without,
/// and until a client is served.
#[test]
fn answers_that_are_lost_to_all_are_an_error_within_seconds_each_time() {
    let outages = [70..100, 160..190];
    for seed in 0..SEEDS {
        let mut random = random(seed);
        let (has_scanners, clients) = (random(2) == 1, 2 + random(9));
        let pause = 1 + random(9);
        let mut all = if has_scanners { scanned(220, pause) } else { Vec::new() };
        for second in 0..220 {
            let is_out = outages.iter().any(|outage| outage.contains(&second));
            let end = if is_out { Unconfirmed } else { Served };
            let number = random(clients);
            for client in [REAL + number, REAL + (number + 1) % clients] {
                all.extend(each([second].into_iter(), client, end));
            }
        }
        let told = told(&all, 0, 220);
        for outage in &outages {
            let [begin, end] = [outage.start, outage.end].map(|second| second as usize);
            let first = errors(&told[begin..end]).first().copied();
            assert!(first.is_some_and(|first| first <= 5), "{seed}: {:?}", changes(&told));
            let lasts = errors(&told[begin..end]).len() + first.unwrap_or_default() == end - begin;
            assert!(lasts, "{seed}: {:?}", changes(&told));
            let mended = &told[end + 2..(end + 60).min(told.len())];
            assert_eq!(errors(mended), [0; 0], "{seed}: {:?}", changes(&told));
        }
        assert_eq!(errors(&told[..70]), [0; 0], "{seed}: {:?}", changes(&told));
    }
}

/// Clients behind one address (a load balancer, a network of IPv6) are one client that tries again.
#[test]
fn answers_that_are_lost_to_the_only_address_are_an_error_if_it_was_served() {
    for (pause, most) in [(1, 5), (2, 5), (5, 8)] {
        let mut all = scanned(200, 4);
        all.extend(each((0..100).step_by(3), REAL, Served));
        all.extend(each((100..200).step_by(pause), REAL, Unconfirmed));
        let told = told(&all, 0, 200);
        let first = errors(&told).first().copied().unwrap();
        assert!((103..=100 + most).contains(&first), "{pause}: {:?}", changes(&told));
        assert!(told[first..].iter().all(|told| *told == ERROR), "{pause}");
    }
}

/// One client that went away, and a scanner, are not all clients.
#[test]
fn one_client_that_does_not_confirm_once_is_no_error() {
    let mut all = each((0..60).step_by(7), REAL, Served);
    all.extend(each([70].into_iter(), REAL, Unconfirmed));
    all.extend(each((0..130).step_by(40), FORGED, Unconfirmed));
    let told = told(&all, 0, 130);
    assert_eq!(errors(&told), [0; 0], "{:?}", changes(&told));
}

/// Law: scanners with very many addresses, many each second, hide no outage, and are none.
#[test]
fn very_many_scanners_hide_no_lost_answers() {
    let outages = [65..95, 115..125];
    for seed in 0..4 {
        let mut random = random(seed);
        let (each_second, clients) = (20 + random(100), 2 + random(9));
        let mut all = Vec::new();
        for second in 0..150 {
            for _ in 0..each_second {
                all.extend(each([second].into_iter(), FORGED + random(10_000), Unconfirmed));
            }
            let is_out = outages.iter().any(|outage| outage.contains(&second));
            let number = random(clients);
            for client in [REAL + number, REAL + (number + 1) % clients] {
                let end = if is_out { Unconfirmed } else { Served };
                all.extend(each([second].into_iter(), client, end));
            }
        }
        let told = told(&all, 0, 150);
        for outage in &outages {
            let [begin, end] = [outage.start, outage.end].map(|second| second as usize);
            let first = errors(&told[begin..end]).first().copied();
            assert!(first.is_some_and(|first| first <= 5), "{seed}: {:?}", changes(&told));
            assert_eq!(errors(&told[end + 2..end + 15]), [0; 0], "{seed}: {:?}", changes(&told));
        }
        assert_eq!(errors(&told[30..65]), [0; 0], "{seed}: {:?}", changes(&told));
    }
}
