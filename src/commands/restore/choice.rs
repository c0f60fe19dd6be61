//! Which backup: by name, by time, the newest, or the one that a person takes from a list.

use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::StreamExt;
use simplebackup_engine::deadline::Deadline;
use simplebackup_engine::manifest::Manifest;
use simplebackup_engine::restore::RestoreEngine;
use simplebackup_engine::store::StoredBackup;
use simplebackup_engine::text;

use super::RestoreArgs;
use super::ask::{Answer, ask};
use crate::commands::{age, find, rfc3339};
use crate::output::complain;

/// How many backups a list shows: as many as a terminal has lines, less the question.
const SHOWN_MAX: usize = 20;

/// How long the headers of those may take; a list without their rows is a list.
const HEADERS_TIMEOUT: Duration = Duration::from_secs(10);

/// How many headers are asked for at the same time.
const HEADERS_AT_ONCE: usize = 4;

/// Returns the backup that the command line names, and in words how far it is from the time that
/// was asked for.
pub(super) fn named<'a>(
    stored: &'a [StoredBackup],
    arguments: &RestoreArgs,
    now: DateTime<Utc>,
) -> Result<(&'a StoredBackup, Option<String>), String> {
    if let Some(key) = arguments.from {
        return find(stored, key).map(|backup| (backup, None));
    }
    let (Some(newest), Some(oldest)) = (stored.last(), stored.first()) else {
        return Err("no backup is stored".to_owned());
    };
    let Some(moment) = arguments.at else { return Ok((newest, None)) };
    let moment = moment.seen_from(now);
    let not_younger = stored.iter().rev().find(|backup| backup.key.created_at() <= moment);
    let Some(backup) = not_younger else {
        return Err(format!(
            "no backup is as old as {}; the oldest is of {}: restore it with \"--from {}\", or give \
             a later time",
            rfc3339(moment),
            rfc3339(oldest.key.created_at()),
            oldest.key
        ));
    };
    let created_at = backup.key.created_at();
    // A time before 1970 is before each backup.
    let distance = (moment - created_at).to_std().unwrap_or_default();
    let words = format!(
        "chose {} of {}, {} before {}",
        backup.key,
        rfc3339(created_at),
        text::span(distance),
        rfc3339(moment)
    );
    Ok((backup, Some(words)))
}

/// Shows what is stored, newest first, and returns what a person takes of it.
pub(super) async fn asked<'a>(
    engine: &RestoreEngine,
    stored: &'a [StoredBackup],
) -> Option<&'a StoredBackup> {
    let shown: Vec<_> = stored.iter().rev().take(SHOWN_MAX).collect();
    let deadline = Deadline::after(HEADERS_TIMEOUT);
    let manifests: Vec<_> = futures::stream::iter(&shown)
        .map(|backup| engine.manifest_of(backup, deadline))
        .buffered(HEADERS_AT_ONCE)
        .collect()
        .await;
    complain(&format!("Backups in {}, newest first:\n", engine.store().location()));
    let now = Utc::now();
    for (index, (backup, manifest)) in shown.iter().zip(&manifests).enumerate() {
        // What cannot be read now may be readable in a moment: it is listed all the same.
        let manifest = manifest.as_ref().ok().and_then(Option::as_ref);
        complain(&line(index + 1, backup, manifest, now));
    }
    let older = stored.len() - shown.len();
    if older > 0 {
        complain(&format!("      and {older} older: see \"simplebackup list\", and use --from"));
    }
    let hint = format!("Give a number from 1 to {}, or q.", shown.len());
    let question = "\nWhich one? [Enter: 1, the newest; q: leave] ";
    ask(question, &hint, |answer| understand(answer, shown.len())).await.map(|index| shown[index])
}

fn line(
    number: usize,
    backup: &StoredBackup,
    manifest: Option<&Manifest>,
    now: DateTime<Utc>,
) -> String {
    let contents = manifest.and_then(|manifest| manifest.contents.as_ref());
    let rows = contents
        .map_or_else(|| "rows not known".to_owned(), |contents| contents.counted().in_words());
    let created_at = backup.key.created_at();
    let newest = if number == 1 { "  newest" } else { "" };
    format!(
        "{number:>4}  {:>13}  {}  {:>8}  {rows}{newest}",
        age(created_at, now),
        text::moment(created_at),
        text::size(backup.archive_bytes)
    )
}

/// Returns the index that an answer means.
fn understand(answer: &str, count: usize) -> Answer<usize> {
    match answer {
        "" => Answer::Is(0),
        "q" | "Q" => Answer::Leave,
        number if number.bytes().all(|byte| byte.is_ascii_digit()) => {
            match number.parse::<usize>() {
                Ok(number @ 1..) if number <= count => Answer::Is(number - 1),
                _ => Answer::Unclear,
            }
        }
        _ => Answer::Unclear,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_number_of_the_list_or_enter_or_q() {
        let cases = [
            ("", Answer::Is(0)),
            ("1", Answer::Is(0)),
            ("3", Answer::Is(2)),
            ("02", Answer::Is(1)),
            ("q", Answer::Leave),
            ("Q", Answer::Leave),
            ("0", Answer::Unclear),
            ("4", Answer::Unclear),
            ("-1", Answer::Unclear),
            ("+1", Answer::Unclear),
            ("1 2", Answer::Unclear),
            ("newest", Answer::Unclear),
            ("99999999999999999999999", Answer::Unclear),
        ];
        for (answer, expect) in cases {
            assert_eq!(understand(answer, 3), expect, "{answer:?}");
        }
    }
}
