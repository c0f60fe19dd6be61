//! A look at a lock from outside.

use std::fs::{File, TryLockError};
use std::io;

use super::{LockError, RUN_LOCK, SERVICE_LOCK, WorkFolder, holder};

impl WorkFolder {
    /// Returns who answers for this database now, such as `process 4711`; makes and takes nothing.
    pub fn service(&self) -> Result<Option<String>, LockError> {
        self.who_has(SERVICE_LOCK)
    }

    /// Returns who makes a backup of this database now; makes and takes nothing.
    pub fn runner(&self) -> Result<Option<String>, LockError> {
        self.who_has(RUN_LOCK)
    }

    fn who_has(&self, lock: &str) -> Result<Option<String>, LockError> {
        let failed = |source| LockError::Io { path: self.path.clone(), source };
        let file = match File::open(self.path.join(lock)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        // Shared, and let go at once: two that look don't see each other, and a service that starts
        // meanwhile waits for longer than this takes.
        match file.try_lock_shared() {
            Ok(()) => Ok(None),
            Err(TryLockError::WouldBlock) => Ok(Some(holder(&file))),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }
}
