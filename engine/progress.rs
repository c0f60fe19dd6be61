//! How far a job is, for status pages and progress bars. The job writes, anyone reads, nobody
//! waits: three atomic numbers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

/// A step of a backup or of a restore, in the order in which they happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// Before the first step.
    Waiting,
    /// `VACUUM INTO` runs.
    Snapshot,
    /// The store's list is read.
    List,
    /// The archive arrives and is unpacked.
    Download,
    /// `PRAGMA integrity_check` runs.
    Check,
    /// The archive is packed and sent.
    Upload,
    /// Surplus backups are deleted.
    Prune,
    /// The checked file takes the database's name.
    Place,
}

impl Stage {
    const ALL: [Self; 8] = [
        Self::Waiting,
        Self::Snapshot,
        Self::List,
        Self::Download,
        Self::Check,
        Self::Upload,
        Self::Prune,
        Self::Place,
    ];

    /// Returns the stage's name in status, logs and progress bars.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Snapshot => "snapshot",
            Self::List => "list",
            Self::Download => "download",
            Self::Check => "check",
            Self::Upload => "upload",
            Self::Prune => "prune",
            Self::Place => "place",
        }
    }
}

/// A job's progress; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Numbers>);

#[derive(Debug, Default)]
struct Numbers {
    stage: AtomicU8,
    done_bytes: AtomicU64,
    total_bytes: AtomicU64,
}

impl Progress {
    /// Enters `stage`, of which `total_bytes` are to be done (zero when nobody can know).
    pub fn enter(&self, stage: Stage, total_bytes: u64) {
        self.0.done_bytes.store(0, Relaxed);
        self.0.total_bytes.store(total_bytes, Relaxed);
        self.0.stage.store(stage as u8, Relaxed);
    }

    /// Says how many bytes of the current stage are done.
    pub fn set_done(&self, bytes: u64) {
        self.0.done_bytes.store(bytes, Relaxed);
    }

    /// Returns the current stage.
    #[must_use]
    pub fn stage(&self) -> Stage {
        let index = usize::from(self.0.stage.load(Relaxed));
        Stage::ALL.get(index).copied().unwrap_or(Stage::Waiting)
    }

    /// Returns the bytes done and the bytes to do of the current stage.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        (self.0.done_bytes.load(Relaxed), self.0.total_bytes.load(Relaxed))
    }
}
