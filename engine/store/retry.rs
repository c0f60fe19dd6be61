//! Patience with a store: how long to wait between tries, and when to give up.

use std::time::Duration;

use super::fault::StoreError;
use crate::deadline::Deadline;

/// The first pause between two tries, and the least time that a try is worth.
const FIRST: Duration = Duration::from_millis(200);

/// The longest pause; a store that comes back is noticed within this time.
const LONGEST: Duration = Duration::from_secs(5);

/// Tries of one operation in a backup: about six seconds with the pauses between them. A longer
/// outage is the next tick's.
const TRIES_IN_A_BACKUP: u32 = 6;

/// The longest wait in a backup because the store asks for it: of the 30 seconds that the last
/// backup has, most must be left for the work.
const LONGEST_ASKED_IN_A_BACKUP: Duration = Duration::from_secs(10);

/// The longest such wait in a restore. Longer ones are more often mistakes than plans, and a store
/// that is asked once a minute is not harmed.
const LONGEST_ASKED: Duration = Duration::from_mins(1);

/// How often an operation is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// Once: for a person who waits for the answer, whatever it is.
    Once,
    /// A few times: for a backup, which has another chance at the next tick.
    FewTries,
    /// Until the deadline: for a restore, without which the app can't start.
    UntilDeadline,
}

impl Patience {
    /// Returns how long a store is left alone at most because it asks for it.
    pub(super) fn longest_wait(self) -> Duration {
        match self {
            Self::Once | Self::FewTries => LONGEST_ASKED_IN_A_BACKUP,
            Self::UntilDeadline => LONGEST_ASKED,
        }
    }
}

/// The pauses of one operation.
#[derive(Debug)]
pub(super) struct Backoff {
    patience: Patience,
    tries: u32,
    pause: Duration,
    /// Why the last try failed.
    last: Option<StoreError>,
}

impl Backoff {
    pub(super) fn new(patience: Patience) -> Self {
        Self { patience, tries: 1, pause: FIRST, last: None }
    }

    /// Starts counting anew, because the operation made progress.
    pub(super) fn reset(&mut self) {
        *self = Self::new(self.patience);
    }

    /// Returns the error of a try that the deadline ended: what went wrong before it says more
    /// than the lack of an answer.
    pub(super) fn out_of_time(self, operation: String) -> StoreError {
        self.last.unwrap_or_else(|| StoreError::out_of_time(operation))
    }

    /// Waits before the next try, or returns the error when there is to be none.
    pub(super) async fn wait_after(
        &mut self,
        error: StoreError,
        deadline: Deadline,
    ) -> Result<(), StoreError> {
        if self.patience == Patience::Once || !error.fault.is_transient() {
            return Err(error);
        }
        if self.patience == Patience::FewTries && self.tries >= TRIES_IN_A_BACKUP {
            return Err(error);
        }
        let remaining = deadline.remaining();
        if remaining <= FIRST {
            return Err(error);
        }
        let pause = self.next_pause(error.retry_after, remaining);
        tracing::warn!(
            target: crate::LOG,
            attempt = self.tries,
            remaining_ms = remaining.as_millis() as u64,
            error = %crate::text::chain(&error),
            "WARNING: {error}; trying again in {} ms",
            pause.as_millis()
        );
        tokio::time::sleep(pause).await;
        self.last = Some(error);
        self.tries += 1;
        self.pause = (self.pause * 2).min(LONGEST);
        Ok(())
    }

    /// Returns the pause before the next try, by what the store asked for and the time left.
    fn next_pause(&self, asked: Option<Duration>, remaining: Duration) -> Duration {
        let asked = asked.unwrap_or_default().min(self.patience.longest_wait());
        // The last try comes just before the deadline, whatever its turn would be.
        self.pause.max(asked).min(remaining.saturating_sub(FIRST))
    }
}

#[cfg(test)]
mod tests {
    use super::Patience::{FewTries, UntilDeadline};
    use super::*;

    #[test]
    fn what_a_store_asks_for_is_given_within_bounds() {
        let cases = [
            (UntilDeadline, None, 600, 0.2),
            (UntilDeadline, Some(0), 600, 0.2),
            (UntilDeadline, Some(30), 600, 30.0),
            (UntilDeadline, Some(u64::MAX), 600, 60.0),
            (UntilDeadline, Some(u64::MAX), 20, 19.8),
            (FewTries, Some(7), 600, 7.0),
            (FewTries, Some(u64::MAX), 600, 10.0),
            (FewTries, Some(u64::MAX), 3, 2.8),
        ];
        for (patience, asked, remaining, pause) in cases {
            let asked = asked.map(Duration::from_secs);
            let next = Backoff::new(patience).next_pause(asked, Duration::from_secs(remaining));
            let case = format!("{patience:?}, asked {asked:?}, {remaining} s left");
            assert_eq!(next, Duration::from_secs_f64(pause), "{case}");
        }
    }
}
