//! The date: read, and for people.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use jiff::fmt::strtime;

/// Returns the time since 1970 by the system's clock, by which conntrack records begins, too. A clock that is before 1970 gives 0.
pub fn since_1970() -> Duration {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}

/// Returns a date and time in UTC, of seconds since 1970. Larger values give the last date that can be represented, in the year
/// 9999.
pub fn utc_of(seconds: u64) -> String {
    utc(i64::try_from(seconds).unwrap_or(i64::MAX))
}

/// Returns a date and time in UTC, of seconds since 1970. Values out of range give the first or the last date that can be
/// represented.
pub fn utc(seconds: i64) -> String {
    let beyond = if seconds < 0 { Timestamp::MIN } else { Timestamp::MAX };
    let time = Timestamp::from_second(seconds).unwrap_or(beyond);
    // The parts of this format are those that every time has.
    strtime::format("%Y-%m-%d %H:%M:%S", time).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, shown) in [
            (0, "1970-01-01 00:00:00"),
            (951_782_399, "2000-02-28 23:59:59"),
            (951_782_400, "2000-02-29 00:00:00"),
            (1_709_251_199, "2024-02-29 23:59:59"),
            (1_795_613_457, "2026-11-25 13:30:57"),
            (4_107_542_400, "2100-03-01 00:00:00"),
        ] {
            assert_eq!(utc(seconds), shown);
        }
    }

    #[test]
    fn what_is_too_far_away_is_the_last_date() {
        for far in [utc_of(u64::MAX), utc(i64::MAX)] {
            assert!(far.starts_with("9999-12-"), "{far}");
        }
        assert!(utc(i64::MIN).starts_with("-9999-01-"), "{}", utc(i64::MIN));
    }
}
