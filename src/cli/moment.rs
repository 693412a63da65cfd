//! Points in time, for people.

/// Seconds since 1970, in UTC.
pub(super) fn time(seconds: f64) -> String {
    #[expect(clippy::cast_possible_truncation, reason = "seconds since 1970")]
    let seconds = seconds as i64;
    crate::date::utc(seconds)
}
