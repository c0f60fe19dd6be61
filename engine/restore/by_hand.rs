//! A restore that a person asks for: of any backup, to any path, over another database if told to.

use std::fs;
use std::path::Path;
use std::time::Instant;

use super::{
    Existing, RestoreEngine, RestoreError, RestoreReport, finish, in_background, look, report,
    work_folder,
};
use crate::deadline::Deadline;
use crate::lease;
use crate::progress::{Progress, Stage};
use crate::snapshot;
use crate::store::StoredBackup;
use crate::work_dir::{LockError, ServiceLock, WorkFolder};

impl RestoreEngine {
    /// Restores `backup` to `target` by hand: refuses to replace a database unless told to, and
    /// then moves it aside, with its log, instead of deleting it.
    pub async fn restore_to(
        &self,
        backup: &StoredBackup,
        target: &Path,
        existing: Existing,
        deadline: Deadline,
        progress: &Progress,
    ) -> Result<RestoreReport, RestoreError> {
        let started = Instant::now();
        let path = target.to_owned();
        let (target, exists, _guard) = in_background(deadline, Stage::List, move || {
            let (target, exists) = look(&path);
            if exists && existing == Existing::Refuse {
                return Err(RestoreError::TargetExists(target));
            }
            let metadata = fs::metadata(&target).ok();
            if let Some(what) = metadata.and_then(|found| snapshot::other_than_file(&found)) {
                return Err(RestoreError::NotAFile { path: target, what });
            }
            let is_guarded = exists || WorkFolder::beside(&target).path().exists();
            let guard = is_guarded.then(|| guard_target(&target)).transpose()?;
            Ok((target, exists, guard))
        })
        .await??;
        let file = self.fetch(backup, &target, deadline, progress).await?;
        progress.enter(Stage::Place, 0);
        let mut report = report(backup, std::slice::from_ref(backup), &file);
        let now = self.clock.now().timestamp();
        report.replaced = in_background(deadline, Stage::Place, move || {
            // Anew: a program may have opened it during the download.
            if exists {
                refuse_if_in_use(&target)?;
            }
            // What appeared meanwhile is nobody's to move aside: its service may run already.
            let existing = if exists { existing } else { Existing::Refuse };
            let replaced = finish(file, &target, existing, now)?;
            let work = WorkFolder::beside(&target);
            lease::forget(&work).map_err(|source| work_folder(&target, source))?;
            Ok::<_, RestoreError>(replaced)
        })
        .await??;
        report.took = started.elapsed();
        Ok(report)
    }
}

/// Makes sure that nobody uses the database that is about to be replaced.
fn guard_target(target: &Path) -> Result<ServiceLock, RestoreError> {
    let work = WorkFolder::beside(target);
    let lock = work.lock_service().map_err(|error| match error {
        LockError::Held { holder } => RestoreError::InUse {
            path: target.to_owned(),
            holder: format!("simplebackup, {holder}"),
        },
        LockError::Io { path, source } => RestoreError::WorkFolder { path, source },
    })?;
    refuse_if_in_use(target)?;
    Ok(lock)
}

fn refuse_if_in_use(target: &Path) -> Result<(), RestoreError> {
    if crate::sqlite::is_in_use(target) {
        let holder = "another program".to_owned();
        return Err(RestoreError::InUse { path: target.to_owned(), holder });
    }
    Ok(())
}
