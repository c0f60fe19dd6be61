//! A restored database takes its place: by hand over another, and never over one that came
//! meanwhile.

use simplebackup_engine::progress::Progress;
use simplebackup_engine::restore::{Existing, RestoreError};
use simplebackup_engine::store::Patience;

use crate::support::script::Gate;
use crate::support::store::{Call, Trouble};
use crate::support::{Site, db, deadline, visible_files_in};

#[tokio::test]
async fn a_restore_by_hand_moves_the_database_aside_and_only_if_told_to() {
    let site = Site::with_database();
    site.back_up().await.expect("made");
    let backed_up = db::dump(&site.database());
    db::add_notes(&db::open(&site.database()), 1);
    let newer = db::dump(&site.database());
    let (engine, progress) = (site.restore_engine(), Progress::default());
    let patience = simplebackup_engine::store::Patience::FewTries;
    let stored = site.store().list(deadline(), patience).await.expect("listed");
    let restore = |existing| {
        let (engine, progress, target) = (engine.clone(), progress.clone(), site.database());
        let backup = stored[0].clone();
        async move { engine.restore_to(&backup, &target, existing, deadline(), &progress).await }
    };

    let refused = restore(Existing::Refuse).await.expect_err("it exists");
    assert!(matches!(refused, RestoreError::TargetExists(_)), "{refused:?}");
    assert_eq!(db::dump(&site.database()), newer);
    let report = restore(Existing::MoveAside).await.expect("restored");
    assert_eq!(db::dump(&site.database()), backed_up);
    assert_eq!(db::dump(&report.replaced.expect("moved aside")), newer);
}

/// A program that owns the database may create it during a download: its log is not touched.
#[tokio::test]
async fn i3_a_database_that_appears_during_a_restore_keeps_its_log() {
    let site = Site::with_database();
    site.back_up().await.expect("made");
    site.lose_database();
    let gate = Gate::default();
    site.script().plan(Call::Get, .., Trouble::Hold(gate.clone()));
    let meanwhile = async {
        gate.arrival().await;
        db::create(&site.database(), "wal", 7);
        let app = db::open(&site.database());
        db::add_notes(&app, 7);
        gate.release();
        app
    };
    let (restored, app) = tokio::join!(site.restore(), meanwhile);
    let refused = restored.expect_err("exists by now");
    assert!(matches!(refused, RestoreError::Place(_)), "{refused:?}");
    drop(app);
    let rows: i64 = db::open(&site.database())
        .query_row("SELECT count(*) FROM notes", [], |row| row.get(0))
        .expect("counted");
    assert_eq!(rows, 14);
    site.assert_no_leftovers();
}

#[tokio::test]
async fn i3_a_restore_by_force_does_not_move_a_database_aside_that_was_not_there() {
    let site = Site::with_database();
    site.back_up().await.expect("made");
    site.lose_database();
    let gate = Gate::default();
    site.script().plan(Call::Get, .., Trouble::Hold(gate.clone()));
    let store = site.store();
    let stored = store.list(deadline(), Patience::FewTries).await.expect("listed");
    let (engine, progress, target) = (site.restore_engine(), Progress::default(), site.database());
    let restore =
        engine.restore_to(&stored[0], &target, Existing::MoveAside, deadline(), &progress);
    let meanwhile = async {
        gate.arrival().await;
        db::create(&site.database(), "wal", 7);
        gate.release();
    };
    let (restored, ()) = tokio::join!(restore, meanwhile);
    let refused = restored.expect_err("another's by now");
    assert!(matches!(refused, RestoreError::Place(_)), "{refused:?}");
    assert_eq!(visible_files_in(site.root()), ["app.db"]);
}
