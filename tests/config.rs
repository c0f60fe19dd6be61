//! The configuration: which source wins, what is refused and how, and that no secret is shown.

use std::path::{Path, PathBuf};
use std::time::Duration;

use simplebackup::config::{
    Config, Flags, Input, LogFormat, Problems, SnitchKind, StoreChoice, WebhookEvents, load,
};

use crate::support::process::Machine;

/// An input of these variables and nothing else.
fn with_variables(variables: &[(&str, &str)]) -> Input {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    // The tests run in the repository, whose own config.toml must not be read by accident.
    let flags = Flags { config: Some(repository().join("config.toml")), ..Flags::default() };
    Input { flags, variables: variables.iter().map(own).collect() }
}

/// An input of this file and these variables.
fn with_file(machine: &Machine, content: &str, variables: &[(&str, &str)]) -> Input {
    let path = machine.path("test.toml");
    std::fs::write(&path, content).expect("written");
    let mut input = with_variables(variables);
    input.flags.config = Some(path);
    input
}

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn bucket_of(config: &Config) -> (&str, &str) {
    match &config.store {
        StoreChoice::S3(settings) => (&settings.bucket, &settings.prefix),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn problems(input: &Input) -> Vec<String> {
    let Problems(problems) = load(input).expect_err("refused");
    problems.iter().map(ToString::to_string).collect()
}

#[test]
fn the_shipped_file_holds_exactly_the_defaults() {
    assert_eq!(load(&with_variables(&[])).expect("valid"), Config::default());
}

#[test]
fn flags_win_over_the_environment_and_the_environment_over_the_file() {
    let machine = Machine::new();
    let file = "[backup]\nkeep = 4\n[log]\nformat = \"json\"\n[restore]\nfallback = true\n";
    let mut input = with_file(
        &machine,
        file,
        &[("SIMPLE_BACKUP_BACKUP_KEEP", "5"), ("SIMPLE_BACKUP_LOG_FORMAT", "text")],
    );
    input.flags.values = vec![("backup.keep", "--keep", "6".to_owned())];
    let config = load(&input).expect("valid");
    assert_eq!(config.retention.keep.get(), 6);
    assert_eq!(config.log_format, LogFormat::Text);
    assert!(config.fallback);
    assert_eq!(config.database, Path::new("/var/lib/app/database.db"));
}

/// What is refused may be a secret by mistake: none of it is shown.
#[test]
fn recipients_are_refused_by_their_place_and_number_and_never_shown() {
    let machine = Machine::new();
    let secret = "AGE-SECRET-KEY-1GQ9778VQXMMJVE8SK7J6VT8UJ4HDQAJUVSFCWCM02D8GEWQ72PVQ2Y5J33";
    let cases = [
        (format!("[\"{secret}\"]"), "recipient 1 is a secret key"),
        (format!("\"{secret}\""), "is no list of texts"),
        ("[\"hush\"]".to_owned(), "recipient 1 is no public key of age-keygen"),
        ("[\"hush\", 1]".to_owned(), "is no list of texts"),
    ];
    for (value, words) in cases {
        let file = format!("[encryption]\nrecipients = {value}\n");
        let problems = problems(&with_file(&machine, &file, &[])).join("\n");
        assert!(problems.contains("test.toml:2: encryption.recipients: "), "{problems}");
        assert!(problems.contains(words), "{problems}");
        assert!(!problems.contains("hush") && !problems.contains(&secret[20..]), "{problems}");
    }
    let variables = [("SIMPLE_BACKUP_ENCRYPTION_IDENTITY_FILE", secret)];
    let problems = problems(&with_file(&machine, "", &variables)).join("\n");
    assert!(problems.contains("= [redacted] is not accepted; give the path"), "{problems}");
}

/// A variable wins over the file, and says so itself if it switches encryption off.
#[test]
fn only_a_list_switches_encryption_off() {
    let machine = Machine::new();
    let public = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa";
    let file = format!("[encryption]\nrecipients = [\"{public}\"]\n");
    let with =
        |value| with_file(&machine, &file, &[("SIMPLE_BACKUP_ENCRYPTION_RECIPIENTS", value)]);
    assert_eq!(load(&with("[]")).expect("valid").recipients, None);
    assert!(problems(&with(""))[0].contains("is set to nothing"));
    let config = load(&with(public)).expect("valid");
    assert_eq!(config.recipients.expect("one").names(), [public]);
    assert_eq!(config.identity_file, None);
}

#[test]
fn the_authors_variables_name_a_bucket() {
    let config = load(&with_variables(&[
        ("MINIO_ENDPOINT", "minio.local:9000"),
        ("MINIO_ACCESS_KEY", "key"),
        ("MINIO_SECRET_KEY", "hush"),
        ("MINIO_BUCKET", "mybucket"),
        ("MINIO_PREFIX", "/backups/"),
        ("MINIO_USE_SSL", "false"),
        ("MINIO_REGION", "eu-central-1"),
    ]))
    .expect("valid");
    let StoreChoice::S3(settings) = &config.store else { panic!("{:?}", config.store) };
    assert_eq!((settings.bucket.as_str(), settings.prefix.as_str()), ("mybucket", "backups"));
    assert_eq!(settings.endpoint.as_deref(), Some("minio.local:9000"));
    assert_eq!(settings.region.as_deref(), Some("eu-central-1"));
    assert!(!settings.use_ssl);
    assert_eq!(settings.secret_key.as_ref().expect("set").expose(), "hush");
}

#[test]
fn a_bucket_of_the_environment_replaces_the_files_store() {
    let machine = Machine::new();
    let file = "[store]\nurl = \"s3://other/place\"\n";
    let input = with_file(&machine, file, &[("MINIO_BUCKET", "mybucket")]);
    assert_eq!(bucket_of(&load(&input).expect("valid")), ("mybucket", ""));
    let input = with_file(&machine, file, &[("MINIO_PREFIX", "mine")]);
    assert_eq!(bucket_of(&load(&input).expect("valid")), ("other", "mine"));
    let input = with_file(
        &machine,
        file,
        &[("SIMPLE_BACKUP_STORE_URL", "s3://third"), ("MINIO_BUCKET", "mybucket")],
    );
    assert_eq!(bucket_of(&load(&input).expect("valid")), ("third", ""));
}

#[test]
fn without_a_bucket_backups_go_beside_the_database() {
    let config = load(&with_variables(&[("SIMPLE_BACKUP_DATABASE_PATH", "/data/app.db")]));
    let expected = StoreChoice::BesideDatabase(PathBuf::from("/data/app.db.backups"));
    assert_eq!(config.expect("valid").store, expected);
    let config = load(&with_variables(&[("SIMPLE_BACKUP_STORE_URL", "file:///srv/my backups")]));
    let expected = StoreChoice::Folder(PathBuf::from("/srv/my backups"));
    assert_eq!(config.expect("valid").store, expected);
}

/// Else a misspelt bucket would quietly end on the disk that it is to protect from.
#[test]
fn an_endpoint_or_a_key_without_a_bucket_is_refused() {
    for variable in ["MINIO_ENDPOINT", "MINIO_ACCESS_KEY"] {
        let problems = problems(&with_variables(&[(variable, "x")]));
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].contains("MINIO_BUCKET"), "{problems:?}");
    }
}

/// The client would panic over some of these, and send passwords to the log with others.
#[test]
fn what_is_no_address_no_bucket_and_no_header_is_refused() {
    let endpoints = [
        "http://",
        "http://h:99999",
        "h:80x",
        ":9000",
        "http://[::1",
        "h/path",
        "h?x",
        "h ",
        "h\r",
        "h\\",
        "http:///h",
    ];
    let passwords = ["http://user:hush@h:9000", "user:hush@h"];
    for endpoint in endpoints.into_iter().chain(passwords) {
        let input = with_variables(&[("MINIO_BUCKET", "b"), ("MINIO_ENDPOINT", endpoint)]);
        let told = problems(&input);
        assert!(told[0].contains("store.endpoint = "), "{endpoint}: {told:?}");
        assert!(!told[0].contains("hush"), "{told:?}");
    }
    let told = problems(&with_variables(&[("MINIO_BUCKET", "b"), ("MINIO_PREFIX", "a//b")]));
    assert!(told[0].starts_with("MINIO_PREFIX: \"a//b\""), "{told:?}");
    for bucket in ["b?x", "b/c", "..", "a b", "ü"] {
        problems(&with_variables(&[("MINIO_BUCKET", bucket)]));
    }
    for (name, value) in [
        ("MINIO_SECRET_KEY", "two\nlines"),
        ("MINIO_REGION", "eu\n"),
        ("AWS_ACCESS_KEY_ID", "key\n"),
        ("AWS_ENDPOINT_URL", "http://h:99999"),
        ("SIMPLE_BACKUP_HTTP_TOKEN", "tök"),
        ("SIMPLE_BACKUP_HTTP_TOKEN", "trail "),
        ("SIMPLE_BACKUP_SHUTDOWN_BACKUP_TIMEOUT", "0s"),
    ] {
        let told = problems(&with_variables(&[(name, value)]));
        assert!(told[0].starts_with(name), "{name}: {told:?}");
    }
    let sound = ["h", "h:9000", "http://127.0.0.1:9000/", "https://[::1]:9000", "minio"];
    for endpoint in sound {
        let input = with_variables(&[("MINIO_BUCKET", "b"), ("MINIO_ENDPOINT", endpoint)]);
        load(&input).unwrap_or_else(|told| panic!("{endpoint}: {told}"));
    }
}

#[test]
fn half_a_pair_of_keys_is_refused() {
    let problems =
        problems(&with_variables(&[("MINIO_BUCKET", "mybucket"), ("MINIO_ACCESS_KEY", "key")]));
    assert!(problems[0].contains("go together"), "{problems:?}");
}

#[test]
fn all_problems_are_told_at_once_with_their_places() {
    let machine = Machine::new();
    let file = "[backup]\nkeep = 0\nschedule = \"every hour\"\nkep = 3\n\n[databse]\npath = \"x\"\n\
        [http]\naddress = 8080\n";
    let input = with_file(
        &machine,
        file,
        &[
            ("SIMPLE_BACKUP_RESTORE_TIMEOUT", "60"),
            ("SIMPLE_BACKUP_BACKUP_KEPT", "3"),
            ("MINIO_USE_SSL", "maybe"),
        ],
    );
    let problems = problems(&input);
    let file = machine.path("test.toml").display().to_string();
    for (place, text) in [
        (format!("{file}:2: "), "backup.keep = 0 is not accepted; give a whole number from 1"),
        (format!("{file}:3: "), "give a cron expression with seconds"),
        (format!("{file}:4: "), "unknown key \"backup.kep\"; known are backup.enabled"),
        (format!("{file}:6: "), "unknown key \"databse\"; known are backup, retention, database"),
        (format!("{file}:9: "), "http.address = 8080 is not accepted; give an address"),
        ("SIMPLE_BACKUP_RESTORE_TIMEOUT: ".to_owned(), "give a duration such as \"30s\""),
        ("SIMPLE_BACKUP_BACKUP_KEPT: ".to_owned(), "unknown variable"),
        ("MINIO_USE_SSL: ".to_owned(), "give true or false"),
    ] {
        let is_told =
            problems.iter().any(|problem| problem.starts_with(&place) && problem.contains(text));
        assert!(is_told, "{place}{text} in {problems:#?}");
    }
    assert_eq!(problems.len(), 8, "{problems:#?}");
}

#[test]
fn what_is_no_toml_is_told_with_its_line() {
    let machine = Machine::new();
    let problems = problems(&with_file(&machine, "[backup]\nkeep = = 3\n", &[]));
    assert!(problems[0].contains("test.toml:2: not TOML"), "{problems:?}");
}

#[test]
fn a_named_file_that_is_missing_is_refused() {
    let mut input = with_variables(&[]);
    input.flags.config = Some(PathBuf::from("/nowhere/config.toml"));
    let problems = problems(&input);
    assert!(problems[0].starts_with("/nowhere/config.toml: file cannot be read"), "{problems:?}");
}

#[test]
fn durations_have_their_units() {
    let accepted = [("500ms", 500), ("30s", 30_000), ("2m", 120_000), ("1h", 3_600_000)];
    for (text, millis) in accepted {
        let config = load(&with_variables(&[("SIMPLE_BACKUP_BACKUP_TIMEOUT", text)]));
        assert_eq!(config.expect(text).backup_timeout, Duration::from_millis(millis));
    }
    for text in ["", "30", "-1s", "1.5s", "25h", "1d", "99999999999999999999s"] {
        problems(&with_variables(&[("SIMPLE_BACKUP_BACKUP_TIMEOUT", text)]));
    }
}

#[test]
fn jitter_is_a_duration_and_off_by_default() {
    let jitter = |text| load(&with_variables(&[("SIMPLE_BACKUP_SCHEDULE_JITTER", text)]));
    assert_eq!(Config::default().jitter, Duration::ZERO);
    for (text, secs) in [("0s", 0), ("90s", 90), ("15m", 900), ("24h", 24 * 3600)] {
        assert_eq!(jitter(text).expect(text).jitter, Duration::from_secs(secs));
    }
    let machine = Machine::new();
    let input = with_file(&machine, "[schedule]\njitter = \"5m\"\n", &[]);
    assert_eq!(load(&input).expect("valid").jitter, Duration::from_mins(5));
    let told = problems(&with_variables(&[("SIMPLE_BACKUP_SCHEDULE_JITTER", "25h")]));
    let expected = "SIMPLE_BACKUP_SCHEDULE_JITTER: schedule.jitter = \"25h\" is not accepted; give \
                    a duration such as \"30s\", \"2m\" or \"1h\", up to \"24h\"";
    assert_eq!(told, [expected]);
}

#[test]
fn a_secret_comes_from_a_file_and_not_from_two_places() {
    let machine = Machine::new();
    let path = machine.path("secret");
    std::fs::write(&path, "hush\n").expect("written");
    let path = path.display().to_string();
    for name in ["MINIO_SECRET_KEY", "SIMPLE_BACKUP_STORE_SECRET_KEY"] {
        let file = format!("{name}_FILE");
        let pair = [("MINIO_BUCKET", "b"), ("MINIO_ACCESS_KEY", "k"), (&*file, &*path)];
        let config = load(&with_variables(&pair)).expect("valid");
        let StoreChoice::S3(settings) = &config.store else { panic!("{:?}", config.store) };
        assert_eq!(settings.secret_key.as_ref().expect("set").expose(), "hush", "{name}");

        let both =
            [("MINIO_BUCKET", "b"), ("MINIO_ACCESS_KEY", "k"), (&*file, &*path), (name, "x")];
        assert!(problems(&with_variables(&both))[0].contains("set one of the two"));
    }
    let missing = [("SIMPLE_BACKUP_HTTP_TOKEN_FILE", "/nowhere/token")];
    assert!(problems(&with_variables(&missing))[0].contains("\"/nowhere/token\" cannot be read"));
}

#[test]
fn a_command_is_a_list_or_words() {
    for text in ["./server --port 3000", r#"["./server", "--port", "3000"]"#] {
        let config = load(&with_variables(&[("SIMPLE_BACKUP_APP_COMMAND", text)])).expect("valid");
        assert_eq!(config.command, ["./server", "--port", "3000"]);
    }
    let mut input = with_variables(&[("SIMPLE_BACKUP_APP_COMMAND", "other")]);
    input.flags.command = vec!["./server".to_owned()];
    assert_eq!(load(&input).expect("valid").command, ["./server"]);
}

#[test]
fn no_secret_is_shown() {
    let secrets = [
        ("MINIO_BUCKET", "mybucket"),
        ("MINIO_ACCESS_KEY", "hush"),
        ("MINIO_SECRET_KEY", "hush"),
        ("AWS_SESSION_TOKEN", "hush"),
        ("SIMPLE_BACKUP_HTTP_TOKEN", "hush"),
        ("SIMPLE_BACKUP_SNITCH_URL", "https://hush"),
        ("SIMPLE_BACKUP_WEBHOOK_URL", "https://h/hush"),
        ("SIMPLE_BACKUP_WEBHOOK_HEADER", "Authorization: Bearer hush"),
    ];
    let config = load(&with_variables(&secrets)).expect("valid");
    assert!(!format!("{config:?}").contains("hush"), "{config:?}");
    let wrong = [("SIMPLE_BACKUP_SNITCH_URL", "hush://hush")];
    let problems = problems(&with_variables(&wrong));
    assert!(!problems[0].contains("hush"), "{problems:?}");
}

#[test]
fn who_is_told_and_what_runs_is_read_and_refused() {
    let config = load(&with_variables(&[
        ("SIMPLE_BACKUP_SNITCH_KIND", "healthchecks"),
        ("SIMPLE_BACKUP_WEBHOOK_EVENTS", "all"),
        ("SIMPLE_BACKUP_HOOKS_BEFORE_BACKUP", "./pause --now"),
        ("SIMPLE_BACKUP_HOOKS_AFTER_BACKUP", r#"["/bin/sh", "-c", "a b"]"#),
        ("SIMPLE_BACKUP_HOOKS_TIMEOUT", "2m"),
    ]))
    .expect("valid");
    assert_eq!(config.snitch_kind, Some(SnitchKind::Healthchecks));
    assert_eq!(config.webhook_events, WebhookEvents::All);
    assert_eq!(config.before_backup, ["./pause", "--now"]);
    assert_eq!(config.after_backup, ["/bin/sh", "-c", "a b"]);
    assert_eq!(config.hook_timeout, Duration::from_mins(2));
    for (name, value) in [
        ("SIMPLE_BACKUP_SNITCH_KIND", "pagerduty"),
        ("SIMPLE_BACKUP_WEBHOOK_EVENTS", "some"),
        ("SIMPLE_BACKUP_WEBHOOK_URL", "example.org/x"),
        ("SIMPLE_BACKUP_WEBHOOK_HEADER", "no colon"),
        ("SIMPLE_BACKUP_WEBHOOK_HEADER", "a b: c"),
        ("SIMPLE_BACKUP_WEBHOOK_HEADER", "Name:"),
        ("SIMPLE_BACKUP_HOOKS_TIMEOUT", "0s"),
    ] {
        let told = problems(&with_variables(&[(name, value)]));
        assert!(told[0].starts_with(name), "{name}: {told:?}");
    }
}

#[test]
fn a_wrong_configuration_starts_nothing_and_exits_with_2() {
    let machine = Machine::new();
    let mut command = machine.simplebackup();
    command.env("SIMPLE_BACKUP_BACKUP_KEEP", "none");
    command.args(["run", "--simple-backup", "--schedule", "hourly", "--", "touch", "started"]);
    let output = crate::support::process::run(&mut command);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(errors.contains("SIMPLE_BACKUP_BACKUP_KEEP: ") && errors.contains("--schedule: "));
    assert!(!machine.path("started").exists());
    for words in [&["--no-such-flag"][..], &["restore", "--from", "x", "--at", "1"], &[]] {
        assert_eq!(machine.run(words).status.code(), Some(2), "{words:?}");
    }
}
