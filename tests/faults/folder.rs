//! What a folder refuses: by its rights, by its disk, by being gone.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use simplebackup_engine::backup::BackupError;
use simplebackup_engine::progress::Progress;
use simplebackup_engine::store::{BackupStore, Fault};
use simplebackup_engine::text;

use crate::support::store::{Call, Trouble};
use crate::support::{Site, backup_engine, deadline, files_in};

/// What the system says of a folder: the fault, and the words of the error.
const REFUSALS: [(Fault, &str); 3] = [
    (Fault::FolderDenied, "permission denied; let this user read and write the folder"),
    (Fault::FolderFull, "no space left; free some, or check store.url"),
    (Fault::NoSuchFolder, "no such folder; create it, mount its disk, or check store.url"),
];

#[tokio::test]
async fn i6_what_a_folder_refuses_is_told_at_once_and_leaves_nothing() {
    for (fault, words) in REFUSALS {
        let site = Site::with_database();
        site.script().plan(Call::Put, .., Trouble::Fail(fault));

        let refused = site.back_up().await.expect_err("refused");

        let BackupError::Store(error) = &refused else { panic!("{fault:?}: {refused:?}") };
        assert_eq!(error.fault, fault);
        assert!(text::chain(error).contains(words), "{}", text::chain(error));
        assert_eq!(site.script().count(Call::Put), 1, "{fault:?}: not tried again");
        assert_eq!(site.stored().await, [""; 0], "{fault:?}");
        site.assert_no_leftovers();
        site.script().heal();
        site.back_up().await.expect("room again");
    }
}

#[tokio::test]
async fn a_folder_that_may_not_be_written_is_told_by_its_rights() {
    let (site, root) = (Site::with_database(), tempfile::tempdir().expect("a temporary folder"));
    let folder = root.path().join("backups");
    fs::create_dir(&folder).expect("made");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o500)).expect("set");
    if fs::write(folder.join("probe"), "").is_ok() {
        eprintln!("SKIPPED: this user (root?) may write where it may not; run it as another");
        return;
    }
    let store = BackupStore::folder(&folder).expect("opened");
    let engine = backup_engine(&site.database(), store, &site.clock);

    let refused = engine.back_up(deadline(), &Progress::default()).await.expect_err("refused");

    let BackupError::Store(error) = &refused else { panic!("{refused:?}") };
    assert_eq!(error.fault, Fault::FolderDenied, "{}", text::chain(error));
    assert_eq!(files_in(&folder), [""; 0]);
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).expect("set");
    engine.back_up(deadline(), &Progress::default()).await.expect("allowed");
}
