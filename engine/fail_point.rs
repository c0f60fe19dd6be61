//! Named steps at which a test can have this process killed, as a power cut or the kernel would.
//!
//! [`reach`] does nothing without the feature `fail-points`, which only the tests of the service
//! turn on. With it, a process whose variable `FAIL_POINT` names a step kills itself there with
//! SIGKILL: nothing is cleaned up. `tests/kills.rs` goes through all of them.

/// The steps, in the order in which a backup, a restore and a stop come to them.
#[cfg(feature = "fail-points")]
pub const ALL: [&str; 24] = [
    "backup.locked",
    "backup.snapshot_taken",
    "backup.checked",
    "backup.listed",
    "backup.piece_written",
    "backup.all_pieces_written",
    "backup.uploaded",
    "backup.one_deleted",
    "backup.pruned",
    "restore.listed",
    "restore.folder_made",
    "restore.piece_received",
    "restore.unpacked",
    "restore.checked",
    "restore.file_synced",
    "restore.one_moved_aside",
    "restore.room_made",
    "restore.renamed",
    "restore.folder_synced",
    "upload.part_sent",
    "upload.all_parts_sent",
    "stop.ticks_stopped",
    "stop.app_drained",
    "stop.final_backup_made",
];

/// Says that this process has come to a step. Nothing in a release.
#[cfg(not(feature = "fail-points"))]
pub fn reach(_step: &str) {}

/// Says that this process has come to a step, and ends there if a test wants it to.
#[cfg(feature = "fail-points")]
pub fn reach(step: &str) {
    if std::env::var_os("FAIL_POINT").is_some_and(|wanted| wanted == step) {
        // Ok is never seen, and an error would show itself: the test expects a killed process.
        let _killed =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}
