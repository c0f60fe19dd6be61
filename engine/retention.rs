//! Which backups are no longer needed. Pure: a list in, a list out.

use std::num::NonZeroUsize;

use crate::key::BackupKey;

/// Returns the keys beyond the newest `keep`, oldest first. The order of `keys` does not matter.
#[must_use]
pub fn surplus(keys: &[BackupKey], keep: NonZeroUsize) -> Vec<BackupKey> {
    let mut sorted = keys.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    sorted.truncate(sorted.len().saturating_sub(keep.get()));
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(stored: &[u64], keep: usize, expect: &[u64]) {
        let keys: Vec<_> = stored
            .iter()
            .map(|t| BackupKey::parse(&format!("db-backup-{t}.db.gz")).expect("a valid name"))
            .collect();
        let keep = NonZeroUsize::new(keep).expect("at least one");
        let found: Vec<_> = surplus(&keys, keep).into_iter().map(BackupKey::timestamp).collect();
        assert_eq!(found, expect, "stored {stored:?}, keep {keep}");
    }

    #[test]
    fn i1_the_newest_keep_stay_whatever_the_order() {
        check(&[], 3, &[]);
        check(&[1], 3, &[]);
        check(&[1, 2, 3], 3, &[]);
        check(&[1, 2, 3, 4], 3, &[1]);
        check(&[4, 1, 3, 2], 3, &[1]);
        check(&[10, 9, 100, 1], 1, &[1, 9, 10]);
    }

    #[test]
    fn i1_a_key_listed_twice_counts_once() {
        check(&[1, 2, 3, 3], 3, &[]);
        check(&[1, 1, 2, 3, 4], 3, &[1]);
    }
}
