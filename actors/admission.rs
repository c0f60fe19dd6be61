//! Which request may start a backup, and which is refused, queued or joined. Pure and total: a
//! table, tested without a runtime.

/// What the backup actor is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Admission {
    /// Nothing runs.
    #[default]
    Idle,
    /// A tick's or a person's backup runs.
    Running,
    /// It still runs, and the final backup waits behind it.
    FinalQueued,
    /// The final backup runs.
    Closing,
    /// The final backup is over; there will be no other.
    Closed,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// The schedule or a person.
    Ordinary,
    /// The stop.
    Final,
}

/// The answer to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Start a backup now.
    Run,
    /// One runs already.
    RefuseInProgress,
    /// The service is stopping.
    RefuseShuttingDown,
    /// Start when the running one is over.
    Queue,
    /// Wait for the final backup that is queued or runs.
    Join,
}

/// What follows the end of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Wait for the next request.
    Rest,
    /// Run the queued final backup.
    RunFinal,
    /// Nothing any more.
    Close,
}

impl Admission {
    /// Decides on a request and enters the state that follows.
    pub fn request(&mut self, request: Request) -> Decision {
        use Admission::{Closed, Closing, FinalQueued, Idle, Running};

        let (decision, state) = match (*self, request) {
            (Idle, Request::Ordinary) => (Decision::Run, Running),
            (Running, Request::Ordinary) => (Decision::RefuseInProgress, Running),
            (state, Request::Ordinary) => (Decision::RefuseShuttingDown, state),
            (Idle, Request::Final) => (Decision::Run, Closing),
            (Running, Request::Final) => (Decision::Queue, FinalQueued),
            (FinalQueued, Request::Final) => (Decision::Join, FinalQueued),
            (Closing, Request::Final) => (Decision::Join, Closing),
            (Closed, Request::Final) => (Decision::RefuseShuttingDown, Closed),
        };
        *self = state;
        decision
    }

    /// Says that the running backup is over, and enters the state that follows.
    pub fn finished(&mut self) -> Next {
        let (next, state) = match *self {
            Self::Idle | Self::Running => (Next::Rest, Self::Idle),
            Self::FinalQueued => (Next::RunFinal, Self::Closing),
            Self::Closing | Self::Closed => (Next::Close, Self::Closed),
        };
        *self = state;
        next
    }
}

#[cfg(test)]
mod tests {
    use super::Admission::{Closed, Closing, FinalQueued, Idle, Running};
    use super::Decision::{Join, Queue, RefuseInProgress, RefuseShuttingDown, Run};
    use super::*;

    #[test]
    fn every_state_answers_every_request() {
        let table = [
            (Idle, Request::Ordinary, Run, Running),
            (Idle, Request::Final, Run, Closing),
            (Running, Request::Ordinary, RefuseInProgress, Running),
            (Running, Request::Final, Queue, FinalQueued),
            (FinalQueued, Request::Ordinary, RefuseShuttingDown, FinalQueued),
            (FinalQueued, Request::Final, Join, FinalQueued),
            (Closing, Request::Ordinary, RefuseShuttingDown, Closing),
            (Closing, Request::Final, Join, Closing),
            (Closed, Request::Ordinary, RefuseShuttingDown, Closed),
            (Closed, Request::Final, RefuseShuttingDown, Closed),
        ];
        for (before, request, decision, after) in table {
            let mut state = before;
            assert_eq!(state.request(request), decision, "{before:?} {request:?}");
            assert_eq!(state, after, "{before:?} {request:?}");
        }
    }

    #[test]
    fn the_end_of_a_backup_leads_on() {
        let table = [
            (Running, Next::Rest, Idle),
            (FinalQueued, Next::RunFinal, Closing),
            (Closing, Next::Close, Closed),
        ];
        for (before, next, after) in table {
            let mut state = before;
            assert_eq!(state.finished(), next, "{before:?}");
            assert_eq!(state, after, "{before:?}");
        }
    }
}
