//! `Retry-After`: how long a store asks to be left alone. The client does not read it, so
//! [`super::strict`] does, before the client sees the answer.

use std::time::Duration;

use chrono::{DateTime, Utc};
use object_store::HeaderMap;
use thiserror::Error;

/// A read that the store refused for now. Printed as the client prints a refusal, so that one
/// rule tells both kinds apart by their status.
#[derive(Debug, Error)]
#[error("status code: {status}: {body}")]
pub(super) struct AskedToWait {
    /// Such as `503 Service Unavailable`.
    pub(super) status: String,
    pub(super) body: String,
    /// As the store has it, which may be absurd: whoever waits bounds it.
    pub(super) wait: Duration,
}

/// Returns how long to wait by the headers of a refusal: seconds, or a date seen from the date of
/// the answer itself, so that no clock of ours takes part. `None` for what is neither.
#[must_use]
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name)?.to_str().ok().map(str::trim);
    let asked = text("retry-after")?;
    if let Ok(seconds) = asked.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = |text| DateTime::parse_from_rfc2822(text).ok();
    let wait = date(asked)?.signed_duration_since(date_of(headers)?);
    // Err: the date has passed.
    Some(wait.to_std().unwrap_or_default())
}

/// Returns the time of an answer, by the clock of whoever gave it.
pub(super) fn date_of(headers: &HeaderMap) -> Option<DateTime<Utc>> {
    let text = headers.get("date")?.to_str().ok()?;
    Some(DateTime::parse_from_rfc2822(text.trim()).ok()?.to_utc())
}

/// Returns whether a refusal with this status is one for now: the same as [`super::Fault::Busy`].
pub(super) fn is_for_now(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500..=599)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_dates_are_understood_and_nothing_else() {
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        let cases = [
            ("0", Some(0)),
            ("7", Some(7)),
            (" 120 ", Some(120)),
            ("31536000000", Some(31_536_000_000)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("-5", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
            ("Sun, 06 Nov 1994 08:50:07 GMT", Some(30)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("Fri, 31 Dec 9999 23:59:59 GMT", Some(252_618_189_022)),
        ];
        for (asked, seconds) in cases {
            let mut headers = HeaderMap::new();
            headers.insert("retry-after", asked.parse().expect("a header"));
            headers.insert("date", date.parse().expect("a header"));
            assert_eq!(retry_after(&headers), seconds.map(Duration::from_secs), "{asked:?}");
        }
        let mut headers = HeaderMap::new();
        assert_eq!(retry_after(&headers), None, "no header");
        headers.insert("retry-after", date.parse().expect("a header"));
        assert_eq!(retry_after(&headers), None, "a date, and none to see it from");
    }
}
