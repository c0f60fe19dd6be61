//! How sizes and times read in log lines: `8.2MB`, `2.4s`, as the specification prints them.

use std::error::Error;
use std::time::Duration;

use chrono::{DateTime, Utc};

/// Returns `bytes` with a decimal unit and one digit: `512B`, `12.3KB`, `8.2MB`, `1.5GB`.
#[must_use]
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KB", "MB", "GB", "TB"];
    if bytes < 1000 {
        return format!("{bytes}B");
    }
    let mut value = bytes as f64;
    let mut unit = "";
    for name in UNITS {
        value /= 1000.0;
        unit = name;
        // 999.95 would print as "1000.0": it belongs to the next unit.
        if value < 999.95 {
            break;
        }
    }
    format!("{value:.1}{unit}")
}

/// Returns a duration in seconds with one digit: `2.4s`.
#[must_use]
pub fn seconds(duration: Duration) -> String {
    format!("{:.1}s", duration.as_secs_f64())
}

/// Returns a duration to the second, below a minute to a tenth of one: `2.4s`, `7m12s`, `1h07m12s`.
#[must_use]
pub fn span(duration: Duration) -> String {
    let secs = duration.as_secs();
    match (secs / 3600, secs / 60 % 60, secs % 60) {
        (0, 0, _) => seconds(duration),
        (0, minutes, secs) => format!("{minutes}m{secs:02}s"),
        (hours, minutes, secs) => format!("{hours}h{minutes:02}m{secs:02}s"),
    }
}

/// Returns a duration as a setting has it, in the largest unit that is exact: `90m`, `45s`, `1500ms`.
#[must_use]
pub fn setting(duration: Duration) -> String {
    match (duration.as_millis(), duration.as_secs()) {
        (millis, _) if millis % 1000 != 0 => format!("{millis}ms"),
        (_, secs) if secs == 0 || secs % 60 != 0 => format!("{secs}s"),
        (_, secs) if secs % 3600 != 0 => format!("{}m", secs / 60),
        (_, secs) => format!("{}h", secs / 3600),
    }
}

/// Returns an age in its largest whole unit: `41s`, `41m`, `5h`, `12d`.
#[must_use]
pub fn age(age: Duration) -> String {
    match age.as_secs() {
        secs @ 0..60 => format!("{secs}s"),
        secs @ 60..3600 => format!("{}m", secs / 60),
        secs @ 3600..86_400 => format!("{}h", secs / 3600),
        secs => format!("{}d", secs / 86_400),
    }
}

/// Returns how much smaller `packed` is than `original`, in whole percent, zero when it is not.
#[must_use]
pub fn reduction_percent(original: u64, packed: u64) -> u64 {
    if original == 0 {
        return 0;
    }
    100 - (packed.saturating_mul(100) / original).min(100)
}

/// Returns a time as a person reads it in a log: `2024-11-24 10:00:00 UTC`.
#[must_use]
pub fn moment(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// Returns bytes in hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        for half in [byte >> 4, byte & 15] {
            text.extend(char::from_digit(u32::from(half), 16));
        }
        text
    })
}

/// Returns an error and its sources in one line, outermost first. Printed once, at the edge.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    for cause in causes(error) {
        let words = cause.to_string();
        // Some libraries print their source themselves; the same words twice help nobody.
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
    }
    text
}

/// Returns the sources of an error, outermost first, without the error itself.
pub fn causes<'a>(error: &'a dyn Error) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(error.source(), |&cause| cause.source())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_the_specification_prints_them() {
        let cases = [
            (0, "0B"),
            (999, "999B"),
            (1000, "1.0KB"),
            (2_100_000, "2.1MB"),
            (8_243_200, "8.2MB"),
            (999_960, "1.0MB"),
            (1_500_000_000, "1.5GB"),
            (5_000_000_000_000_000, "5000.0TB"),
        ];
        for (bytes, expect) in cases {
            assert_eq!(size(bytes), expect, "{bytes} bytes");
        }
    }

    #[test]
    fn spans_are_told_to_the_second() {
        let cases = [
            (2_400, "2.4s"),
            (59_900, "59.9s"),
            (60_000, "1m00s"),
            (432_999, "7m12s"),
            (3_600_000, "1h00m00s"),
            (86_399_000, "23h59m59s"),
        ];
        for (millis, expect) in cases {
            assert_eq!(span(Duration::from_millis(millis)), expect, "{millis} ms");
        }
    }

    #[test]
    fn settings_read_as_they_are_typed() {
        let cases = [
            (0, "0s"),
            (1500, "1500ms"),
            (45_000, "45s"),
            (900_000, "15m"),
            (5_400_000, "90m"),
            (3_600_000, "1h"),
        ];
        for (millis, expect) in cases {
            assert_eq!(setting(Duration::from_millis(millis)), expect, "{millis} ms");
        }
    }

    #[test]
    fn ages_take_their_largest_whole_unit() {
        let cases = [(41, "41s"), (60, "1m"), (2460, "41m"), (7200, "2h"), (86_400 * 12, "12d")];
        for (secs, expect) in cases {
            assert_eq!(age(Duration::from_secs(secs)), expect, "{secs} s");
        }
    }

    #[test]
    fn reduction_is_never_negative() {
        assert_eq!(reduction_percent(8_200_000, 2_100_000), 75);
        assert_eq!(reduction_percent(10, 20), 0);
        assert_eq!(reduction_percent(0, 20), 0);
    }
}
