//! Tests of the public ports of resources.

use super::*;

const NOW: Duration = Duration::from_secs(1_000_000);
const HOUR: Duration = Duration::from_secs(3600);

fn port(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).unwrap()
}

#[test]
fn a_set_holds_the_first_port_and_the_last() {
    let mut set = PortSet::from_iter([1, 63, 64, 65_535].map(port));
    assert!([1, 63, 64, 65_535].map(port).iter().all(|port| set.contains(*port)));
    assert!(![2, 62, 65, 65_534].map(port).iter().any(|port| set.contains(*port)));
    set.remove(port(64));
    assert_eq!(format!("{set:?}"), "{1, 63, 65535}");
}

#[test]
fn the_ports_that_a_set_lacks_are_those_of_the_range_only() {
    let range = |first, last| PortRange::new(port(first), port(last)).unwrap();
    let set: PortSet = (1..=200).chain([202, 65_535]).map(port).collect();
    let missing = |range| set.missing(range).map(NonZeroU16::get).collect::<Vec<_>>();
    assert_eq!(missing(range(1, 204)), [201, 203, 204]);
    assert_eq!(missing(range(65_533, 65_535)), [65_533, 65_534]);
    assert_eq!(missing(range(64, 127)), [0; 0]);
    let all = range(1, u16::MAX);
    let lacks = all.iter().filter(|port| !set.contains(*port)).count();
    assert_eq!(set.missing(all).count(), lacks);
    assert_eq!(PortSet::default().missing(all).count(), 65_535);
}

fn pool() -> PortPool {
    PortPool::new(PortRange::new(port(20_000), port(20_002)).unwrap(), HOUR)
}

/// Gives port 20000 back now, to rest for the quarantine.
fn give_back_the_first(pool: &mut PortPool) {
    let resting = Quarantined {
        port: port(20_000),
        until: pool.rest_until(NOW),
    };
    pool.take_back(resting, NOW, NOW);
}

#[test]
fn ports_are_given_once_and_rest_after_they_came_back() {
    let mut pool = pool();
    let busy = PortSet::from_iter([port(20_001)]);
    assert_eq!(pool.choose(None, &busy, NOW), Ok(port(20_000)));
    pool.give(port(20_000));
    assert_eq!(pool.choose(None, &busy, NOW), Ok(port(20_002)));
    pool.give(port(20_002));
    let refused = pool.choose(None, &busy, NOW).unwrap_err().to_string();
    assert_eq!(
        refused,
        "no public port is left in 20000-20002: 3 of 3 are in use; let `addon.ports` have more ports, or `addon.quarantine` be \
         shorter, and reload the daemon (`systemctl reload tcpgw`); `tcpgw addon ls` says which ports rest"
    );
    let refused = pool.choose(None, &busy, NOW).unwrap_err().for_platform();
    assert_eq!(
        refused,
        "no public port is left in 20000-20002; nothing was made. The gateway's operator is told: ask again later"
    );
    give_back_the_first(&mut pool);
    let refused = pool.choose(None, &busy, NOW + Duration::from_secs(3599));
    let refused = refused.unwrap_err().to_string();
    assert!(
        refused.contains("2 of 3 are in use, and 1 rests since it was given back;"),
        "{refused}"
    );
    let usage = pool.usage(&busy, NOW);
    assert_eq!((usage.used, usage.free(), usage.resting[0].until), (2, 0, 1_003_600));
    let warning = usage.warning();
    assert!(warning.starts_with("no public port is left for"), "{warning}");
    let later = pool.usage(&busy, NOW + HOUR);
    assert_eq!((later.resting.len(), later.free()), (0, 1));
    assert_eq!(pool.choose(None, &busy, NOW + HOUR), Ok(port(20_000)));
}

#[test]
fn few_ports_are_scarce() {
    for (all, free, is_scarce) in [
        (1, 0, true),
        (1, 1, false),
        (5, 1, true),
        (5, 2, false),
        (10, 4, true),
        (10, 5, false),
        (100, 9, true),
        (100, 10, false),
        (10_000, 499, true),
        (10_000, 500, false),
    ] {
        let usage = PortUse {
            range: "20000-29999".into(),
            all,
            used: all - free,
            fenced: 0,
            resting: Vec::new(),
        };
        assert_eq!(usage.is_scarce(), is_scarce, "{free} of {all}");
    }
}

#[test]
fn a_wished_port_is_given_or_it_is_said_why_not() {
    let mut pool = pool();
    let none = PortSet::default();
    let wish = |pool: &PortPool, number| pool.choose(Some(port(number)), &none, NOW);
    assert_eq!(wish(&pool, 20_002), Ok(port(20_002)));
    assert!(matches!(wish(&pool, 19_999), Err(PortRefusal::OutOfRange { .. })));
    pool.give(port(20_002));
    assert_eq!(wish(&pool, 20_002), Err(PortRefusal::InUse(port(20_002))));
    let until = pool.rest_until(NOW);
    pool.take_back(
        Quarantined {
            port: port(20_002),
            until,
        },
        NOW,
        NOW,
    );
    let resting = PortRefusal::Resting {
        port: port(20_002),
        seconds: 3600,
    };
    assert_eq!(wish(&pool, 20_002), Err(resting));
}

#[test]
fn a_port_rests_for_the_quarantine_that_is_configured_from_when_it_was_given_back() {
    let mut pool = pool();
    let range = pool.range;
    give_back_the_first(&mut pool);
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    let wish = |pool: &PortPool| pool.choose(Some(port(20_000)), &PortSet::default(), NOW + minutes(20));
    for (quarantine, left) in [(60, 40), (30, 10), (600, 40)] {
        pool.configure(range, minutes(quarantine));
        let port = port(20_000);
        let seconds = 60 * left;
        assert_eq!(wish(&pool), Err(PortRefusal::Resting { port, seconds }));
    }
    pool.configure(range, minutes(20));
    assert_eq!(wish(&pool), Ok(port(20_000)));
}

#[test]
fn a_clock_that_is_set_back_prolongs_no_quarantine_beyond_its_length() {
    let mut pool = pool();
    pool.give(port(20_000));
    give_back_the_first(&mut pool);
    let before = NOW.saturating_sub(24 * HOUR);
    let resting = pool.choose(Some(port(20_000)), &PortSet::default(), before);
    assert!(
        matches!(resting, Err(PortRefusal::Resting { seconds: 3600, .. })),
        "{resting:?}"
    );
    // The quarantine has begun when its excess was noticed, and ends.
    let limited = [0, 10, 1800].map(|seconds| pool.limit_rests(before + Duration::from_secs(seconds)));
    let once = Quarantined {
        port: port(20_000),
        until: before + HOUR,
    };
    assert_eq!(limited, [vec![once], vec![], vec![]]);
    let wish = |pool: &PortPool, now| pool.choose(Some(port(20_000)), &PortSet::default(), now);
    let almost = wish(&pool, before + Duration::from_secs(3595));
    assert!(
        matches!(almost, Err(PortRefusal::Resting { seconds: 5, .. })),
        "{almost:?}"
    );
    assert_eq!(wish(&pool, before + HOUR), Ok(port(20_000)));
}
