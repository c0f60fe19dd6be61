//! What this program is made of: its version, the commit that it was built from, and its SQLite.

use std::sync::LazyLock;

/// The version of the package.
pub(crate) const NUMBER: &str = env!("CARGO_PKG_VERSION");

/// The commit and its day; `build.rs` says where it comes from.
pub(crate) const COMMIT: &str = env!("SIMPLEBACKUP_COMMIT");

/// Returns what `--version` says after the name.
pub(crate) fn line() -> &'static str {
    static LINE: LazyLock<String> =
        LazyLock::new(|| format!("{NUMBER} ({COMMIT}, SQLite {})", rusqlite::version()));
    &LINE
}
