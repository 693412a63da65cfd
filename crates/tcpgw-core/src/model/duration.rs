//! Durations as text with a unit: `500ms`, `30s`, `5m`, `1h`.

use std::time::Duration;

use thiserror::Error;

const UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];

/// Reason why a text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DurationError {
    /// The text is not a whole number and a unit.
    #[error("must be a duration like 500ms, 30s, 5m or 1h")]
    Malformed,
    /// The text is a number without a unit.
    #[error("has no unit; must be a duration like 500ms, 30s, 5m or 1h")]
    NoUnit,
    /// The duration has more milliseconds than 64 bits hold.
    #[error("must be a shorter duration")]
    TooLong,
}

/// Reads a whole number and one unit of `ms`, `s`, `m`, `h`.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(DurationError::Malformed);
    }
    if unit.is_empty() {
        return Err(DurationError::NoUnit);
    }
    let (_, millis) = UNITS
        .into_iter()
        .find(|(name, _)| *name == unit)
        .ok_or(DurationError::Malformed)?;
    let number: u64 = number.parse().map_err(|_| DurationError::TooLong)?;
    number
        .checked_mul(millis)
        .map(Duration::from_millis)
        .ok_or(DurationError::TooLong)
}

/// Returns the shortest text that [`parse`] reads as this duration; fractions of a millisecond are dropped.
pub fn show(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis == 0 {
        return "0s".to_owned();
    }
    let (name, unit) = UNITS
        .into_iter()
        .rev()
        .find(|(_, unit)| millis.is_multiple_of(u128::from(*unit)))
        .unwrap_or(UNITS[0]);
    format!("{}{name}", millis / u128::from(unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_shown() {
        let good = [
            ("500ms", 500),
            ("30s", 30_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("0s", 0),
            ("1500ms", 1_500),
        ];
        for (text, millis) in good {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
            assert_eq!(show(Duration::from_millis(millis)), text);
        }
        assert_eq!(show(Duration::from_secs(120)), "2m");
        assert_eq!(show(Duration::from_secs(90)), "90s");
    }

    #[test]
    fn everything_else_is_refused() {
        for text in [
            "", "s", "-1s", "+1s", "1.5s", "1 s", " 1s", "1s ", "1d", "1m30s", "1S", "١s", "0x1s",
        ] {
            assert_eq!(parse(text), Err(DurationError::Malformed), "{text:?}");
        }
        assert_eq!(parse("30"), Err(DurationError::NoUnit));
        for text in ["99999999999999999999s", "18446744073709551615h"] {
            assert_eq!(parse(text), Err(DurationError::TooLong), "{text}");
        }
    }
}
