//! The binary: parses, does, exits.

/// Leaves by `exit` rather than by returning: dropping the runtime would wait for blocking work
/// without a limit, and every log line has been written by now.
fn main() {
    simplebackup_engine::memory::keep_no_large_pieces();
    std::process::exit(simplebackup::cli::main());
}
