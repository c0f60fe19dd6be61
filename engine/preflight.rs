//! What is worth a warning before anything runs.

use std::path::Path;

/// File systems on which SQLite's locks or its write-ahead log are not safe, by the number that
/// `statfs(2)` gives them.
const NETWORK_FILE_SYSTEMS: [(u32, &str); 5] = [
    (0x6969, "NFS"),
    (0x517B, "SMB"),
    (0xFF53_4D42, "CIFS"),
    (0xFE53_4D42, "SMB2"),
    (0x0102_1997, "9p"),
];

/// Returns the name of the network file system on which `path` lies, if it does. The path need
/// not exist, its folder must.
#[must_use]
pub fn network_file_system(path: &Path) -> Option<&'static str> {
    let folder = path.parent().unwrap_or(path);
    let kind = rustix::fs::statfs(folder).ok()?.f_type;
    // The kernel's type is signed or not, by architecture; the number is 32 bits everywhere.
    let kind = kind as u32;
    NETWORK_FILE_SYSTEMS.iter().find(|(number, _)| *number == kind).map(|(_, name)| *name)
}
