//! Rolling deploys with real processes on a real S3 protocol: every order of events.

use crate::support::process::{Machine, POLITE, Process, get, run};
use crate::support::s3::{S3Server, configure};
use crate::support::{db, files_in};

/// Starts an instance with its own disk; `wait` is how long it waits for the one before.
fn instance(machine: &Machine, server: &S3Server, wait: &str) -> Process {
    machine.serve_script_with(POLITE, |command| {
        configure(command, server);
        command.env("SIMPLE_BACKUP_LEASE_ENABLED", "true").env("SIMPLE_BACKUP_LEASE_WAIT", wait);
    })
}

/// Returns how many backups lie beside the line.
fn forked(server: &S3Server) -> usize {
    let forks = server.folder().join("forks");
    files_in(&forks).iter().map(|instance| files_in(&forks.join(instance)).len()).sum()
}

/// Runs a story beside a server, on a thread that may wait.
async fn with_server(story: impl FnOnce(&S3Server) + Send + 'static) {
    let server = S3Server::start().await;
    tokio::task::spawn_blocking(move || story(&server)).await.expect("the story ends well");
}

/// The order of a good deploy: the new one starts first, the old one stops, the new one goes on.
#[tokio::test]
async fn the_new_instance_takes_over_after_the_final_backup_of_the_old_one() {
    with_server(|server| {
        let (blue, green) = (Machine::new(), Machine::new());
        blue.create_database(10);
        let mut old = instance(&blue, server, "60s");
        old.wait_for_line("app is up");
        let mut new = instance(&green, server, "60s");
        new.wait_for_line("waiting up to 60 s for its final backup");
        let address = new.http_address();
        assert_eq!(get(&address, "/health").status, 200, "it lives while it waits");
        assert_eq!(get(&address, "/health/ready").status, 503);
        db::add_row(&blue.database(), "the last word");
        let (code, lines) = old.stop();
        assert_eq!(code, 0, "{}", lines.join("\n"));
        new.wait_for_line("app is up");
        assert_eq!(db::dump(&green.database()), db::dump(&blue.database()));
        assert_eq!((new.stop().0, forked(server)), (0, 0));
    })
    .await;
}

/// The old one hangs on: the new one takes over, and both keep what they have.
#[tokio::test]
async fn an_old_instance_that_stays_is_fenced_and_loses_nothing() {
    with_server(|server| {
        let (blue, green) = (Machine::new(), Machine::new());
        blue.create_database(10);
        let mut old = instance(&blue, server, "1s");
        old.wait_for_line("app is up");
        let mut new = instance(&green, server, "1s");
        new.wait_for_line("has not released the lease within lease.wait, taking it over");
        new.wait_for_line("app is up");
        // Nothing was stored yet: the new one is another database.
        green.create_database(3);
        db::add_row(&blue.database(), "of the old one");
        let (code, lines) = old.stop();
        assert_eq!(code, 0);
        assert!(lines.iter().any(|line| line.contains("goes beside the line")), "{lines:?}");
        assert_eq!(new.stop().0, 0);
        assert_eq!(forked(server), 1);

        // The line is the new one's; the old disk does not get it back by starting again.
        let third = Machine::new();
        let mut restored = instance(&third, server, "1s");
        restored.wait_for_line("app is up");
        assert_eq!(db::dump(&third.database()), db::dump(&green.database()));
        let mut again = instance(&blue, server, "1s");
        again.wait_for_line("The backups have gone on without this disk");
        again.wait_for_line("app is up");
        assert_eq!((again.stop().0, restored.stop().0), (0, 0));
        assert_eq!(forked(server), 2);
    })
    .await;
}

#[tokio::test]
async fn a_backup_by_hand_from_a_fenced_disk_says_where_it_really_lies() {
    with_server(|server| {
        let (blue, green) = (Machine::new(), Machine::new());
        blue.create_database(10);
        let mut old = instance(&blue, server, "1s");
        old.wait_for_line("app is up");
        let mut new = instance(&green, server, "1s");
        new.wait_for_line("app is up");
        let mut by_hand = blue.simplebackup();
        configure(&mut by_hand, server);
        let output = run(by_hand.arg("backup").env("SIMPLE_BACKUP_LEASE_ENABLED", "true"));
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(printed.starts_with("s3://mybucket/backups/forks/"), "{printed:?}");
        old.stop();
        new.stop();
    })
    .await;
}

/// Killed, and back on the same disk: nobody has to wait.
#[tokio::test]
async fn an_instance_that_was_killed_takes_its_own_lease_back() {
    with_server(|server| {
        let machine = Machine::new();
        machine.create_database(10);
        let mut killed = instance(&machine, server, "60s");
        killed.wait_for_line("app is up");
        drop(killed);
        let mut again = instance(&machine, server, "60s");
        again.wait_for_line("app is up");
        let (code, lines) = again.stop();
        assert_eq!((code, forked(server)), (0, 0), "{}", lines.join("\n"));
        assert!(!lines.iter().any(|line| line.contains("waiting up to")), "{lines:?}");
    })
    .await;
}

/// A new instance that is stopped while it waits, or right after, leaves no lease behind.
#[tokio::test]
async fn a_deploy_that_is_called_off_changes_nothing() {
    with_server(|server| {
        let (blue, green) = (Machine::new(), Machine::new());
        blue.create_database(10);
        let mut old = instance(&blue, server, "60s");
        old.wait_for_line("app is up");
        let before = server.get("lease.json");
        let mut new = instance(&green, server, "60s");
        new.wait_for_line("waiting up to 60 s");
        assert_eq!(new.stop().0, 0);
        assert_eq!(server.get("lease.json"), before);
        assert!(!green.database().exists());
        assert_eq!((old.stop().0, forked(server)), (0, 0));
    })
    .await;
}
