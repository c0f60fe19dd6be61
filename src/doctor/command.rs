//! The app's command: whether there is such a program, and whether SIGTERM reaches it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use simplebackup_engine::doctor::Finding;

/// The name of the check.
pub(super) const COMMAND: &str = "stop.command";

/// Shells, which do not hand a signal on to what they wait for.
pub(super) const SHELLS: [&str; 7] = ["sh", "bash", "dash", "ash", "zsh", "ksh", "busybox"];

/// Looks at the command.
pub(super) fn examine(command: &[String]) -> Finding {
    let Some(program) = command.first() else {
        let why =
            "no command is configured; give the one of \"run\" after \"--\" to have it checked";
        return Finding::skipped(COMMAND, why);
    };
    let Some(path) = find(program) else {
        let found = format!("there is no program \"{program}\"");
        return Finding::failure(COMMAND, found, "check app.command, and PATH if it has no slash");
    };
    if swallows_signals(program, &command[1..]) {
        return Finding::warning(
            COMMAND,
            format!(
                "\"{program} -c\" gets the SIGTERM of a stop, and does not hand it on to the app"
            ),
            "begin the last command of the script with exec, or name the app itself",
        );
    }
    Finding::ok(COMMAND, format!("{} gets SIGTERM at a stop", path.display()))
}

/// Returns whether it is a shell that stays in front of what it starts: `sh -c "cd /srv; ./app"`.
/// One that has a trap knows what it does, and of a single command most shells make themselves one.
fn swallows_signals(program: &str, arguments: &[String]) -> bool {
    let is_shell = SHELLS.contains(&name_of(program));
    let mut rest = arguments.iter().skip_while(|word| !is_script_flag(word)).skip(1);
    let Some(script) = rest.next().filter(|_| is_shell) else { return false };
    let mut words = script.split(|c: char| c.is_whitespace() || "|&;()".contains(c));
    let is_plain = !script.trim().contains(['\n', '|', '&', ';']);
    !is_plain && !words.any(|word| matches!(word, "exec" | "trap"))
}

/// `-c`, alone or with others: `-ec`.
fn is_script_flag(word: &str) -> bool {
    word.starts_with('-') && !word.starts_with("--") && word.ends_with('c')
}

fn name_of(program: &str) -> &str {
    Path::new(program).file_name().and_then(|name| name.to_str()).unwrap_or(program)
}

/// Returns where a program is, as the system looks for it.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    let is_program = |path: &PathBuf| {
        std::fs::metadata(path)
            .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
    };
    if program.contains('/') {
        return Some(PathBuf::from(program)).filter(is_program);
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(is_program)
}

#[cfg(test)]
mod tests {
    use simplebackup_engine::doctor::Verdict;

    use super::*;

    #[test]
    fn a_shell_in_between_is_noticed() {
        let cases = [
            (&["sh", "-c", "cd /srv && ./server"][..], Verdict::Warning),
            (&["/bin/sh", "-ec", "migrate; ./server"], Verdict::Warning),
            (&["sh", "-c", "cd /srv && exec ./server"], Verdict::Ok),
            (&["sh", "-c", "trap 'kill $!' TERM; ./server & wait"], Verdict::Ok),
            (&["sh", "-c", "./server --port 3000"], Verdict::Ok),
            (&["sh", "start.sh"], Verdict::Ok),
            (&["cat", "-c", "a; b"], Verdict::Ok),
            (&["/no/such/program"], Verdict::Failure),
            (&["no-such-program-anywhere"], Verdict::Failure),
            (&[], Verdict::Skipped),
        ];
        for (command, verdict) in cases {
            let words: Vec<_> = command.iter().map(|&word| word.to_owned()).collect();
            assert_eq!(examine(&words).verdict, verdict, "{command:?}");
        }
    }
}
