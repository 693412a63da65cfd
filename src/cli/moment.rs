//! Points in time, for people.

/// Returns a time in UTC for people, of seconds since 1970.
pub(super) fn time(seconds: f64) -> String {
    #[expect(clippy::cast_possible_truncation, reason = "seconds since 1970")]
    let seconds = seconds as i64;
    crate::date::utc(seconds)
}
