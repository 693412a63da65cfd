//! Backends that failed together, so that the cause is likely one: a wrong probe, a broken path.
//!
//! If no backend of a service is healthy, all backends of one *wave* keep getting connections. A wave is the set of
//! backends that stopped getting connections at most a window of time before the last one did. The window is the time
//! that probes need to detect one cause ([`tcpgw_core::health::longest_fall`]): backends that failed earlier had
//! another cause.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tcpgw_core::model::Endpoint;

/// Returns the last wave of these endpoints, each with the time at which it stopped getting connections because its
/// probes failed, if it did.
pub(super) fn last_wave(
    failed: impl IntoIterator<Item = (Endpoint, Option<Instant>)>,
    window: Duration,
) -> BTreeSet<Endpoint> {
    let failed = failed.into_iter();
    let failed: Vec<(Endpoint, Instant)> = failed.filter_map(|(endpoint, at)| Some((endpoint, at?))).collect();
    let last = failed.iter().map(|(_, at)| *at).max();
    let in_it = |at: Instant| last.is_some_and(|last| last.saturating_duration_since(at) <= window);
    let wave = failed.into_iter().filter(|(_, at)| in_it(*at));
    wave.map(|(endpoint, _)| endpoint).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn endpoint(last: u8) -> Endpoint {
        let at = std::net::SocketAddr::from(([10, 2, 0, last], 80));
        at.try_into().unwrap()
    }

    fn wave(window: u64, failed: &[Option<u64>]) -> Vec<u8> {
        let begin = Instant::now();
        let failed = (0_u8..).zip(failed).map(|(number, at)| {
            let at = at.map(|at| begin + Duration::from_millis(at));
            (endpoint(number), at)
        });
        let wave = last_wave(failed, Duration::from_millis(window));
        (0..=u8::MAX)
            .filter(|number| wave.contains(&endpoint(*number)))
            .collect()
    }

    #[test]
    fn every_case() {
        for (window, failed, expected) in [
            (10, &[][..], &[][..]),
            (10, &[None], &[]),
            (10, &[None, None], &[]),
            (10, &[Some(5)], &[0]),
            (10, &[Some(5), None], &[0]),
            (10, &[Some(5), Some(5)], &[0, 1]),
            (10, &[Some(0), Some(10)], &[0, 1]),
            (10, &[Some(0), Some(11)], &[1]),
            (10, &[Some(11), Some(0)], &[0]),
            (10, &[Some(0), Some(10), Some(20)], &[1, 2]),
            (10, &[Some(0), Some(20), Some(30), Some(25)], &[1, 2, 3]),
            (0, &[Some(3), Some(3), Some(4)], &[2]),
            (0, &[Some(4), Some(3), Some(4)], &[0, 2]),
            (100, &[Some(0), None, Some(100)], &[0, 2]),
        ] {
            assert_eq!(wave(window, failed), expected, "{window} {failed:?}");
        }
    }

    proptest! {
        #[test]
        fn a_wave_is_all_of_its_window_and_nobody_else(
            window in 0_u64..50, failed in prop::collection::vec(prop::option::of(0_u64..200), 0..20),
        ) {
            let wave = wave(window, &failed);
            let Some(last) = failed.iter().flatten().max() else {
                prop_assert!(wave.is_empty());
                return Ok(());
            };
            for (number, at) in (0_u8..).zip(&failed) {
                let expected = at.is_some_and(|at| at + window >= *last);
                prop_assert_eq!(wave.contains(&number), expected);
            }
            prop_assert!(!wave.is_empty());
        }
    }
}
