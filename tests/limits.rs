//! What the service may take: time at the stop, memory at any size, nothing while it is idle.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, getpriority_process};
use rustix::thread::sched_getaffinity;

use crate::support::db;
use crate::support::process::{Machine, Process, STUBBORN, assert_in_order, eventually, get, run};

/// The app has half a second, the final backup one, and neither is enough. A busy machine can add
/// to the time that a stop takes, so the best of three counts: a defect would add to each.
#[test]
fn i5_the_stop_ends_within_a_second_of_its_deadlines() {
    let allowed = Duration::from_millis(2500);
    let took: Vec<_> = (0..3).map(|_| time_of_a_hopeless_stop()).collect();
    assert!(took.iter().any(|took| *took < allowed), "{took:?}");
}

fn time_of_a_hopeless_stop() -> Duration {
    let hanging = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let machine = Machine::new();
    machine.create_database(10);
    let mut process = machine.serve_script_with(STUBBORN, |command| {
        command
            .env("MINIO_ENDPOINT", format!("http://{}", hanging.local_addr().expect("known")))
            .env("MINIO_BUCKET", "mybucket")
            .env("SIMPLE_BACKUP_SHUTDOWN_APP_TIMEOUT", "500ms")
            .env("SIMPLE_BACKUP_SHUTDOWN_BACKUP_TIMEOUT", "1s");
    });
    process.wait_for_line("grandchild ");
    let signalled = Instant::now();
    process.signal(Signal::TERM);
    let (code, lines, ended) = process.wait_timed();
    assert_eq!(code, 137, "{}", lines.join("\n"));
    assert_in_order(
        &lines,
        &[
            "[SIMPLE-BACKUP] ERROR: Shutdown backup failed: ",
            "[SIMPLE-BACKUP] WARNING: Continuing shutdown without backup",
        ],
    );
    ended.duration_since(signalled)
}

/// What is packed ahead may be anything between nothing and five megabytes: on a busy machine the second
/// thread may come too late, but not each time.
#[test]
fn what_is_packed_before_the_upload_begins_is_sent() {
    if std::thread::available_parallelism().expect("known").get() < 2 {
        return;
    }
    let machine = Machine::new();
    db::create_incompressible(&machine.database(), 8);
    let is_any_sent = || {
        let mut backup = machine.simplebackup();
        let made = run(backup.env("RUST_LOG", "simple_backup=debug").arg("backup"));
        let said = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "{said}");
        let words = " members were packed before the upload began";
        let count = said.lines().find_map(|line| line.split_once(words)?.0.rsplit_once("] "));
        let (_, count) = count.unwrap_or_else(|| panic!("{said}"));
        !count.starts_with("0 of ")
    };
    assert!((0..20).any(|_| is_any_sent()), "nothing was packed ahead");
    let before = db::dump(&machine.database());
    machine.lose_database();
    assert!(machine.run(&["restore"]).status.success());
    assert!(db::dump(&machine.database()) == before, "it came back otherwise");
}

#[test]
fn i10_peak_memory_does_not_grow_with_the_database() {
    let peak_of = |mebibytes: usize| {
        let machine = Machine::new();
        db::create_incompressible(&machine.database(), mebibytes);
        let backup = machine.simplebackup().arg("backup").spawn().expect("started");
        let backup = peak_kib(backup);
        machine.lose_database();
        let restore = machine.simplebackup().arg("restore").spawn().expect("started");
        (backup, peak_kib(restore))
    };
    let (small, large) = (peak_of(4), peak_of(64));
    let allowed = 8 * 1024;
    assert!(large.0 < small.0 + allowed, "backup: {} KiB, then {} KiB", small.0, large.0);
    assert!(large.1 < small.1 + allowed, "restore: {} KiB, then {} KiB", small.1, large.1);
}

/// One chunk of age's more, and no more.
#[test]
fn i10_encryption_keeps_the_peak_flat() {
    use age::secrecy::ExposeSecret;

    let peak_of = |mebibytes: usize| {
        let machine = Machine::new();
        let identity = age::x25519::Identity::generate();
        let file = machine.path("key.txt");
        fs::write(&file, identity.to_string().expose_secret()).expect("written");
        db::create_incompressible(&machine.database(), mebibytes);
        let run = |word| {
            let mut command = machine.simplebackup();
            command
                .env("SIMPLE_BACKUP_ENCRYPTION_RECIPIENTS", identity.to_public().to_string())
                .env("SIMPLE_BACKUP_ENCRYPTION_IDENTITY_FILE", &file)
                .arg(word);
            peak_kib(command.spawn().expect("started"))
        };
        let backup = run("backup");
        assert!(crate::encryption::is_encrypted(&machine.stored()[0]));
        machine.lose_database();
        (backup, run("restore"))
    };
    let (small, large) = (peak_of(4), peak_of(64));
    let allowed = 8 * 1024;
    assert!(large.0 < small.0 + allowed, "backup: {} KiB, then {} KiB", small.0, large.0);
    assert!(large.1 < small.1 + allowed, "restore: {} KiB, then {} KiB", small.1, large.1);
}

/// Waits for a process and returns the most memory that it was seen to hold at once, in KiB.
fn peak_kib(mut process: std::process::Child) -> u64 {
    let mut peak = 0;
    loop {
        let status = fs::read_to_string(format!("/proc/{}/status", process.id()));
        let line =
            status.as_deref().unwrap_or("").lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let seen = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
        peak = seen.unwrap_or(peak);
        if let Some(status) = process.try_wait().expect("waited") {
            assert!(status.success() && peak > 0, "{status} at {peak} KiB");
            return peak;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Starts a service whose backups take a moment, one each second.
fn serve_busy(machine: &Machine) -> Process {
    db::create_incompressible(&machine.database(), 48);
    machine.serve_script_with("sleep 1000 & wait", |command| {
        command
            .env("SIMPLE_BACKUP_BACKUP_SCHEDULE", "* * * * * *")
            .env("SIMPLE_BACKUP_SHUTDOWN_APP_TIMEOUT", "100ms");
    })
}

/// Beside the app a backup comes after it; once the app is gone, nothing does.
#[test]
fn a_backup_beside_the_app_has_a_low_priority_and_the_final_one_has_not() {
    let machine = Machine::new();
    let mut process = serve_busy(&machine);
    let own = most_nice(process.pid()).expect("alive");
    process.wait_for_line("Starting hourly backup...");
    eventually("a thread at a low priority", || most_nice(process.pid()) >= Some(own + 10));

    process.wait_for_line("Backup completed in ");
    process.signal(Signal::TERM);
    process.wait_for_line("Starting shutdown backup...");
    let mut seen = Vec::new();
    while let Some(niceness) = most_nice(process.pid()) {
        seen.push(niceness);
    }
    let (_, lines) = process.wait();
    assert_in_order(&lines, &["Starting shutdown backup...", "Backup completed in "]);
    // The threads that pack give way to the one that checks.
    assert!(seen.iter().all(|niceness| *niceness <= own + 5), "{seen:?}");
    assert!(seen.contains(&(own + 5)), "it was not looked at in time");
}

/// An app that wakes up on a processor in use waits for a slice or a system call to end, whatever the
/// niceness of who has it.
#[test]
fn a_backup_beside_the_app_leaves_one_processor_free_and_the_final_one_does_not() {
    let machine = Machine::new();
    let mut process = serve_busy(&machine);
    let all = sched_getaffinity(None).expect("told").count();
    let beside = (all - 1).max(1);
    let pid = process.pid();
    process.wait_for_line("Starting hourly backup...");
    // The thread that sends, and one that packs or checks.
    let busy = |threads: &HashMap<u32, (i32, u32)>, niceness: i32, allowed: u32| {
        let at_work = |(at, count): &(i32, u32)| *at >= niceness && *count == allowed;
        threads.get(&pid).is_some_and(|main| main.1 == allowed) && threads.values().any(at_work)
    };
    let own = threads(pid)[&pid].0;
    eventually("all threads at work off one", || busy(&threads(pid), own + 10, beside));
    process.signal(Signal::TERM);
    process.wait_for_line("Starting shutdown backup...");
    eventually("all for the final backup", || busy(&threads(pid), own + 5, all));
    assert_eq!(process.wait().0, 128 + Signal::TERM.as_raw());
}

/// Returns the niceness of each thread of a process, and how many processors it may use.
fn threads(pid: u32) -> HashMap<u32, (i32, u32)> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("alive").flatten();
    let look = |thread: fs::DirEntry| {
        let number: u32 = thread.file_name().to_str()?.parse().ok()?;
        let id = Pid::from_raw(number.try_into().ok()?);
        Some((number, (getpriority_process(id).ok()?, sched_getaffinity(id).ok()?.count())))
    };
    threads.filter_map(look).collect()
}

/// Returns the niceness of the thread that has the most; nothing once the process is gone.
fn most_nice(pid: u32) -> Option<i64> {
    let niceness = |stat: String| -> Option<i64> {
        // The name may hold blanks; the niceness is the 17th value behind it (`man 5 proc`).
        let (_, values) = stat.rsplit_once(')')?;
        let mut values = values.split_whitespace();
        // What has ended waits for us to take notice.
        values.next().filter(|state| *state != "Z")?;
        values.nth(15)?.parse().ok()
    };
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let stats = threads.flatten().map(|thread| fs::read_to_string(thread.path().join("stat")));
    stats.flatten().filter_map(niceness).max()
}

/// Five seconds in which a thread of the start ends are not the best of three.
#[test]
fn nothing_wakes_an_idle_service_before_or_after_a_request() {
    let machine = Machine::new();
    machine.create_database(10);
    let mut process = machine.serve_script("exec sleep 1000");
    let address = process.http_address();
    eventually("the app runs", || get(&address, "/health/ready").status == 200);
    let is_idle = || (0..3).map(|_| wake_ups(process.pid())).find(|wake_ups| *wake_ups <= 1);
    assert!(is_idle().is_some(), "after the start");
    assert_eq!(get(&address, "/status").status, 200);
    assert!(is_idle().is_some(), "after a request");
    let mut listener = TcpStream::connect(&address).expect("connected");
    write!(listener, "GET /events HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    listener.read_exact(&mut [0; 512]).expect("a head and an event");
    drop(listener);
    assert!(is_idle().is_some(), "after a listener");
}

/// Returns how often threads of a process went to sleep within five seconds: as often as they woke.
fn wake_ups(pid: u32) -> u64 {
    let before = sleeps(pid);
    std::thread::sleep(Duration::from_secs(5));
    let after = sleeps(pid);
    let ended = before.keys().filter(|thread| !after.contains_key(*thread)).count();
    let since = |(thread, sleeps): (&OsString, &u64)| sleeps - before.get(thread).unwrap_or(&0);
    ended as u64 + after.iter().map(since).sum::<u64>()
}

/// Returns how often each thread of a process has gone to sleep.
fn sleeps(pid: u32) -> HashMap<OsString, u64> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("alive").flatten();
    let sleeps = |thread: fs::DirEntry| {
        let status = fs::read_to_string(thread.path().join("status")).ok()?;
        let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        Some((thread.file_name(), count?.trim().parse().expect("a number")))
    };
    threads.filter_map(sleeps).collect()
}
