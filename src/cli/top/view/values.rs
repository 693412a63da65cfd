//! Values as text, and how they look.

use super::canvas::Tone;
use crate::cli::amount::short;
use crate::cli::table::Cell;
use crate::cli::top::sample::{ServiceLine, TopLoad};

/// Returns a rate: `56.7k`; `-`: it is not known.
pub(super) fn rate(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), short)
}

/// Returns a rate with its unit, which is given in the singular: `1 packet/s`, `56.7k packets/s`.
pub(super) fn per_second(value: Option<f64>, what: &str) -> String {
    let rate = rate(value);
    let plural = if rate == "1" { "" } else { "s" };
    format!("{rate} {what}{plural}/s")
}

/// Returns a number: `56.7k`; `-`: it is not known.
pub(super) fn number(value: Option<u64>) -> String {
    #[expect(clippy::cast_precision_loss, reason = "large numbers are shortened")]
    let value = value.map(|value| value as f64);
    rate(value)
}

/// Returns a fraction of a limit: `42 %`; `-`: it is not known.
pub(super) fn part(fraction: Option<f64>) -> String {
    fraction.map_or_else(|| "-".to_owned(), |of| format!("{:.0} %", of * 100.0))
}

/// Returns the packets dropped per second; `-`: none was ever dropped.
pub(super) fn drop_rate(load: &TopLoad) -> String {
    match load.drop_rate {
        _ if load.dropped == 0 => "-".to_owned(),
        rate => self::rate(rate),
    }
}

/// Returns how a fraction of a limit looks.
pub(super) fn tone_of_part(fraction: Option<f64>) -> Tone {
    match fraction {
        Some(of) if of > 1.0 => Tone::Bad,
        Some(of) if of >= 0.8 => Tone::Warning,
        _ => Tone::Plain,
    }
}

/// Returns how a state looks.
pub(super) fn state_tone(state: &str) -> Tone {
    match state {
        "up" | "healthy" | "active" => Tone::Good,
        "down" | "empty" | "partly" | "unhealthy" | "failing" | "STALE" => Tone::Bad,
        "leaving" | "draining" | "waiting" | "ESTABLISHED" | "TIME_WAIT" | "-" => Tone::Plain,
        _ => Tone::Warning,
    }
}

/// Returns the name of a service with its addresses, which are not shortened if there is room for a part of the name.
pub(super) fn name_cell(service: &ServiceLine) -> Cell {
    let name = service.name.as_deref().unwrap_or("(unnamed)");
    match service.title.strip_prefix(name) {
        // A list of addresses is shortened, too.
        Some(end) if end.len() <= ":65535 ".len() => Cell::ending(name, end),
        _ => Cell::from(&*service.title),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_a_singular() {
        for (value, expected) in [
            (None, "- packets/s"),
            (Some(0.0), "0 packets/s"),
            (Some(1.0), "1 packet/s"),
            (Some(56_700.0), "56.7k packets/s"),
        ] {
            assert_eq!(per_second(value, "packet"), expected);
        }
    }
}
