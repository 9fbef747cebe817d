//! How much history is kept when it is compacted by itself: the flags of etcd, read as etcd reads them.

use std::time::Duration;

use clap::ValueEnum;

const HOUR: Duration = Duration::from_hours(1);

/// What the retention is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// In time: 1h, 30m, or a number of hours.
    Periodic,
    /// In revisions.
    Revision,
}

/// How much history is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retention {
    /// What is younger than this. Never zero.
    Period(Duration),
    /// So many revisions. Never zero.
    Revisions(i64),
}

impl Retention {
    /// Of `text`; none for 0: nothing is compacted by itself. The error says what is wanted.
    pub fn read(mode: Mode, text: &str) -> Result<Option<Self>, String> {
        match mode {
            Mode::Revision => {
                let count = text.parse().ok().filter(|count| *count >= 0);
                let count: i64 = count.ok_or("want a number of revisions, as in 1000")?;
                Ok((count > 0).then_some(Retention::Revisions(count)))
            }
            Mode::Periodic => {
                let period = match text.parse::<u32>() {
                    Ok(hours) => Some(HOUR * hours),
                    Err(_) => duration(text),
                };
                let period = period.ok_or("want a time, as in 1h, 30m or 1h30m, or a number of hours")?;
                Ok((!period.is_zero()).then_some(Retention::Period(period)))
            }
        }
    }
}

/// A time as Go writes it: numbers with units, one behind the other, as in 1h30m or 1.5h.
pub fn duration(text: &str) -> Option<Duration> {
    let (mut rest, mut sum) = (text, Duration::ZERO);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, behind) = rest.split_at(digits);
        let letters = behind.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(letters);
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        let part = Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?;
        sum = sum.checked_add(part)?;
        rest = behind;
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retentions_are_read_as_etcd_reads_them() {
        let period = |text| Retention::read(Mode::Periodic, text);
        let time = |seconds| Ok(Some(Retention::Period(Duration::from_secs(seconds))));
        assert_eq!(period("0"), Ok(None));
        assert_eq!(period("0s"), Ok(None));
        assert_eq!(period("1"), time(3600));
        assert_eq!(period("1h30m"), time(5400));
        assert_eq!(period("1.5h"), time(5400));
        assert_eq!(period("90s"), time(90));
        assert_eq!(period("500ms"), Ok(Some(Retention::Period(Duration::from_millis(500)))));
        for nonsense in ["", "h", "1x", "-1", "-1h", "1h2", "1.2.3s", "1 h"] {
            assert!(period(nonsense).is_err(), "{nonsense}");
        }
        let revisions = |text| Retention::read(Mode::Revision, text);
        assert_eq!(revisions("1000"), Ok(Some(Retention::Revisions(1000))));
        assert_eq!(revisions("0"), Ok(None));
        assert!(revisions("-1").is_err() && revisions("1h").is_err() && revisions("").is_err());
    }
}
