//! The time of `--at`: a date, seconds since 1970, or how long ago. Pure: whoever asks knows what
//! time it is.

use chrono::{DateTime, TimeDelta, Utc};

/// A century: whatever is longer ago is a slip of the finger.
const AGO_SECS_MAX: u64 = 100 * 365 * 86_400;

/// A point in time as a person names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// That one.
    At(DateTime<Utc>),
    /// So long before now.
    Ago(TimeDelta),
}

impl Moment {
    /// Reads `2h ago`, RFC 3339, or seconds since 1970.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Some(ago) = text.strip_suffix("ago") {
            return ago_of(ago).map(Self::Ago).ok_or_else(|| wrong(text));
        }
        let seconds = text.parse::<i64>().ok().and_then(|secs| DateTime::from_timestamp(secs, 0));
        seconds.or_else(|| text.parse().ok()).map(Self::At).ok_or_else(|| wrong(text))
    }

    /// Returns the point in time, if it is `now`.
    pub(super) fn seen_from(self, now: DateTime<Utc>) -> DateTime<Utc> {
        match self {
            Self::At(at) => at,
            Self::Ago(ago) => now.checked_sub_signed(ago).unwrap_or(DateTime::<Utc>::MIN_UTC),
        }
    }
}

/// Reads the number and the unit before "ago", with or without blanks around each.
fn ago_of(text: &str) -> Option<TimeDelta> {
    // "2hago" is no word.
    let text = text.strip_suffix(char::is_whitespace)?.trim();
    let unit = text.chars().next_back()?;
    let unit_secs = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        'w' => 7 * 86_400,
        _ => return None,
    };
    let number = text[..text.len() - unit.len_utf8()].trim_end();
    // A number may have a plus sign for Rust, but not here.
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let secs = number.parse::<u64>().ok()?.checked_mul(unit_secs)?;
    let secs = i64::try_from(secs).ok().filter(|_| secs <= AGO_SECS_MAX)?;
    TimeDelta::try_seconds(secs)
}

fn wrong(text: &str) -> String {
    format!(
        "\"{text}\" is not a time; give one such as \"2h ago\" (a whole number, one of s, m, h, d, \
         w, and the word ago; a century at most), 2024-11-24T12:00:00Z, or 1732449600"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_date_or_a_number_or_how_long_ago() {
        let ago = |secs| Some(Moment::Ago(TimeDelta::seconds(secs)));
        let at = |secs| DateTime::from_timestamp(secs, 0).map(Moment::At);
        let cases = [
            ("2h ago", ago(7200)),
            ("90m ago", ago(5400)),
            ("1d ago", ago(86_400)),
            ("2w ago", ago(1_209_600)),
            ("0s ago", ago(0)),
            ("  2h ago ", ago(7200)),
            ("2 h  ago", ago(7200)),
            ("007s ago", ago(7)),
            ("36500d ago", ago(3_153_600_000)),
            ("2024-11-24T12:00:00Z", at(1_732_449_600)),
            ("2024-11-24T13:00:00+01:00", at(1_732_449_600)),
            ("1732449600", at(1_732_449_600)),
            ("-1", at(-1)),
        ];
        for (text, expect) in cases {
            assert_eq!(Moment::parse(text).ok(), expect, "{text:?}");
        }
    }

    #[test]
    fn whatever_else_is_refused_with_an_example() {
        let cases = [
            "",
            "ago",
            " ago",
            "h ago",
            "2 ago",
            "2hago",
            "2h",
            "-2h ago",
            "+2h ago",
            "1.5h ago",
            "2y ago",
            "2H ago",
            "2h Ago",
            "2h ago ago",
            "2hh ago",
            "h2 ago",
            "0x2h ago",
            "\u{662}h ago",
            "2\u{1F980} ago",
            "2h 3m ago",
            "36501d ago",
            "18446744073709551615w ago",
            "18446744073709551616s ago",
            "99999999999999999999999999s ago",
            "yesterday",
            "noon",
            "2024-11-24",
            "2024-13-01T00:00:00Z",
            "9223372036854775807",
        ];
        for text in cases {
            let refused = Moment::parse(text).expect_err(text);
            assert!(refused.contains("such as \"2h ago\"") && refused.contains("Z, or 17"));
        }
    }

    /// xorshift64 over the letters that matter: no text may make it panic.
    #[test]
    fn no_text_makes_it_panic() {
        let alphabet: Vec<char> = "0123456789smhdw ago-+.TZ:\u{662}\u{1F980}\t".chars().collect();
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as usize
        };
        let now = DateTime::from_timestamp(1_732_449_600, 0).expect("in range");
        let mut understood = 0;
        for _ in 0..200_000 {
            let length = next() % 24;
            let mut text: String = (0..length).map(|_| alphabet[next() % alphabet.len()]).collect();
            if next() % 2 == 0 {
                text.push_str(" ago");
            }
            if let Ok(moment) = Moment::parse(&text) {
                understood += 1;
                for now in [now, DateTime::<Utc>::MIN_UTC, DateTime::<Utc>::MAX_UTC] {
                    assert!(matches!(moment, Moment::At(_)) || moment.seen_from(now) <= now);
                }
            }
        }
        assert!(understood > 1000, "{understood} texts were understood");
    }
}
