//! Numbers for people: grouped by thousands, bytes in decimal units.

/// Returns a count with commas between thousands: `1,234,567`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns packets per second, whole ones from 10 on: `1,234 packets/s`.
pub fn packet_rate(rate: f64) -> String {
    let rate = rounded(rate);
    let plural = if rate == "1" { "" } else { "s" };
    format!("{rate} packet{plural}/s")
}

/// Returns events per second, whole ones from 10 on: `0.5/s`, `1,234/s`.
pub fn event_rate(rate: f64) -> String {
    format!("{}/s", rounded(rate))
}

/// Returns a time in its two largest units: `45 s`, `3 min 5 s`, `2 h 10 min`, `12 d 3 h`.
pub fn span(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    if days > 0 {
        format!("{days} d {} h", hours % 24)
    } else if hours > 0 {
        format!("{hours} h {} min", minutes % 60)
    } else if minutes > 0 {
        format!("{minutes} min {} s", seconds % 60)
    } else {
        format!("{seconds} s")
    }
}

/// Returns bytes per second in the decimal unit that fits: `768 kB/s`, `1.5 MB/s`.
pub fn byte_rate(rate: f64) -> String {
    format!("{}/s", bytes(rate))
}

/// Returns bytes in the decimal unit that fits: `40 B`, `7.68 MB`.
pub fn bytes(bytes: f64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let (mut value, mut unit) = (bytes.max(0.0), 0);
    // A value that would be rounded up to 1000 belongs to the next unit.
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let text = match unit {
        0 => format!("{value:.0}"),
        _ => significant(value),
    };
    format!("{text} {}", UNITS[unit])
}

/// Formats a value with three digits, without trailing zeros of a fraction.
fn significant(value: f64) -> String {
    let places = match value {
        value if value >= 99.95 => 0,
        value if value >= 9.995 => 1,
        _ => 2,
    };
    let text = format!("{value:.places$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

fn rounded(rate: f64) -> String {
    if rate <= 0.0 {
        return "0".into();
    }
    if rate < 9.95 {
        return significant((rate * 10.0).round() / 10.0);
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is positive, and a cast of floats saturates"
    )]
    count(rate.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_234_567, "1,234,567"),
            (u64::MAX, "18,446,744,073,709,551,615"),
        ] {
            assert_eq!(count(number), text);
        }
    }

    #[test]
    fn times_have_two_units() {
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min 0 s"),
            (7_800, "2 h 10 min"),
            (1_047_600, "12 d 3 h"),
        ] {
            assert_eq!(span(seconds), text);
        }
        assert_eq!(
            (event_rate(0.5), event_rate(1234.4)),
            ("0.5/s".into(), "1,234/s".into())
        );
    }

    #[test]
    fn rates_are_rounded_to_what_matters() {
        for (rate, text) in [
            (0.0, "0 packets/s"),
            (0.04, "0 packets/s"),
            (0.5, "0.5 packets/s"),
            (9.94, "9.9 packets/s"),
            (9.96, "10 packets/s"),
            (1234.4, "1,234 packets/s"),
            (1.0, "1 packet/s"),
            (f64::INFINITY, "18,446,744,073,709,551,615 packets/s"),
        ] {
            assert_eq!(packet_rate(rate), text);
        }
        for (rate, text) in [
            (0.0, "0 B/s"),
            (999.4, "999 B/s"),
            (999.6, "1 kB/s"),
            (768_000.0, "768 kB/s"),
            (1_500_000.0, "1.5 MB/s"),
            (7_680_000.0, "7.68 MB/s"),
            (99_960.0, "100 kB/s"),
            (1.5e12, "1.5 TB/s"),
            (1.5e15, "1500 TB/s"),
        ] {
            assert_eq!(byte_rate(rate), text);
        }
    }
}
