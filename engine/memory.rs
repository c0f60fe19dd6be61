//! Memory that is given back to the system once a job is over.
//!
//! Two kinds: what the allocator keeps of what was freed, and the code that only a start or a backup
//! needs. Code stays in the system's cache, from where it comes back in microseconds; but while it is
//! mapped it counts as this process's own, and is the last that the system takes back when memory is
//! short.

use std::fs;
use std::path::Path;

/// What is allocated in one piece of so many bytes or more comes from the system, and goes back to it at
/// once. It is what glibc begins with.
#[cfg(target_env = "gnu")]
const LARGE_BYTES: i32 = 128 * 1024;

/// Makes the allocator of this process predictable: glibc else keeps ever larger pieces once they are freed,
/// for each thread that had some, 5 MiB in a backup. For programs, once and before they start threads; a
/// library has no business with it.
pub fn keep_no_large_pieces() {
    // SAFETY: takes no pointer, and no other thread allocates yet (`man 3 mallopt`).
    #[cfg(target_env = "gnu")]
    #[allow(unsafe_code)]
    let _whether_it_was_set = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BYTES) };
}

/// Gives back what a service that rests does not need, soon and on another thread.
///
/// It takes milliseconds, and holds up every thread that allocates: nothing for the steps of a job.
///
/// # Panics
///
/// Outside of a runtime.
pub fn give_back() {
    // Nobody waits for it.
    let _detached = tokio::task::spawn_blocking(give_back_now);
}

/// Does the same on this thread, for a job that goes on for long.
pub(crate) fn give_back_now() {
    trim();
    let_code_go();
}

/// Gives back what was freed; glibc keeps it otherwise, 5 MiB after a backup. Between two steps of a job
/// it pays where much was freed and no other thread works: the next step takes what is kept.
#[cfg(target_env = "gnu")]
pub(crate) fn trim() {
    // SAFETY: takes no pointer, and any thread may call it at any time (`man 3 malloc_trim`).
    #[allow(unsafe_code)]
    let _whether_any_was = unsafe { libc::malloc_trim(0) };
}

/// Other libraries have no such call.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn trim() {}

/// Unmaps the pages of the program's code. Whatever runs next is mapped again, page by page.
fn let_code_go() {
    // Linux says both, or there is nothing to be done.
    let (Ok(maps), Ok(program)) =
        (fs::read_to_string("/proc/self/maps"), fs::read_link("/proc/self/exe"))
    else {
        return;
    };
    for (start, end) in code_in(&maps, &program) {
        // SAFETY: the range is a private mapping of a file that nobody may write to while it runs
        // (`ETXTBSY`), readable and executable, never writable: position-independent code that nothing was
        // written into. So every page that goes is read again, the same, when it is next touched
        // (`man 2 madvise`, MADV_DONTNEED). It stays mapped: nothing else can take its place.
        #[allow(unsafe_code)]
        let _whether_it_did = unsafe {
            libc::madvise(
                std::ptr::with_exposed_provenance_mut(start),
                end - start,
                libc::MADV_DONTNEED,
            )
        };
    }
}

/// Returns where the program's own code lies: from, and up to (`man 5 proc_pid_maps`). Not its data: the
/// tables that the loader filled are private pages of the same file, and would be lost.
fn code_in<'a>(maps: &'a str, program: &'a Path) -> impl Iterator<Item = (usize, usize)> + 'a {
    maps.lines().filter_map(move |line| {
        let (range, rest) = line.split_once(' ')?;
        let (rights, rest) = rest.split_once(' ')?;
        // Offset, device and inode; then the path, which may hold spaces.
        let path = rest.splitn(4, ' ').nth(3)?.trim_start();
        let (start, end) = range.split_once('-')?;
        let address = |text| usize::from_str_radix(text, 16).ok();
        (rights == "r-xp" && Path::new(path) == program).then_some((address(start)?, address(end)?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
55d0c0000000-55d0c033c000 r--p 00000000 fe:00 131 /opt/my app/simplebackup
55d0c033c000-55d0c0a60000 r-xp 0033b000 fe:00 131 /opt/my app/simplebackup
55d0c0a60000-55d0c0aa7000 r--p 00a5e000 fe:00 131 /opt/my app/simplebackup
55d0c0aa8000-55d0c0ab1000 rw-p 00aa5000 fe:00 131 /opt/my app/simplebackup
55d0e6a3b000-55d0e6ae7000 rw-p 00000000 00:00 0                          [heap]
7f80d3e2a000-7f80d3f7f000 r-xp 00026000 fe:00 262                        /usr/lib/libc.so.6
7f80d4000000-7f80d4001000 r-xp 00000000 00:00 0
";

    #[test]
    fn code_is_what_may_be_run_of_the_program_itself() {
        let found: Vec<_> = code_in(MAPS, Path::new("/opt/my app/simplebackup")).collect();
        assert_eq!(found, [(0x55d0_c033_c000, 0x55d0_c0a6_0000)]);
        assert_eq!(code_in(MAPS, Path::new("/opt/my")).count(), 0);
        assert_eq!(code_in(MAPS, Path::new("")).count(), 0);
    }

    /// Returns the resident KiB of the program's code.
    fn resident() -> u64 {
        let program = fs::read_link("/proc/self/exe").expect("Linux");
        let smaps = fs::read_to_string("/proc/self/smaps").expect("Linux");
        let mut is_code = false;
        let mut sum = 0;
        for line in smaps.lines() {
            if let Some(rss) = line.strip_prefix("Rss:").filter(|_| is_code) {
                sum += rss.trim().trim_end_matches(" kB").parse::<u64>().expect("a number");
            } else if line.contains('-') && line.contains(':') {
                is_code = code_in(line, &program).count() > 0;
            }
        }
        sum
    }

    /// Reads a byte of each page of the program's code, so that all of it is mapped.
    fn touch_all() {
        let maps = fs::read_to_string("/proc/self/maps").expect("Linux");
        let program = fs::read_link("/proc/self/exe").expect("Linux");
        for (start, end) in code_in(&maps, &program) {
            for address in (start..end).step_by(4096) {
                // SAFETY: a mapping of this process that may be read, and stays.
                #[allow(unsafe_code)]
                let _byte =
                    unsafe { std::ptr::with_exposed_provenance::<u8>(address).read_volatile() };
            }
        }
    }

    #[test]
    fn code_that_went_is_mapped_again_when_it_runs() {
        touch_all();
        let before = resident();
        let_code_go();
        let after = resident();
        // Other tests run meanwhile.
        assert!(after < before, "{after} of {before} KiB");
        assert!(after > 0, "this very test runs");
    }
}
