//! What the program says when something is wrong: every text of an error, and every line that begins
//! with FATAL, ERROR or WARNING, as it stands in the source. Who changes one changes it in
//! `tests/words/messages.txt`, and sees it beside the others: `BLESS=1 cargo test words`.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

const PINNED: &str = "tests/words/messages.txt";

const PREFIXES: [&str; 3] = ["\"FATAL: ", "\"ERROR: ", "\"WARNING: "];

#[test]
fn every_message_is_as_it_was_agreed_upon() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = String::new();
    for folder in ["engine", "actors", "src"] {
        for file in sources(&root.join(folder)) {
            let source = fs::read_to_string(&file).expect("read");
            let name = file.strip_prefix(root).expect("inside").display();
            for message in messages(&source) {
                writeln!(found, "{name}: {message}").expect("to memory");
            }
        }
    }
    if std::env::var_os("BLESS").is_some() {
        fs::write(root.join(PINNED), &found).expect("written");
    }
    let pinned = fs::read_to_string(root.join(PINNED)).expect("read");
    let missing = |from: &str, of: &str| -> Vec<String> {
        of.lines().filter(|line| !from.lines().any(|l| l == *line)).map(str::to_owned).collect()
    };
    let (new, gone) = (missing(&pinned, &found), missing(&found, &pinned));
    assert!(new.is_empty() && gone.is_empty(), "new: {new:#?}\ngone: {gone:#?}");
}

/// What a piece of advice is recognised by.
const ADVICE: [&str; 14] = [
    "; ",
    "check ",
    "free ",
    "look ",
    "see ",
    "use ",
    "raise ",
    "allow",
    "restore ",
    "report it",
    "try again",
    "trying",
    "going on",
    "next run",
];

/// Messages without one: links of a chain whose other end has it, and news that ask for nothing.
const WITHOUT_ADVICE: [&str; 32] = [
    // News.
    "ERROR: Backup already in progress, skipping this attempt",
    "FATAL: Backup file is corrupted. Manual intervention required.",
    "ERROR: Database corruption detected",
    "WARNING: Continuing shutdown without backup",
    "WARNING: Received a second shutdown signal, abandoning the shutdown",
    "WARNING: Shutting down, {} backup refused",
    "hooks.{name} gave way to the final backup, whose own hooks follow",
    "WARNING: The clock went back, the next tick is reckoned anew",
    "backup already in progress ({} backup since {since})",
    "the service is shutting down",
    // Links: what they say is the end or the beginning of a sentence that has one.
    "SQLite error",
    "archive could not be encrypted, nothing is stored",
    "archive could not be made from the snapshot",
    "backup {key} could not be unpacked and checked",
    "download ended early",
    "file cannot be read",
    "it is encrypted for others, or the header of its encryption is damaged",
    "no backup without its hook",
    "no room for a snapshot of {}, older backups are kept",
    "no room for the unpacked database",
    "ran out of time",
    "snapshot could not be read",
    "snapshot file {} could not be written",
    "snapshot of {} could not be made",
    "stopped",
    "the answer is no list of objects",
    "the store answered before it had all of the request",
    "the rest of the request is not to be sent",
    "the answer to a request over plain HTTP leads to HTTPS",
    "the file is empty",
    "the list of objects is cut off",
    "upload ended early",
];

/// A message that says no more than what failed leaves a person alone at 3 a.m. One that ends in its cause
/// leaves the advice to that.
#[test]
fn every_message_says_what_to_do_or_is_known_not_to() {
    let pinned = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(PINNED));
    let pinned = pinned.expect("read");
    let messages = pinned.lines().filter_map(|line| Some(line.split_once(": ")?.1));
    let found: BTreeSet<_> = messages
        .filter(|message| {
            !message.ends_with('}') && !ADVICE.iter().any(|word| message.contains(word))
        })
        .collect();
    assert_eq!(found, BTreeSet::from(WITHOUT_ADVICE));
}

/// Returns all `.rs` files below a folder that end up in the program, in order.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("listed") {
        let path = entry.expect("an entry").path();
        if path.is_dir() && !path.ends_with("benches") {
            files.append(&mut sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// Returns the texts of errors and the lines of the log in a source, without those of its tests.
fn messages(source: &str) -> Vec<String> {
    let source = source.split("#[cfg(test)]\nmod tests").next().unwrap_or(source);
    let errors = source.split("#[error(").skip(1).filter_map(|rest| literal(rest.trim_start()));
    let lines = PREFIXES.iter().flat_map(|prefix| {
        source.match_indices(prefix).filter_map(|(start, _)| literal(&source[start..]))
    });
    errors.chain(lines).collect()
}

/// Returns the string literal that a text begins with, on one line; nothing if it begins with none.
fn literal(text: &str) -> Option<String> {
    let mut literal = String::new();
    let mut characters = text.strip_prefix('"')?.chars().peekable();
    while let Some(character) = characters.next() {
        match (character, characters.peek()) {
            ('"', _) => return Some(literal),
            // The line goes on in the next one, behind its blanks.
            ('\\', Some('\n')) => {
                while characters.next_if(|character| character.is_whitespace()).is_some() {}
            }
            ('\\', Some('"')) => literal.extend(characters.next()),
            (other, _) => literal.push(other),
        }
    }
    None
}

#[test]
fn messages_are_found_in_a_source() {
    let source = "#[error(\n    \"no {room}; \\\n     free \\\"some\\\"\"\n)]\n#[error(transparent)]\n\
                  warn!(\"WARNING: {} is late\", x)\n#[cfg(test)]\nmod tests { \"ERROR: not ours\" }";
    assert_eq!(messages(source), ["no {room}; free \"some\"", "WARNING: {} is late"]);
}
