//! Instances that come later than their schedule says: every due time of one by the same, nothing
//! else of it, and two of them at different times.

use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, Datelike, NaiveDate, Utc};
use simplebackup_actors::jitter::offset_within;
use simplebackup_actors::messages::Trigger;
use simplebackup_actors::schedule::Schedule;
use simplebackup_actors::supervisor::{FinalBackup, Protection};
use simplebackup_actors::verify::VerifyPlan;
use simplebackup_engine::text;
use tokio::time::{Instant, sleep};

use crate::support::process::{Machine, POLITE, Process, eventually, get};
use crate::support::service::{ScriptedApp, Service, assert_stopped, on_paused_time, site};
use crate::support::{START, Site, name};

const HOUR: i64 = 3600;

/// Seven and a half minutes, and a part of a second.
const OFFSET: Duration = Duration::from_millis(450_250);

/// A service whose backups are due an offset after each hour, its drills after each half hour.
fn launch(site: &Site) -> Service {
    Service::launch_with(site, ScriptedApp::obedient(), |protection: &mut Protection| {
        protection.schedule = protection.schedule.clone().delayed_by(OFFSET);
        let half_past: Schedule = "0 30 * * * *".parse().expect("a sound schedule");
        let schedule = Some(half_past.delayed_by(OFFSET));
        protection.verify = VerifyPlan { schedule, timeout: Duration::from_mins(30) };
    })
}

#[test]
fn backups_and_drills_come_an_offset_after_their_schedules() {
    on_paused_time(async {
        let site = site();
        let service = launch(&site);
        service.is_up().await;
        let status = service.wait_until(|status| status.next_tick.is_some()).await;
        // Not an hour and an offset after the start: the due time of ten o'clock is still to come.
        assert_eq!(status.next_tick.expect("some").timestamp_millis(), START * 1000 + 450_250);

        sleep(Duration::from_mins(3 * 60 + 20)).await;
        let status = service.status();
        assert_eq!(site.stored().await, [1, 2, 3].map(|hour| name(START + hour * HOUR + 450)));
        assert_eq!(status.counts[Trigger::Tick.index()].succeeded, 4);
        let next = status.next_tick.expect("one is due").timestamp_millis();
        assert_eq!(next, (START + 4 * HOUR) * 1000 + 450_250);
        let drilled = status.last_verified.expect("12:37:30 has passed").ended_at;
        assert_eq!(drilled.timestamp_millis(), (START + 2 * HOUR + 1800) * 1000 + 450_250);
        assert_eq!(status.ticks_missed, 0);
        service.stop().await;
    });
}

#[test]
fn manual_backups_and_the_final_one_wait_for_no_offset() {
    on_paused_time(async {
        let site = site();
        let service = launch(&site);
        let began = Instant::now();
        let report = service.back_up().await.expect("made");
        assert_eq!(report.key.to_string(), name(START));
        assert_stopped(&service.stop().await, &FinalBackup::Made);
        assert_eq!(site.stored().await, [name(START), name(START + 1)]);
        assert_eq!(began.elapsed(), Duration::ZERO);
    });
}

#[test]
fn delayed_ticks_that_the_machine_slept_over_are_counted() {
    on_paused_time(async {
        let site = site();
        let service = launch(&site);
        service.is_up().await;
        sleep(Duration::from_mins(30)).await;
        // From 10:30 to 15:05: after the due times of 11:07 to 14:07 and before that of 15:07.
        site.clock.jump(4 * HOUR + 35 * 60);
        sleep(Duration::from_mins(1)).await;
        let status = service.status();
        assert_eq!(
            status.counts[Trigger::Tick.index()].succeeded,
            2,
            "10:07, and one for the rest"
        );
        assert_eq!(status.ticks_missed, 3 + 4, "backups and drills");
        let next = status.next_tick.expect("one is due").timestamp_millis();
        assert_eq!(next, (START + 5 * HOUR) * 1000 + 450_250);
        service.stop().await;
    });
}

/// A service of the real binary whose backups and drills are due within a day of New Year, and
/// which says when it waits for what.
fn serve(machine: &Machine) -> Process {
    machine.serve_script_with(POLITE, |command| {
        command.env("SIMPLE_BACKUP_SCHEDULE_JITTER", "24h");
        command.env("SIMPLE_BACKUP_VERIFY_SCHEDULE", "0 0 0 1 1 *");
        command.arg("-v");
    })
}

/// Returns the offset that the instance of this database has to have.
fn offset_of(machine: &Machine) -> Duration {
    let root = machine.path("").canonicalize().expect("there");
    let store = format!("file://{}/app.db.backups/", root.display());
    let host = rustix::system::uname();
    let database: &Path = &machine.database();
    offset_within(Duration::from_hours(24), host.nodename().to_bytes(), database, &store)
}

#[test]
fn a_service_says_its_offset_and_shows_the_delayed_time() {
    let machine = Machine::new();
    machine.create_database(10);
    let offset = offset_of(&machine);
    let line = format!(
        "[CRONJOB] This instance is due {} later than its schedule says (schedule.jitter)",
        text::span(offset)
    );
    for _start in 0..2 {
        let mut process = serve(&machine);
        assert_eq!(process.wait_for_line("This instance is due "), line);
        let address = process.http_address();
        let next_backup = || get(&address, "/health/backup-status").json()["next_backup"].clone();
        eventually("a backup is due", || next_backup().is_string());
        // This year's, if it is still to come, else next year's.
        let new_year = |year| NaiveDate::from_ymd_opt(year, 1, 1)?.and_hms_opt(0, 0, 0);
        let due = |year| new_year(year).expect("a date").and_utc() + offset;
        let year = Utc::now().year();
        let due = if due(year) > Utc::now() { due(year) } else { due(year + 1) };

        let next: DateTime<Utc> = next_backup().as_str().expect("known").parse().expect("a time");
        assert_eq!(next.timestamp(), due.timestamp());
        let metrics = get(&address, "/metrics").body;
        let metric = format!("simple_backup_next_timestamp_seconds {}\n", due.timestamp());
        assert!(metrics.contains(&metric), "{metric} in:\n{metrics}");
        let (code, lines) = process.stop();
        assert_eq!(code, 0);
        let count = |text: &str| lines.iter().filter(|line| line.contains(text)).count();
        assert_eq!(count("This instance is due"), 1, "{}", lines.join("\n"));
        // For the next backup and for the next drill.
        assert_eq!(count(&format!("next_tick_at={due}")), 2, "{}", lines.join("\n"));
    }
}

#[test]
fn without_jitter_nothing_is_said_of_it() {
    let machine = Machine::new();
    machine.create_database(10);
    let mut process = machine.serve_script(POLITE);
    process.wait_for_line("app is up");
    let (_code, lines) = process.stop();
    assert!(!lines.iter().any(|line| line.contains("jitter")), "{}", lines.join("\n"));
}
