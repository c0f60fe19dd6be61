//! Many lives of a service in front of an app that writes, each ended by SIGKILL at a moment or a
//! step drawn by lot: every restore brings back a state that the [`Ledger`] knows, no older than
//! the last backup that was reported as made.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::env;
use std::fmt::Display;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread::{scope, sleep};
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};
use rustix::process::Signal;
use simplebackup_engine::fail_point;

use super::ledger::{Ledger, write};
use super::{KEEP, backups, steps};
use crate::support::process::{Machine, Process};
use crate::support::{assert_no_leftovers, db, gunzip, leftovers};

/// Kills of the service, unless the environment wants more.
const KILLS: usize = 200;

/// Kills on one machine, so that its database stays small.
const KILLS_OF_A_MACHINE: usize = 50;

/// Machines at the same time: most of the time is spent in waiting.
const MACHINES_AT_ONCE: usize = 4;

/// How long a life that is to end at a step may go on: a tick comes every second.
const LIFE: Duration = Duration::from_millis(1500);

/// The app: the writing itself is done by a thread of this process.
const APP: &str = "trap 'exit 0' TERM; echo app is up; while :; do sleep 0.05; done";

/// How a life ends.
#[derive(Debug, Clone, Copy)]
enum Death {
    /// So long after the start of the process: before, during or after the restore.
    Starting(Duration),
    /// So long after the start of the app.
    Running(Duration),
    /// So long after SIGTERM, unless it is over by then.
    Stopping(Duration),
    /// At a step, if it comes to that.
    At(&'static str),
}

/// What went on, over all machines.
#[derive(Debug, Default)]
struct Tally {
    kills: usize,
    at_steps: BTreeMap<&'static str, usize>,
    kills_of_commands: usize,
    orderly_stops: usize,
    restores: usize,
    reported: usize,
}

#[test]
fn i2_after_any_kill_a_restore_brings_back_what_was_reported_as_backed_up() {
    let clock = SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_nanos() as u64;
    let seed = from_environment("SIMPLE_BACKUP_TEST_SEED", clock);
    let kills = from_environment("SIMPLE_BACKUP_TEST_KILLS", KILLS);
    println!("again with: SIMPLE_BACKUP_TEST_SEED={seed} SIMPLE_BACKUP_TEST_KILLS={kills}");
    let (next, tally) = (AtomicUsize::new(0), Mutex::new(Tally::default()));
    let machines = kills.div_ceil(KILLS_OF_A_MACHINE);
    scope(|scope| {
        for _ in 0..MACHINES_AT_ONCE {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Relaxed);
                    if number >= machines {
                        break;
                    }
                    let left = kills - number * KILLS_OF_A_MACHINE;
                    Round::new(seed, number, &tally).play(left.min(KILLS_OF_A_MACHINE));
                }
            });
        }
    });
    let tally = tally.into_inner().expect("sound");
    println!("{tally:#?}");
    assert!(tally.kills >= kills, "{tally:?}");
    // Or the loop has shown nothing. A few kills may all fall on the same.
    if kills >= KILLS {
        assert!(tally.restores > kills / 8 && tally.reported > kills / 8, "{tally:?}");
        assert!(tally.at_steps.len() > fail_point::ALL.len() / 4, "{tally:?}");
    }
}

fn from_environment<T: FromStr + Display>(name: &str, default: T) -> T {
    let Ok(text) = env::var(name) else { return default };
    text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}, but has to be like {default}"))
}

/// One machine, whose service is killed again and again.
struct Round<'a> {
    machine: Machine,
    ledger: Mutex<Ledger>,
    lot: Lot,
    tally: &'a Mutex<Tally>,
    name: String,
    kills: usize,
    is_lost: bool,
}

impl<'a> Round<'a> {
    fn new(seed: u64, number: usize, tally: &'a Mutex<Tally>) -> Self {
        let machine = Machine::new();
        let journal_mode = db::JOURNAL_MODES[number % db::JOURNAL_MODES.len()];
        let ledger = Mutex::new(Ledger::start(seed, &machine.database(), journal_mode));
        let lot = Lot(Cell::new(seed ^ (number as u64 + 1) << 32 | 1));
        let name = format!("seed {seed}, machine {number} ({journal_mode})");
        Self { machine, ledger, lot, tally, name, kills: 0, is_lost: false }
    }

    fn play(mut self, kills: usize) {
        // Without a backup, the first loss would be the last.
        self.back_up(None);
        while self.kills < kills {
            let death = self.draw_death();
            println!("{}, kill {}: {death:?}", self.name, self.kills + 1);
            self.live(death);
            self.look_after_death();
        }
        self.live_in_peace();
    }

    fn simplebackup(&self) -> Command {
        let mut command = self.machine.simplebackup();
        command.env("SIMPLE_BACKUP_BACKUP_SCHEDULE", "* * * * * *");
        command.env("SIMPLE_BACKUP_BACKUP_KEEP", KEEP.to_string());
        command
    }

    fn serve(&self, step: Option<&str>) -> Process {
        let mut command = self.simplebackup();
        command.envs(step.map(|step| ("FAIL_POINT", step)));
        let words = ["run", "--simple-backup", "--log-format", "json", "--", "/bin/sh", "-c", APP];
        Process::start(command.args(words))
    }

    fn draw_death(&self) -> Death {
        match self.lot.below(4) {
            0 => Death::Starting(self.lot.moment()),
            1 => Death::Running(self.lot.moment()),
            2 => Death::Stopping(self.lot.moment()),
            _ => Death::At(self.draw_step(fail_point::ALL.into_iter())),
        }
    }

    /// Draws a step that a small database comes to.
    fn draw_step(&self, of: impl Iterator<Item = &'static str>) -> &'static str {
        let steps: Vec<_> = of.filter(|step| !step.contains("part")).collect();
        steps[self.lot.below(steps.len() as u64) as usize]
    }

    /// One life of the service, with the app that writes beside it.
    fn live(&mut self, death: Death) {
        let step = if let Death::At(step) = death { Some(step) } else { None };
        let mut process = self.serve(step);
        let mut came_to_step = false;
        if let Death::Starting(delay) = death {
            sleep(delay);
        } else if process.says("app is up") {
            self.look_at_start(&process);
            let is_over = AtomicBool::new(false);
            scope(|scope| {
                scope.spawn(|| write(&self.machine.database(), &self.ledger, &is_over));
                came_to_step = self.let_work(&mut process, death);
                process.kill();
                is_over.store(true, Relaxed);
            });
        } else {
            came_to_step = process.ends_within(LIFE);
        }
        process.kill();
        let (status, lines, _ended) = process.wait_for_status();
        // First: what did not come back at the start of this life is in no report of it.
        if self.machine.database().exists() {
            self.look_at_database();
        }
        let reported = self.note_reports(&lines);
        let mut tally = self.tally.lock().expect("sound");
        tally.reported += reported;
        if status.signal() == Some(9) {
            self.kills += 1;
            tally.kills += 1;
            if let Some(step) = step.filter(|_| came_to_step) {
                *tally.at_steps.entry(step).or_default() += 1;
            }
        } else {
            assert_eq!(status.code(), Some(0), "{}:\n{}", self.name, lines.join("\n"));
            tally.orderly_stops += 1;
        }
    }

    /// What goes on between the start of the app and its death. Returns whether it ended by itself.
    fn let_work(&self, process: &mut Process, death: Death) -> bool {
        for _ in 0..self.lot.below(3) {
            sleep(self.lot.moment());
            self.back_up(Some(self.lot.below(3)));
        }
        match death {
            Death::Starting(delay) | Death::Running(delay) => process.ends_within(delay),
            Death::Stopping(delay) => {
                process.signal(Signal::TERM);
                process.ends_within(delay)
            }
            Death::At(step) => {
                // A step of a backup is reached by a tick, or by the final backup.
                let is_of_stop = step.starts_with("stop.") || self.lot.below(2) == 0;
                if is_of_stop && !process.ends_within(Duration::ZERO) {
                    process.signal(Signal::TERM);
                }
                process.ends_within(LIFE)
            }
        }
    }

    /// Runs the command `backup`: to its end, or killed at some moment or step.
    fn back_up(&self, end: Option<u64>) {
        let mut command = self.simplebackup();
        command.arg("backup").stdout(Stdio::null()).stderr(Stdio::piped());
        if end == Some(0) {
            command.env("FAIL_POINT", self.draw_step(steps("backup")));
        }
        let began_at = Utc::now();
        let mut child = command.spawn().expect("started");
        if end == Some(1) {
            sleep(self.lot.moment());
            child.kill().expect("not waited for yet");
        }
        let output = child.wait_with_output().expect("waited");
        let said = String::from_utf8_lossy(&output.stderr);
        match (output.status.code(), output.status.signal()) {
            (Some(0), _) => {
                self.ledger.lock().expect("sound").promise(began_at);
                self.tally.lock().expect("sound").reported += 1;
            }
            (None, Some(9)) => self.tally.lock().expect("sound").kills_of_commands += 1,
            _ if said.contains("backup already in progress") => {}
            _ => panic!("{}: {}, {said}", self.name, output.status),
        }
    }

    /// The app is up: the database is there, and no dead job's folder.
    fn look_at_start(&mut self, process: &Process) {
        let ours = format!("-{}-", process.id());
        let mut left = leftovers(&self.machine.database());
        left.retain(|name| !name.contains(&ours));
        assert!(left.is_empty(), "{}: not swept: {left:?}", self.name);
        self.look_at_database();
    }

    /// Compares the database with the ledger: restored, or never touched.
    fn look_at_database(&mut self) {
        let mut ledger = self.ledger.lock().expect("sound");
        if self.is_lost {
            ledger.go_on_from(&self.machine.database());
            self.tally.lock().expect("sound").restores += 1;
        } else {
            ledger.assert_all_is_in(&self.machine.database());
        }
        self.is_lost = false;
    }

    /// Takes the service at its word: these backups were made.
    fn note_reports(&self, lines: &[String]) -> usize {
        let mut reported = 0;
        let mut began_at = None;
        for line in lines.iter().filter(|line| line.starts_with('{')) {
            // The last line may have been cut by the kill.
            let Ok(event) = serde_json::from_str::<serde_json::Value>(line) else { continue };
            let message = event["message"].as_str().expect("a sentence");
            if message.starts_with("Starting ") && message.ends_with(" backup...") {
                let time = event["timestamp"].as_str().expect("a time");
                began_at = Some(time.parse::<DateTime<Utc>>().expect("RFC 3339"));
            } else if message.starts_with("Backup completed in ") {
                let began_at = began_at.take().expect("begun before");
                self.ledger.lock().expect("sound").promise(began_at);
                reported += 1;
            }
        }
        reported
    }

    /// Nothing that is left may be half of anything. Then the machine may lose its database.
    fn look_after_death(&mut self) {
        for name in backups(&self.machine) {
            let archive = self.machine.path("app.db.backups").join(&name);
            let unpacked = self.machine.path("unpacked.db");
            fs::write(&unpacked, gunzip(&fs::read(archive).expect("read"))).expect("written");
            assert_eq!(db::pragma(&unpacked, "integrity_check"), "ok", "{}: {name}", self.name);
        }
        if self.lot.below(4) == 0 {
            return;
        }
        if self.lot.below(2) == 0 {
            self.machine.lose_database();
        } else {
            // What belongs to it stays behind, to be replayed into the restored one.
            let _may_be_lost_already = fs::remove_file(self.machine.database());
        }
        self.is_lost = true;
    }

    /// The last life: nobody dies.
    fn live_in_peace(mut self) {
        let mut process = self.serve(None);
        process.wait_for_line("app is up");
        self.look_at_start(&process);
        let (code, lines) = process.stop();
        assert_eq!(code, 0, "{}:\n{}", self.name, lines.join("\n"));
        assert_no_leftovers(&self.machine.database());
        assert_eq!(
            self.machine.stored(),
            backups(&self.machine),
            "{}: left in the store",
            self.name
        );
        assert_eq!(backups(&self.machine).len(), KEEP, "{}", self.name);
        self.look_at_database();
    }
}

/// Numbers by lot, the same for the same seed (xorshift64).
struct Lot(Cell<u64>);

impl Lot {
    fn below(&self, end: u64) -> u64 {
        let mut state = self.0.get();
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        self.0.set(state);
        (state >> 16) % end
    }

    /// A time up to an eighth of a second, mostly short: that of a start or of a backup, on
    /// machines of any speed.
    fn moment(&self) -> Duration {
        let magnitude = 4 + self.below(14);
        Duration::from_micros(self.below(1 << magnitude))
    }
}
