//! A folder as a store: nobody else reads what is in it, and no part of a backup ever shows.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use simplebackup_engine::archive::Piece;
use simplebackup_engine::deadline::Deadline;
use simplebackup_engine::key::BackupKey;
use simplebackup_engine::store::{BackupStore, Fault, NewBackup, Patience, Uploaded};
use tokio::sync::mpsc;

use crate::support::process::eventually;
use crate::support::{deadline, files_in, name};

/// A folder that everybody may read, as administrators make them, and the store in it.
fn store() -> (tempfile::TempDir, BackupStore) {
    let root = tempfile::tempdir().expect("a temporary folder");
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).expect("set");
    let store = BackupStore::folder(root.path()).expect("opened");
    (root, store)
}

fn backup() -> NewBackup {
    let key = BackupKey::parse(&name(5)).expect("a name");
    NewBackup { key, database_bytes: 8, metadata: Vec::new() }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("there").permissions().mode() & 0o777
}

/// Waits until the first piece is in a file, and returns the file's name.
async fn staged(root: &Path) -> String {
    let look = async {
        loop {
            let files = files_in(root);
            let filled = |name: &&String| fs::metadata(root.join(name)).is_ok_and(|m| m.len() > 0);
            if let Some(name) = files.iter().find(filled) {
                return name.clone();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    deadline().limit(look).await.expect("written")
}

#[tokio::test]
async fn nobody_else_may_read_a_backup_not_even_while_it_is_written() {
    let (root, store) = store();
    let (pieces, received) = mpsc::channel(4);
    let watching = async {
        pieces.send(Piece::Bytes(Bytes::from_static(b"all rows"))).await.expect("taken");
        let staged = staged(root.path()).await;
        assert_eq!(mode(&root.path().join(&staged)), 0o600);
        assert_eq!(store.list(deadline(), Patience::FewTries).await.expect("listed"), []);
        pieces.send(Piece::End).await.expect("taken");
    };
    let uploading = store.upload(backup(), received, deadline());
    let (uploaded, ()) = tokio::join!(uploading, watching);
    assert_eq!(uploaded.expect("stored"), Uploaded::Complete);
    assert_eq!(files_in(root.path()), [name(5)]);
    assert_eq!(mode(&root.path().join(name(5))), 0o600);
}

/// On a dead disk the writing thread hangs, and with it would hang the packing one, which holds the
/// lock of the run: no later backup could begin.
#[tokio::test]
async fn an_upload_that_ran_out_of_time_lets_go_of_its_pieces() {
    let (root, store) = store();
    let (pieces, received) = mpsc::channel(4);
    pieces.send(Piece::Bytes(Bytes::from_static(b"half of"))).await.expect("room");
    let soon = Deadline::after(Duration::from_millis(100));
    let late = store.upload(backup(), received, soon).await.expect_err("no end comes");
    assert_eq!(late.fault, Fault::OutOfTime);
    assert!(pieces.is_closed());
    eventually("nothing is left", || files_in(root.path()).is_empty());
}

#[tokio::test]
async fn i6_pieces_that_end_early_leave_nothing_in_the_folder() {
    let (root, store) = store();
    let (pieces, received) = mpsc::channel(4);
    pieces.send(Piece::Bytes(Bytes::from_static(b"half of"))).await.expect("room");
    drop(pieces);
    let uploaded = store.upload(backup(), received, deadline()).await;
    assert_eq!(uploaded.expect("no failure of the store"), Uploaded::Abandoned);
    assert_eq!(files_in(root.path()), [""; 0]);
}
