//! Patience with a store: what it asks for is given, within bounds; what moves on is waited for,
//! what stands still is not; and an error is never taken for an empty store.

use std::time::{Duration, Instant};

use futures::StreamExt;
use simplebackup_engine::archive::Piece;
use simplebackup_engine::deadline::Deadline;
use simplebackup_engine::progress::Progress;
use simplebackup_engine::restore::{Outcome, RestoreError};
use simplebackup_engine::store::{BackupStore, Fault, Patience, StoreError};
use simplebackup_engine::text;

use super::{
    archive_of, back_up, back_up_until, restore, restore_until, store_error_of_backup,
    store_error_of_restore,
};
use crate::support::process::eventually;
use crate::support::s3::{Request, S3Server, Trouble};
use crate::support::store::{Call, Trouble as Planned};
use crate::support::{START, Site, deadline, files_in, name};

/// Values of `Retry-After` that no restore lives to see the end of, and some that mean nothing.
const ABSURD: [&str; 7] = [
    "3600",
    "31536000000",
    "18446744073709551615",
    "99999999999999999999999999",
    "-5",
    "in a while",
    "Fri, 31 Dec 9999 23:59:59 GMT",
];

/// Later than this after its deadline nothing ends, however busy this machine is; a wait that a
/// store asks for is longer.
const OVERDUE: Duration = Duration::from_secs(25);

/// Tries with more and more time until it was enough: on a busy machine a second may not be.
async fn with_enough_time(attempt: impl AsyncFn(Duration) -> bool) {
    for seconds in [1, 2, 4, 8, 16] {
        if attempt(Duration::from_secs(seconds)).await {
            return;
        }
    }
    panic!("it never came to what is to be shown");
}

/// Twice a second, where our own pauses would be 0.2 and 0.4 seconds.
#[tokio::test]
async fn a_read_waits_as_long_as_the_store_asks() {
    let archive = archive_of(Site::with_database()).await;
    let archive = &archive;
    let checks = futures::stream::iter([408, 429, 503]).map(|status| async move {
        let (server, site) = (S3Server::start().await, Site::new());
        server.put(&name(START), archive);
        for kind in [Request::List, Request::Get] {
            server.script().plan(kind, ..1, Trouble::AskToWait(status, "1"));
        }
        let started = Instant::now();
        let restored = restore(&site, &server.store()).await.expect("restored");
        assert!(started.elapsed() >= Duration::from_secs(2), "{status}: {:?}", started.elapsed());
        assert!(matches!(restored.outcome(), Outcome::FromBackup(_)), "{restored:?}");
        let asked = [Request::List, Request::Get].map(|kind| server.script().count(kind));
        assert_eq!(asked, [2, 2], "{status}: the client did not try by itself");
    });
    checks.buffer_unordered(3).collect::<()>().await;
}

#[tokio::test]
async fn a_write_waits_as_long_as_the_store_asks() {
    let (server, site) = (S3Server::start().await, Site::with_database());
    for timestamp in [1, 2, 3] {
        server.put(&name(timestamp), b"old");
    }
    for kind in [Request::List, Request::Put, Request::Delete] {
        server.script().plan(kind, ..1, Trouble::AskToWait(503, "1"));
    }
    let started = Instant::now();
    let report = back_up(&site, &server.store()).await.expect("made");
    assert!(started.elapsed() >= Duration::from_secs(3), "{:?}", started.elapsed());
    assert_eq!((report.deleted, report.delete_warning), (1, None));
    let kinds = [Request::List, Request::Put, Request::Delete];
    assert_eq!(kinds.map(|kind| server.script().count(kind)), [2, 2, 2]);
}

/// A part is tried again alone: the parts before it are not sent anew.
#[tokio::test]
async fn a_part_waits_as_long_as_the_store_asks() {
    let (server, site) = (S3Server::start().await, super::large_site(6));
    server.script().plan(Request::PutPart, 1..2, Trouble::AskToWait(429, "1"));
    let started = Instant::now();
    back_up(&site, &server.store()).await.expect("made");
    assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
    assert_eq!(server.script().count(Request::BeginUpload), 1);
    assert_eq!(server.script().count(Request::PutPart), 3);
}

/// The last try comes just before the deadline, and the error says what the store said.
#[tokio::test]
async fn no_wait_that_a_store_asks_for_passes_the_deadline() {
    let cases =
        ABSURD.into_iter().flat_map(|asked| [(Request::List, asked), (Request::Get, asked)]);
    let checks = futures::stream::iter(cases).map(|(kind, asked)| async move {
        with_enough_time(async |timeout| {
            let (server, site) = (S3Server::start().await, Site::new());
            server.put(&name(START), b"never read");
            server.script().plan(kind, .., Trouble::AskToWait(503, asked));
            let started = Instant::now();

            let restored = restore_until(&site, &server.store(), Deadline::after(timeout)).await;

            let took = started.elapsed();
            assert!(took < timeout + OVERDUE, "{kind:?} {asked}: {took:?}");
            eventually("nothing is left", || files_in(site.root()).is_empty());
            if matches!(restored, Err(RestoreError::OutOfTime { .. })) {
                // A machine so busy that the deadline passed beside the store.
                return false;
            }
            let error = store_error_of_restore(restored);
            let is_asked_twice = server.script().count(kind) > 1;
            if is_asked_twice {
                assert_eq!(error.fault, Fault::Busy, "{kind:?} {asked}");
                assert!(text::chain(&error).contains("SlowDown"), "{}", text::chain(&error));
            }
            is_asked_twice
        })
        .await;
    });
    checks.buffer_unordered(ABSURD.len() * 2).collect::<()>().await;
}

/// A write knows of no deadline while it waits: whoever waits for it does.
#[tokio::test]
async fn i5_a_write_that_is_asked_to_wait_is_left_at_the_deadline() {
    with_enough_time(async |timeout| {
        let (server, site) = (S3Server::start().await, Site::with_database());
        server.script().plan(Request::Put, .., Trouble::AskToWait(503, "31536000000"));
        let started = Instant::now();
        let made = back_up_until(&site, &server.store(), Deadline::after(timeout)).await;
        assert!(started.elapsed() < timeout + OVERDUE, "{:?}", started.elapsed());
        assert_eq!(server.stored(), [""; 0]);
        let is_asked = server.script().count(Request::Put) > 0;
        if is_asked {
            assert_eq!(store_error_of_backup(made).fault, Fault::OutOfTime);
        }
        is_asked
    })
    .await;
}

/// A date that has passed asks for nothing: our own pauses hold.
#[tokio::test]
async fn a_date_that_has_passed_is_no_wait() {
    let (server, site) = (S3Server::start().await, Site::new());
    let past = "Sun, 06 Nov 1994 08:49:37 GMT";
    server.script().plan(Request::List, ..2, Trouble::AskToWait(503, past));
    let restored = restore(&site, &server.store()).await.expect("answered");
    assert_eq!(restored.outcome(), &Outcome::NothingStored);
    assert_eq!(server.script().count(Request::List), 3);
}

/// The three outcomes of a list, through the real client: only one of them may start an app on a
/// fresh database.
#[tokio::test]
async fn only_a_list_that_says_so_is_an_empty_store() {
    const BUSY: [u16; 7] = [408, 425, 429, 500, 502, 503, 504];
    let refusals = BUSY.into_iter().chain([400, 401, 403, 404, 409, 412, 501]);
    let mut troubles: Vec<_> = refusals.map(|status| Trouble::Refuse(status, "Code")).collect();
    troubles.extend([Trouble::CutAnswer(0), Trouble::CutAnswer(90), Trouble::Hang]);
    troubles.push(Trouble::AskToWait(503, "1"));
    let checks = futures::stream::iter(troubles).map(|trouble| async move {
        for is_stored in [true, false] {
            with_enough_time(async |timeout| {
                let (server, site) = (S3Server::start().await, Site::new());
                if is_stored {
                    server.put(&name(START), b"never read");
                }
                server.script().plan(Request::List, .., trouble.clone());
                let deadline = Deadline::after(timeout);
                let restored = restore_until(&site, &server.store(), deadline).await;
                // Never `NothingStored`, also where no answer came in time.
                assert!(restored.is_err(), "{trouble:?}: {restored:?}");
                assert_eq!(files_in(site.root()), [""; 0], "{trouble:?}");
                server.script().count(Request::List) > 0
            })
            .await;
        }
    });
    checks.buffer_unordered(20).collect::<()>().await;
    let server = S3Server::start().await;
    let restored = restore(&Site::new(), &server.store()).await.expect("answered");
    assert_eq!(restored.outcome(), &Outcome::NothingStored);
}

/// Downloads the one backup of a site, on paused time. Without a thread that unpacks it: that
/// would keep time from passing.
async fn download(site: &Site, deadline: Deadline) -> (Result<(), StoreError>, Vec<u8>) {
    let store: BackupStore = site.store();
    let stored = store.list(deadline, Patience::UntilDeadline).await.expect("listed");
    let (sender, mut receiver) = tokio::sync::mpsc::channel(2);
    let taking = async {
        let mut taken = Vec::new();
        while let Some(Piece::Bytes(bytes)) = receiver.recv().await {
            taken.extend_from_slice(&bytes);
        }
        taken
    };
    let progress = Progress::default();
    let (ended, taken) =
        tokio::join!(store.download(&stored[0], sender, deadline, &progress), taking);
    (ended.map(drop), taken)
}

async fn site_with_object(bytes: usize) -> (Site, Vec<u8>) {
    let (site, object) = (Site::new(), crate::support::db::noise(1, bytes));
    site.put(&name(START), object.clone()).await;
    (site, object)
}

/// However often it is cut: what moves on is never further than a fifth of a second apart.
#[tokio::test(start_paused = true)]
async fn the_pauses_of_a_download_start_anew_whenever_bytes_arrived() {
    let (site, object) = site_with_object(50_000).await;
    site.script().plan(Call::Get, .., Planned::Cut(1000));
    let started = tokio::time::Instant::now();
    let (ended, taken) = download(&site, deadline()).await;
    ended.expect("it moves on");
    assert_eq!(site.script().count(Call::Get), 50);
    assert!(taken == object, "another object");
    assert_eq!(started.elapsed().as_millis() / 49, 200, "on the average");
}

/// What does not move on is asked less and less often, until the deadline.
#[tokio::test(start_paused = true)]
async fn a_download_without_a_byte_is_tried_until_the_deadline() {
    let (site, _object) = site_with_object(50_000).await;
    site.script().plan(Call::Get, .., Planned::Cut(0));
    let started = tokio::time::Instant::now();
    let (ended, taken) = download(&site, deadline()).await;
    assert_eq!(ended.expect_err("cut").fault, Fault::Unreachable);
    let took = started.elapsed();
    assert!((Duration::from_secs(59)..=Duration::from_mins(1)).contains(&took), "{took:?}");
    // 0.2, 0.4, 0.8, 1.6 and 3.2 seconds, then every five, and one just before the end.
    assert_eq!((site.script().count(Call::Get), taken.len()), (17, 0));
}

/// A peer that went without a word: no reset, no end, for two minutes nothing at all.
#[tokio::test(start_paused = true)]
async fn a_download_that_stands_still_goes_on_over_another_connection() {
    for bytes in [0, 1, 20_000] {
        let (site, object) = site_with_object(50_000).await;
        site.script().plan(Call::Get, ..1, Planned::Stall(bytes));
        let started = tokio::time::Instant::now();
        let (ended, taken) = download(&site, deadline()).await;
        ended.unwrap_or_else(|error| panic!("{bytes}: {}", text::chain(&error)));
        assert!(taken == object, "{bytes}: another object");
        assert!(started.elapsed() < Duration::from_secs(30), "{bytes}: {:?}", started.elapsed());
        assert_eq!(site.script().count(Call::Get), 2, "{bytes}");
    }
}
