//! What happens to a running service: people, writes, clocks, faults, defects.

use std::time::Duration;

use simplebackup_actors::messages::{Backup, BackupRequestError, ResumePruning, Trigger};
use simplebackup_engine::deadline::Deadline;
use simplebackup_engine::store::Fault;
use simplebackup_engine::work_dir::WorkFolder;
use tokio::time::{Instant, sleep};

use super::life::{GRACE, Life, MOMENT};
use crate::support::service::RUN_TIMEOUT;
use crate::support::store::{Call, Trouble};

/// The scheduler looks at the wall clock within this time.
const NOTICED: Duration = Duration::from_secs(61);

const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

/// A trouble for some calls of a kind.
type Plan = (Call, Trouble);

impl Life<'_> {
    /// Has one thing happen.
    pub(super) async fn event(&mut self) {
        match self.world.draw.between(0, 26) {
            0..8 => self.world.database.borrow_mut().write(),
            8..11 => self.a_person_asks().await,
            11..15 => self.the_store_fails().await,
            15..18 => self.the_machine_sleeps().await,
            18 => self.the_clock_is_set().await,
            19 => self.a_job_panics().await,
            20 => self.the_actor_dies().await,
            21 => self.the_scheduler_dies().await,
            22 => self.the_database_is_emptied().await,
            23 => self.another_process_backs_up().await,
            _ => self.a_person_confirms().await,
        }
        sleep(MOMENT).await;
    }

    /// Asks for a backup, as a person over HTTP does, and waits for it only if all is well.
    async fn a_person_asks(&mut self) {
        self.world.witness.note("a person asks for a backup");
        let Some(actor) = self.backup_actor() else { return };
        let message = Backup { trigger: Trigger::Manual, deadline: Deadline::after(RUN_TIMEOUT) };
        let answer = actor.send(message);
        if self.is_well() {
            let answer = answer.await.expect("the actor lives");
            // A test beside this one may fork: until its child runs another program, that child
            // holds the lock of a run that has just ended.
            let is_lock_of_a_child =
                matches!(answer, Err(BackupRequestError::InProgressElsewhere { .. }));
            assert!(answer.is_ok() || is_lock_of_a_child, "nothing was told to fail: {answer:?}");
        } else {
            actix::spawn(async move { answer.await.map(drop).unwrap_or_default() });
        }
    }

    /// A kind of call fails for a while, or for the rest of this life and of the next.
    async fn the_store_fails(&mut self) {
        let (call, trouble) = self.draw_trouble();
        self.world.witness.note(&format!("from now on {call:?} meets {trouble:?}"));
        let calls = self.world.draw.of(&[1, 1, 3, usize::MAX]);
        self.world.faults.script().plan(call, ..calls, trouble);
        let span = self.world.draw.span(MINUTE, 12 * HOUR);
        self.troubled_until = Instant::now() + Duration::from_hours(10_000);
        if self.world.draw.one_in(2) {
            self.a_person_asks().await;
        }
        self.pass(span).await;
        if self.world.draw.one_in(3) {
            return;
        }
        self.heal();
    }

    pub(super) fn heal(&mut self) {
        self.world.witness.note("the store is well");
        self.world.faults.script().heal();
        // What hangs does not know.
        self.troubled_until = Instant::now() + RUN_TIMEOUT + GRACE;
    }

    fn draw_trouble(&mut self) -> Plan {
        let draw = &mut self.world.draw;
        let call = draw.of(&[Call::List, Call::Get, Call::Put, Call::Put, Call::Delete]);
        let slow = Trouble::Delay(draw.span(GRACE, 20 * MINUTE));
        let trouble = draw.of(&[
            Trouble::Fail(Fault::Unreachable),
            Trouble::Fail(Fault::Busy),
            Trouble::Fail(Fault::AccessDenied),
            Trouble::LoseAnswer,
            Trouble::Hang,
            slow,
        ]);
        (call, trouble)
    }

    /// Heals what was left of the life before, and may trouble the restore of a new machine.
    ///
    /// A download that waits is not among the troubles: its unpacking thread waits too, and paused
    /// time stands still for a thread. `tests/s3/failures.rs` has those.
    pub(super) fn maybe_trouble_the_restore(&mut self) {
        self.world.faults.script().heal();
        if self.world.database.borrow().path().exists() || !self.world.draw.one_in(3) {
            return;
        }
        let place = self.world.draw.between(0, 1200) as usize;
        let (call, trouble) = match self.world.draw.between(0, 4) {
            0 => (Call::Get, Trouble::Corrupt(place)),
            1 => (Call::Get, Trouble::Fail(Fault::AccessDenied)),
            _ => (Call::List, self.draw_trouble().1),
        };
        self.world.witness.note(&format!("the restore meets {call:?} {trouble:?}"));
        let calls = self.world.draw.of(&[1, 3]);
        self.world.faults.script().plan(call, ..calls, trouble);
        self.troubled_until = Instant::now() + Duration::from_hours(10_000);
    }

    /// The wall clock goes on, tokio's does not, and nobody says a word.
    async fn the_machine_sleeps(&mut self) {
        let time = self.world.draw.span(MINUTE, 120 * HOUR);
        self.world.witness.note(&format!("the machine sleeps for {time:?}"));
        self.ticks.look(self.world.clock.now_ms());
        self.world.pass_away(time);
        self.notice().await;
    }

    /// An administrator sets the clock.
    async fn the_clock_is_set(&mut self) {
        self.ticks.look(self.world.clock.now_ms());
        let by = self.world.draw.span(2 * MINUTE, 72 * HOUR).as_millis() as i64;
        let by = if self.world.draw.one_in(2) { by } else { -by };
        self.world.witness.note(&format!("the clock is set by {by} ms"));
        self.world.clock.jump(by);
        if by < 0 {
            self.ticks.went_back(self.world.clock.now_ms());
        }
        self.notice().await;
    }

    /// Gives the scheduler the time to notice.
    async fn notice(&mut self) {
        self.pass_unchecked(NOTICED).await;
    }

    async fn pass_unchecked(&mut self, time: Duration) {
        sleep(time).await;
        self.world.check();
    }

    /// The next backup meets a defect in the engine.
    async fn a_job_panics(&mut self) {
        self.world.witness.note("a job is going to panic");
        self.job.arm();
        self.defect_shows().await;
        self.job.disarm();
    }

    /// The backup actor meets a defect in its own few lines.
    async fn the_actor_dies(&mut self) {
        self.world.witness.note("the backup actor is going to die");
        self.actor.arm();
        self.defect_shows().await;
        self.actor.disarm();
    }

    /// Somebody asks for a backup, or a tick does sooner or later.
    async fn defect_shows(&mut self) {
        let is_already = !self.is_well();
        let before = self.troubled_until;
        self.troubled_until = Instant::now() + Duration::from_hours(10_000);
        if self.world.draw.one_in(2) {
            self.a_person_asks().await;
            sleep(MOMENT).await;
        } else {
            let longest = Duration::from_millis(self.period.1.unsigned_abs());
            let span = self.world.draw.span(MOMENT, longest);
            self.pass(span).await;
        }
        self.troubled_until = if is_already { before } else { Instant::now() };
    }

    /// The scheduler dies when it looks at the clock, which is within a minute.
    async fn the_scheduler_dies(&mut self) {
        self.world.witness.note("the scheduler is going to die");
        let now = self.world.clock.now_ms();
        self.ticks.look(now);
        self.ticks.may_miss(now, now + NOTICED.as_millis() as i64);
        self.scheduler.arm();
        self.notice().await;
        self.scheduler.disarm();
    }

    /// Another process holds the lock of a run: for that time no upload of ours may begin.
    async fn another_process_backs_up(&mut self) {
        let work = WorkFolder::beside(self.world.database.borrow().path());
        let Ok(lock) = work.lock_run() else { return };
        self.world.witness.note("another process backs up");
        let before = self.troubled_until;
        self.troubled_until = Instant::now() + Duration::from_hours(10_000);
        let upload = self.world.witness.upload();
        if self.world.draw.one_in(2) {
            self.a_person_asks().await;
        }
        let span = self.world.draw.span(MINUTE, 24 * HOUR);
        self.pass(span).await;
        drop((upload, lock));
        self.troubled_until = before.max(Instant::now());
    }

    /// A mistake: all tables are dropped. Sooner or later somebody puts them back, or not; and the
    /// backup before may not be there to compare with.
    async fn the_database_is_emptied(&mut self) {
        self.world.database.borrow_mut().empty();
        if self.world.draw.one_in(3) {
            self.world.witness.note("nothing can be read");
            let denied = Trouble::Fail(Fault::AccessDenied);
            self.world.faults.script().plan(Call::Get, .., denied);
            self.troubled_until = Instant::now() + Duration::from_hours(10_000);
            self.a_person_asks().await;
            self.pass(MINUTE).await;
            self.heal();
        }
        if self.world.draw.one_in(4) {
            let span = self.world.draw.span(MINUTE, 12 * HOUR);
            self.pass(span).await;
            self.world.database.borrow_mut().write();
        }
    }

    /// A person looks at what seemed a loss and says that it is right; not while a backup runs,
    /// which would be a word about a state that nobody has seen.
    async fn a_person_confirms(&mut self) {
        let is_asked = self.world.witness.books().has_mark;
        if !is_asked || self.board.read().current.is_some() || !self.is_well() {
            return self.world.database.borrow_mut().write();
        }
        self.world.witness.note("a person confirms");
        let Some(actor) = self.backup_actor() else { return };
        let answer = actor.send(ResumePruning { deadline: Deadline::after(MINUTE) }).await;
        answer.expect("the actor lives").expect("nothing was told to fail");
        let mut books = self.world.witness.books();
        assert!(!books.has_mark, "the mark is still stored");
        books.is_loss_unconfirmed = false;
    }
}
