//! Pings, for those who alarm when they stop: healthchecks.io, Dead Man's Snitch, and whatever
//! takes a GET. They hear of backups alone. Pure: a notice in, a request or nothing out.
//!
//! The protocols: <https://healthchecks.io/docs/http_api/>, <https://deadmanssnitch.com/docs>.

use url::{Url, form_urlencoded};

use super::delivery::{Body, Request};
use super::notice::{Kind, Notice};
use crate::config::SnitchKind;

/// What Healthchecks stores of a body, at least; newer ones store more.
const BODY_BYTES_MAX: usize = 10_000;

/// How long a message may be that ends up in an address and in a table of Dead Man's Snitch.
const MESSAGE_BYTES_MAX: usize = 250;

/// Returns what a server understands, by its host; others may be anybody's.
pub(super) fn kind_of(url: &Url) -> SnitchKind {
    match url.host_str() {
        Some("hc-ping.com") => SnitchKind::Healthchecks,
        Some("nosnch.in") => SnitchKind::Snitch,
        _ => SnitchKind::Plain,
    }
}

/// Returns what is sent of a notice, if anything is.
pub(super) fn request(kind: SnitchKind, url: &Url, notice: &Notice, text: &str) -> Option<Request> {
    match kind {
        SnitchKind::Plain => {
            matches!(notice.kind, Kind::BackupMade | Kind::Test).then(|| Request::get(url.clone()))
        }
        SnitchKind::Healthchecks => {
            // No `rid`: one backup runs at a time, and a start whose end another process tells
            // (its backup was in the way of ours) would wait for its own in vain.
            let (suffix, is_start) = match notice.kind {
                Kind::BackupStarted => (Some("start"), true),
                Kind::BackupMade => (None, false),
                Kind::BackupFailed => (Some("fail"), false),
                // Changes nothing about the check.
                Kind::Test => (Some("log"), false),
                _ => return None,
            };
            let text = cut(text, BODY_BYTES_MAX).to_owned();
            let body = Body { content_type: "text/plain; charset=utf-8", text };
            let request = Request::post(with_suffix(url, suffix), body);
            // The success or failure that follows says as much.
            Some(if is_start { request.tried_once() } else { request })
        }
        SnitchKind::Snitch => {
            let message = cut(text, MESSAGE_BYTES_MAX);
            match notice.kind {
                Kind::BackupMade | Kind::Test => {
                    let mut url = url.clone();
                    url.query_pairs_mut().append_pair("m", message);
                    Some(Request::get(url))
                }
                Kind::BackupFailed => {
                    let mut form = form_urlencoded::Serializer::new(String::new());
                    let text = form.append_pair("s", "1").append_pair("m", message).finish();
                    let content_type = "application/x-www-form-urlencoded";
                    Some(Request::post(url.clone(), Body { content_type, text }))
                }
                _ => None,
            }
        }
    }
}

/// Appends a part to the path, before the query.
fn with_suffix(url: &Url, suffix: Option<&str>) -> Url {
    let mut url = url.clone();
    // Err: an address without a path, which http has not.
    if let (Some(suffix), Ok(mut path)) = (suffix, url.path_segments_mut()) {
        path.pop_if_empty().push(suffix);
    }
    url
}

/// Returns the beginning of a text, in so many bytes at most.
fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    /// Returns what is sent: method, address and body.
    fn sent(kind: SnitchKind, url: &str, of: Kind) -> Option<String> {
        let url = Url::parse(url).expect("an address");
        let notice = Notice::of(of, DateTime::UNIX_EPOCH);
        request(kind, &url, &notice, "it's 1 & 2").map(|request| request.in_words())
    }

    #[test]
    fn each_server_is_told_in_its_own_way() {
        use SnitchKind::{Healthchecks, Plain, Snitch};
        let table = [
            (Plain, Kind::BackupStarted, None),
            (Plain, Kind::BackupMade, Some("GET https://h/t?a=b")),
            (Plain, Kind::BackupFailed, None),
            (Healthchecks, Kind::BackupStarted, Some("POST https://h/t/start?a=b it's 1 & 2")),
            (Healthchecks, Kind::BackupMade, Some("POST https://h/t?a=b it's 1 & 2")),
            (Healthchecks, Kind::BackupFailed, Some("POST https://h/t/fail?a=b it's 1 & 2")),
            (Healthchecks, Kind::Test, Some("POST https://h/t/log?a=b it's 1 & 2")),
            (Snitch, Kind::BackupStarted, None),
            (Snitch, Kind::BackupMade, Some("GET https://h/t?a=b&m=it%27s+1+%26+2")),
            (Snitch, Kind::BackupFailed, Some("POST https://h/t?a=b s=1&m=it%27s+1+%26+2")),
        ];
        for (kind, of, expected) in table {
            assert_eq!(sent(kind, "https://h/t?a=b", of).as_deref(), expected, "{kind:?} {of:?}");
        }
        for of in [Kind::DrillFailed, Kind::RestoreFailed, Kind::AppFailed, Kind::Fenced] {
            for kind in [Plain, Healthchecks, Snitch] {
                assert_eq!(sent(kind, "https://h/t", of), None, "{kind:?} hears of backups alone");
            }
        }
        let slash = sent(Healthchecks, "https://h/t/", Kind::BackupFailed);
        assert_eq!(slash.as_deref(), Some("POST https://h/t/fail it's 1 & 2"));
    }

    #[test]
    fn the_host_says_who_it_is() {
        for (url, kind) in [
            ("https://hc-ping.com/uuid", SnitchKind::Healthchecks),
            ("https://nosnch.in/token", SnitchKind::Snitch),
            ("https://hc.example.org/ping/uuid", SnitchKind::Plain),
            ("http://127.0.0.1:8000/hc-ping.com", SnitchKind::Plain),
        ] {
            assert_eq!(kind_of(&Url::parse(url).expect("an address")), kind, "{url}");
        }
    }

    #[test]
    fn a_long_error_is_cut_between_letters() {
        assert_eq!(cut("aéb", 2), "a");
        assert_eq!(cut("aéb", 3), "aé");
        assert_eq!(cut("aéb", 9), "aéb");
    }
}
