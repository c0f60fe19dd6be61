//! The real binary with encrypted backups: its settings, its flags, its refusals, and what it says.

use std::fs;
use std::path::PathBuf;

use super::Keys;
use crate::support::db;
use crate::support::process::{
    Machine, POLITE, Process, TOKEN, ask, assert_in_order, eventually, get, run,
};
use age::secrecy::ExposeSecret;
use serde_json::Value;

/// A machine whose backups are encrypted for these keys.
struct Vault {
    machine: Machine,
    keys: Keys,
}

impl Vault {
    fn new() -> Self {
        let vault = Self { machine: Machine::new(), keys: Keys::new() };
        vault.machine.create_database(50);
        vault
    }

    /// Runs the binary with these words, and makes sure that it shows no secret key.
    #[track_caller]
    fn run(&self, words: &[&str]) -> (Option<i32>, String) {
        let mut command = self.machine.simplebackup();
        command.env("SIMPLE_BACKUP_ENCRYPTION_RECIPIENTS", self.keys.public()).args(words);
        let output = run(&mut command);
        let said = [&output.stdout[..], &output.stderr].concat();
        let said = String::from_utf8(said).expect("UTF-8");
        let secret = self.keys.identity.to_string();
        assert!(!said.contains(&secret.expose_secret()[20..40]), "{said}");
        (output.status.code(), said)
    }

    fn identity(&self) -> &str {
        self.keys.path().to_str().expect("UTF-8")
    }

    fn newest(&self) -> PathBuf {
        let stored = self.machine.stored();
        self.machine.path("app.db.backups").join(stored.last().expect("stored"))
    }
}

#[test]
fn a_backup_is_encrypted_listed_verified_and_restored_by_flag() {
    let vault = Vault::new();
    let before = db::dump(&vault.machine.database());
    let (code, said) = vault.run(&["backup"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(vault.newest().to_str().expect("UTF-8").ends_with(".db.gz.age"));
    let stored = fs::read(vault.newest()).expect("stored");
    assert!(stored.starts_with(b"age-encryption.org/v1\n"));
    let (_, list) = vault.run(&["list"]);
    assert!(list.trim_end().ends_with("  encrypted"), "{list}");
    let (_, list) = vault.run(&["list", "--json"]);
    assert!(list.contains("\"encrypted\": true"), "{list}");

    let (code, said) = vault.run(&["verify"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("NOT OPENED: ") && said.contains("--identity FILE"), "{said}");
    let (code, said) = vault.run(&["verify", "--all", "--identity", vault.identity()]);
    assert_eq!(code, Some(0), "{said}");

    vault.machine.lose_database();
    let (code, said) = vault.run(&["restore"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("is encrypted, and there is no identity"), "{said}");
    assert!(!vault.machine.database().exists());
    let other = Keys::new();
    let (code, said) = vault.run(&["restore", "--identity", other.path().to_str().expect("UTF-8")]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("no identity in") && said.contains("opens it"), "{said}");
    assert!(!vault.machine.database().exists());
    let other = ["restore", "--dry-run", "--identity", other.path().to_str().expect("UTF-8")];
    let (code, said) = vault.run(&other);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("would be refused: ") && said.contains("opens it"), "{said}");
    let (code, said) = vault.run(&["restore", "--identity", "/no/such/file"]);
    assert_eq!(code, Some(2), "{said}");
    let (code, said) = vault.run(&["restore", "--identity", vault.identity()]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(db::dump(&vault.machine.database()), before);
}

#[test]
fn damage_to_an_encrypted_backup_is_found_by_verify() {
    let vault = Vault::new();
    vault.run(&["backup"]);
    let sound = fs::read(vault.newest()).expect("stored");
    let mut flipped = sound.clone();
    let middle = sound.len() / 2;
    flipped[middle] ^= 1;
    for damaged in [&sound[..sound.len() - 1], &flipped, &[&sound[..], b"x"].concat()] {
        fs::write(vault.newest(), damaged).expect("written");
        let (code, said) = vault.run(&["verify", "--identity", vault.identity()]);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("DAMAGED: ") && said.contains("after it was encrypted"), "{said}");
    }
}

/// Neither a plain backup, nor an app without backups: nothing at all.
#[test]
fn recipients_that_are_no_use_refuse_the_start() {
    let vault = Vault::new();
    let secret = vault.keys.identity.to_string();
    let public = vault.keys.public();
    let cases = [
        (String::new(), "is set to nothing"),
        (" ".to_owned(), "is set to nothing"),
        ("[\"\"]".to_owned(), "recipient 1 is an empty text"),
        (format!("[\"{public}\", \"\"]"), "recipient 2 is an empty text"),
        (format!("{public} age1wrong"), "recipient 2 is no public key"),
        (secret.expose_secret().to_owned(), "recipient 1 is a secret key"),
        (format!("[\"{public}\""), "is no list of texts"),
    ];
    for (recipients, words) in cases {
        for command in [&["backup"][..], &["run", "--simple-backup", "--", "touch", "started"]] {
            let mut simplebackup = vault.machine.simplebackup();
            simplebackup.env("SIMPLE_BACKUP_ENCRYPTION_RECIPIENTS", &recipients).args(command);
            let output = run(&mut simplebackup);
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{said}");
            assert!(said.contains("SIMPLE_BACKUP_ENCRYPTION_RECIPIENTS: ") && said.contains(words));
            assert!(!said.contains(&secret.expose_secret()[20..40]), "{said}");
        }
    }
    assert_eq!(vault.machine.stored(), [""; 0]);
    assert!(!vault.machine.path("started").exists());
}

fn serve(vault: &Vault, identity: Option<&str>) -> Process {
    vault.machine.serve_script_with(POLITE, |command| {
        command.env("SIMPLE_BACKUP_ENCRYPTION_RECIPIENTS", vault.keys.public());
        if let Some(identity) = identity {
            command.env("SIMPLE_BACKUP_ENCRYPTION_IDENTITY_FILE", identity);
        }
    })
}

#[test]
fn a_service_with_an_identity_restores_on_a_new_machine() {
    let vault = Vault::new();
    let before = db::dump(&vault.machine.database());
    let mut process = serve(&vault, Some(vault.identity()));
    process.wait_for_line("app is up");
    let (code, lines) = process.stop();
    assert_eq!(code, 0, "{}", lines.join("\n"));
    let announced = format!("[SIMPLE-BACKUP] Backups are encrypted for {}", vault.keys.public());
    assert_in_order(&lines, &[&announced, "Uploaded to file://"]);
    assert!(!lines.iter().any(|line| line.contains("WARNING") && line.contains("identity")));

    vault.machine.lose_database();
    let mut process = serve(&vault, Some(vault.identity()));
    process.wait_for_line("app is up");
    assert_eq!(db::dump(&vault.machine.database()), before);
    assert_eq!(process.stop().0, 0);
}

/// A fresh database would hide that there are backups, and soon evict them.
#[test]
fn a_service_without_an_identity_says_so_and_never_starts_empty() {
    let vault = Vault::new();
    let mut process = serve(&vault, None);
    process.wait_for_line("WARNING: encryption.identity_file is not set");
    process.wait_for_line("app is up");
    assert_eq!(process.stop().0, 0);
    assert_eq!(vault.machine.stored().len(), 1, "backups are made all the same");

    vault.machine.lose_database();
    let (code, lines) = serve(&vault, None).wait();
    assert_eq!(code, 1, "{}", lines.join("\n"));
    assert_in_order(&lines, &["Found 1 backup", "FATAL: Restore failed: backup db-backup-"]);
    assert!(!lines.iter().any(|line| line.contains("app is up")));
    assert!(!vault.machine.database().exists());
}

#[test]
fn an_identity_file_that_is_no_use_refuses_the_start() {
    let vault = Vault::new();
    let file = vault.machine.path("key.txt");
    let path = file.to_str().expect("UTF-8");
    let (code, lines) = serve(&vault, Some(path)).wait();
    assert_eq!(code, 2, "{}", lines.join("\n"));
    assert_in_order(&lines, &["FATAL: identity file", "cannot be read"][..1]);
    fs::write(&file, vault.keys.public()).expect("written");
    let (code, lines) = serve(&vault, Some(path)).wait();
    assert_eq!(code, 2, "{}", lines.join("\n"));
    assert_in_order(&lines, &["line 1 is a recipient, a public key"]);
    assert!(!lines.iter().any(|line| line.contains("app is up")));
}

#[test]
fn an_identity_that_others_may_read_or_that_does_not_fit_is_worth_a_warning() {
    use std::os::unix::fs::PermissionsExt;

    let vault = Vault::new();
    let other = Keys::new();
    fs::set_permissions(other.path(), fs::Permissions::from_mode(0o644)).expect("set");
    let mut process = serve(&vault, other.path().to_str());
    process.wait_for_line("WARNING: Other users of this machine may read the identity file");
    process.wait_for_line("WARNING: No identity in ");
    process.wait_for_line("app is up");
    assert_eq!(process.stop().0, 0);
}

/// A variable that got lost.
#[test]
fn a_plain_backup_after_an_encrypted_one_is_worth_a_warning() {
    let vault = Vault::new();
    vault.run(&["backup"]);
    let output = run(vault.machine.simplebackup().args(["backup"]));
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(said.contains("encrypted and this one will not be"), "{said}");
    let (_, said) = vault.run(&["backup"]);
    assert!(!said.contains("this one will not be"), "{said}");
}

#[test]
fn a_drill_that_could_open_nothing_is_refused_and_one_by_hand_is_no_alarm() {
    let vault = Vault::new();
    let output = run(vault
        .machine
        .simplebackup()
        .env("SIMPLE_BACKUP_ENCRYPTION_RECIPIENTS", vault.keys.public())
        .env("SIMPLE_BACKUP_VERIFY_SCHEDULE", "0 0 4 * * *")
        .arg("list"));
    assert_eq!(output.status.code(), Some(2));
    vault.run(&["backup"]);
    let mut process = serve(&vault, None);
    let address = process.http_address();
    eventually("the app runs", || get(&address, "/health/ready").status == 200);
    let token = format!("Authorization: Bearer {TOKEN}");
    let answer = ask(&address, "POST /verify", &[&token], "");
    assert_eq!(answer.status, 500, "{}", answer.body);
    assert!(answer.body.contains("there is no identity"), "{}", answer.body);
    let status = get(&address, "/status").json();
    assert_eq!((&status["verdict"], &status["last_verify_error"]), (&"safe".into(), &Value::Null));
}
