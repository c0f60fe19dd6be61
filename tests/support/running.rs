//! A service that has started.

use super::process::{Machine, POLITE, Process, eventually, get};

/// Starts a service with a token on a small database, with backups that only a person asks for; returns
/// it with its address.
pub(crate) fn serve(machine: &Machine) -> (Process, String) {
    machine.create_database(10);
    start(machine)
}

/// Starts one where the database is missing and a backup of it is stored.
pub(crate) fn serve_restored(machine: &Machine) -> (Process, String) {
    machine.create_database(10);
    assert!(machine.run(&["backup"]).status.success());
    machine.lose_database();
    start(machine)
}

fn start(machine: &Machine) -> (Process, String) {
    let mut process = machine.serve_script(POLITE);
    let address = process.http_address();
    wait_until_up(&address);
    (process, address)
}

/// Waits until the app runs and the ticks have begun: the last thing that a start does.
#[track_caller]
pub(crate) fn wait_until_up(address: &str) {
    let next = || get(address, "/health/backup-status").json()["next_backup"].clone();
    eventually("the service is up", || !next().is_null());
}
