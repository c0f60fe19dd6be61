//! The webhook: a notice as JSON. Its fields are a contract with whoever reads them, see the
//! README: all are always there, and `null` where they say nothing.

use std::path::Path;

use chrono::SecondsFormat;
use serde::Serialize;
use simplebackup_actors::messages::Trigger;
use url::Url;

use super::delivery::{Body, Request};
use super::notice::{Kind, Notice};
use crate::config::WebhookEvents;

/// What is posted.
#[derive(Debug, Serialize)]
struct Payload<'a> {
    event: &'static str,
    at: String,
    host: &'a str,
    database: String,
    trigger: Option<&'static str>,
    duration_seconds: Option<f64>,
    size_bytes: Option<u64>,
    key: Option<String>,
    error: Option<&'a str>,
    recovered: bool,
    /// What Slack, Mattermost and their like show.
    text: &'a str,
}

/// Returns whether the webhook hears of a notice.
pub(super) fn is_wanted(events: WebhookEvents, notice: &Notice) -> bool {
    match (events, notice.kind) {
        (_, Kind::Test) | (WebhookEvents::All, _) => notice.kind != Kind::BackupStarted,
        (WebhookEvents::Failures, kind) => kind.is_failure() || notice.is_recovery,
    }
}

/// Returns the request for a notice.
pub(super) fn request(
    url: &Url,
    notice: &Notice,
    (host, database): (&str, &Path),
    text: &str,
) -> Option<Request> {
    let payload = Payload {
        event: notice.kind.name(),
        at: notice.at.to_rfc3339_opts(SecondsFormat::Secs, true),
        host,
        database: database.display().to_string(),
        trigger: notice.trigger.map(Trigger::word),
        duration_seconds: notice.took.map(|took| took.as_secs_f64()),
        size_bytes: notice.size_bytes,
        key: notice.key.map(|key| key.to_string()),
        error: notice.error.as_deref(),
        recovered: notice.is_recovery,
        text,
    };
    // Err: a map whose keys are no text; this is none.
    let text = serde_json::to_string(&payload).ok()?;
    Some(Request::post(url.clone(), Body { content_type: "application/json", text }))
}
