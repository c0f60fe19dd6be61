//! The wait for the final backup of whoever has the lease.

use std::time::Duration;

use super::Tenure;
use crate::deadline::{Deadline, OutOfTime};
use crate::{LOG, text};

/// The pause between two looks at a lease that someone else holds.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The wait for a lease that somebody else holds.
pub(super) struct Waiting {
    wait: Duration,
    until: Deadline,
    is_said: bool,
}

impl Waiting {
    pub(super) fn of(wait: Duration) -> Self {
        Self { wait, until: Deadline::after(wait), is_said: false }
    }

    /// Waits a moment and returns true, or returns false once the time is over.
    pub(super) async fn goes_on(
        &mut self,
        tenure: &Tenure,
        deadline: Deadline,
    ) -> Result<bool, OutOfTime> {
        let left = self.until.remaining();
        if left.is_zero() {
            return Ok(false);
        }
        if !self.is_said {
            tracing::info!(
                target: LOG,
                "Lease held by instance {} since {}, waiting up to {} s for its final backup",
                tenure.holder,
                text::moment(tenure.taken_at),
                self.wait.as_secs()
            );
            self.is_said = true;
        }
        deadline.limit(tokio::time::sleep(LOOK_EVERY.min(left))).await?;
        Ok(true)
    }
}
