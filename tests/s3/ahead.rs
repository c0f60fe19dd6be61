//! A small backup travels while its check still runs, but for its last bytes: what the store makes of
//! that, whatever becomes of the check and of the request.

use std::time::Duration;

use bytes::Bytes;
use simplebackup_engine::archive::Piece;
use simplebackup_engine::backup::BackupError;
use simplebackup_engine::key::BackupKey;
use simplebackup_engine::store::{BackupStore, NewBackup, StoreError, Uploaded};
use simplebackup_engine::text;
use tokio::sync::mpsc::{self, Sender};

use super::back_up;
use crate::support::s3::{Request, S3Server, Trouble};
use crate::support::script::Gate;
use crate::support::{Site, db, deadline, name};

/// How long the server has for what may come of a request.
const SETTLED: Duration = Duration::from_millis(50);

const CHUNK_BYTES: usize = 64 * 1024;

/// Gives a store so many chunks that are all, does `meanwhile`, and says whether they are to be stored.
async fn upload_chunks(
    chunks: u8,
    store: &BackupStore,
    meanwhile: impl AsyncFnOnce(),
    is_sound: bool,
) -> Result<Uploaded, StoreError> {
    let (pieces, received) = mpsc::channel(8);
    let key = BackupKey::parse(&name(5)).expect("a valid name");
    let backup = NewBackup { key, database_bytes: 1, metadata: Vec::new() };
    let giving = async move {
        for byte in 1..=chunks {
            give(&pieces, Piece::Bytes(vec![byte; CHUNK_BYTES].into())).await;
        }
        give(&pieces, Piece::Whole).await;
        meanwhile().await;
        if is_sound {
            give(&pieces, Piece::End).await;
        }
    };
    let (uploaded, ()) = tokio::join!(store.upload(backup, received, deadline()), giving);
    uploaded
}

async fn upload(
    store: &BackupStore,
    meanwhile: impl AsyncFnOnce(),
    is_sound: bool,
) -> Result<Uploaded, StoreError> {
    upload_chunks(3, store, meanwhile, is_sound).await
}

async fn give(pieces: &Sender<Piece>, piece: Piece) {
    pieces.send(piece).await.expect("taken");
}

fn whole() -> Vec<u8> {
    [1, 2, 3].map(|byte| Bytes::from(vec![byte; CHUNK_BYTES])).concat()
}

/// Waits until the server has begun to answer a PUT, and for what may come of it.
async fn put(server: &S3Server) {
    let asked = async {
        while server.script().count(Request::Put) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    deadline().limit(asked).await.expect("the request never came");
    tokio::time::sleep(SETTLED).await;
}

#[tokio::test]
async fn i6_nothing_is_visible_before_the_last_word() {
    for (is_sound, outcome) in [(true, Uploaded::Complete), (false, Uploaded::Abandoned)] {
        let server = S3Server::start().await;
        let meanwhile = async || {
            put(&server).await;
            assert_eq!(server.stored(), [""; 0]);
        };
        let uploaded = upload(&server.store(), meanwhile, is_sound).await.expect("not refused");
        assert_eq!(uploaded, outcome);
        put(&server).await;
        assert_eq!(server.script().calls(), [Request::Put], "once, whatever was said");
        let stored = server.stored();
        assert_eq!(stored.is_empty(), !is_sound, "{stored:?}");
        assert!(stored.iter().all(|stored| server.get(stored) == whole()), "{stored:?}");
    }
}

/// The connection is cut by a server that has all but the last chunk: without it none would be.
#[tokio::test]
async fn all_but_the_last_chunk_arrives_before_and_a_cut_there_does_no_harm() {
    let server = S3Server::start().await;
    server.script().plan(Request::Put, ..1, Trouble::CutRequest(2 * CHUNK_BYTES));
    let cut = async || put(&server).await;
    let uploaded = upload(&server.store(), cut, true).await.expect("not refused");
    assert_eq!(uploaded, Uploaded::Complete);
    assert_eq!(server.script().calls(), [Request::Put, Request::Put]);
    assert_eq!(server.get(&name(5)), whole());
}

/// Without a byte of its own a request would be complete at once.
#[tokio::test]
async fn what_has_no_more_than_a_last_chunk_is_not_sent_ahead() {
    for chunks in [0, 1] {
        let server = S3Server::start().await;
        let meanwhile = async || {
            tokio::time::sleep(SETTLED).await;
            assert_eq!(server.script().calls(), []);
        };
        let stored = upload_chunks(chunks, &server.store(), meanwhile, true).await;
        assert_eq!(stored.expect("not refused"), Uploaded::Complete);
        assert_eq!(server.script().calls(), [Request::Put]);
        assert_eq!(server.get(&name(5)).len(), usize::from(chunks) * CHUNK_BYTES);
    }
}

/// Errors, a store that asks for patience, and an answer that can't be true.
#[tokio::test]
async fn a_request_that_is_sent_ahead_and_not_taken_decides_nothing() {
    let troubles = [
        Trouble::Refuse(400, "RequestTimeout"),
        Trouble::Refuse(503, "SlowDown"),
        Trouble::RefuseUnread(403, "AccessDenied"),
        Trouble::RefuseUnread(503, "SlowDown"),
        Trouble::AskToWait(503, "1"),
        Trouble::Reply("stored, without a word of it"),
    ];
    for trouble in troubles {
        for is_sound in [true, false] {
            let server = S3Server::start().await;
            server.script().plan(Request::Put, ..1, trouble.clone());
            let refused = async || put(&server).await;
            let uploaded = upload(&server.store(), refused, is_sound).await.expect("not refused");
            let (outcome, requests, stored) = if is_sound {
                (Uploaded::Complete, 2, vec![name(5)])
            } else {
                (Uploaded::Abandoned, 1, Vec::new())
            };
            assert_eq!((uploaded, server.stored()), (outcome, stored), "{trouble:?}");
            assert_eq!(server.script().count(Request::Put), requests, "{trouble:?}");
            assert_eq!(server.script().fired(Request::Put), 1, "{trouble:?}");
        }
    }
}

#[tokio::test]
async fn i6_a_small_database_that_is_damaged_never_becomes_a_backup() {
    let (server, site) = (S3Server::start().await, Site::new());
    db::create(&site.database(), "delete", 5_000);
    db::break_index(&site.database());
    let refused = back_up(&site, &server.store()).await.expect_err("a broken index");
    assert!(matches!(refused, BackupError::Check(_)), "{}", text::chain(&refused));
    // Whether it had begun to travel depends on who was faster.
    assert!(server.script().count(Request::Put) <= 1);
    tokio::time::sleep(SETTLED).await;
    assert_eq!(server.stored(), [""; 0]);
    site.assert_no_leftovers();
}

/// A check that takes longer than a request may: the store has cut it long before.
#[tokio::test]
async fn a_request_that_never_ends_is_not_waited_for_when_it_is_unwanted() {
    let server = S3Server::start().await;
    let gate = Gate::default();
    server.script().plan(Request::Put, .., Trouble::Hold(gate.clone()));
    let held = async || gate.arrival().await;
    let uploaded = upload(&server.store(), held, false).await.expect("not refused");
    assert_eq!(uploaded, Uploaded::Abandoned);
    gate.release();
    put(&server).await;
    assert_eq!(server.stored(), [""; 0]);
}
