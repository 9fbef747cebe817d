//! Times as the spec writes them.

use std::time::Duration;

/// The time that a text such as `30m` or `1h30m` stands for; `None` for `never`, and for what the schema would have refused: that keeps
/// things as they are.
pub fn parse(text: &str) -> Option<Duration> {
    if text.is_empty() {
        return None;
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        let (unit, after) = rest[digits..].split_at_checked(1)?;
        let seconds = match unit {
            "h" => 3600,
            "m" => 60,
            "s" => 1,
            _ => return None,
        };
        total = total.checked_add(Duration::from_secs(number.checked_mul(seconds)?))?;
        rest = after;
    }
    Some(total)
}

/// A time as the spec writes it.
pub fn text(time: Duration) -> String {
    let seconds = time.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, minutes @ 1.., 0) => format!("{minutes}m"),
        (hours @ 1.., 0, 0) => format!("{hours}h"),
        (hours @ 1.., minutes, 0) => format!("{hours}h{minutes}m"),
        _ => format!("{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_numbers_with_units() {
        for (text, seconds) in [("0s", 0), ("30m", 1800), ("1h30m", 5400), ("24h", 86400), ("90s", 90)] {
            assert_eq!(parse(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        for (seconds, text) in [(0, "0s"), (300, "5m"), (7200, "2h"), (5400, "1h30m"), (61, "61s")] {
            assert_eq!(super::text(Duration::from_secs(seconds)), text);
        }
        for text in ["never", "", "30", "m", "1d", "-5m", "5m ", "99999999999999999999h", "\u{e9}"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
