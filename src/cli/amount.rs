//! Numbers and times as people read them in tables.

/// Returns a number in short form: `1234`, `56.7k`, `8.9M`.
pub(super) fn short(number: f64) -> String {
    let units = ["", "k", "M", "G", "T", "P", "E"];
    let (mut number, mut at) = (number, 0);
    while number >= 9_999.5 && at + 1 < units.len() {
        number /= 1000.0;
        at += 1;
    }
    let places = usize::from(at > 0 && number < 100.0);
    format!("{number:.places$}{}", units[at])
}

/// Returns a time span: `12s`, `3m20s`, `5h01m`, `2d03h`.
pub(super) fn span(seconds: u64) -> String {
    let two = |large: u64, by: u64, unit, small: u64, small_unit| {
        format!("{}{unit}{:02}{small_unit}", large / by, large % by / small)
    };
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => two(seconds, 60, 'm', 1, 's'),
        3600..86_400 => two(seconds, 3600, 'h', 60, 'm'),
        _ => two(seconds, 86_400, 'd', 3600, 'h'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_are_short() {
        let numbers = [0.0, 9_999.0, 9_999.9, 12_345.0, 123_456.0, 1e7, 2.5e9];
        assert_eq!(
            numbers.map(short),
            ["0", "9999", "10.0k", "12.3k", "123k", "10.0M", "2500M"]
        );
        let spans = [0, 59, 60, 3599, 3600, 86_399, 86_400, 432_000];
        assert_eq!(
            spans.map(span),
            ["0s", "59s", "1m00s", "59m59s", "1h00m", "23h59m", "1d00h", "5d00h"]
        );
    }
}
