//! The commands that bring a backup back, as the page shows them: ours, and those of stock tools.
//!
//! Pure. `{name}` stands for the name of the backup, so that they are said once for all.

use serde::Serialize;
use simplebackup_engine::store::{BackupStore, StoreKind};

use super::Surroundings;

/// A way to bring a backup back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Recipe {
    pub(super) title: &'static str,
    pub(super) commands: String,
}

/// What the bytes of a backup are, before `gunzip` is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Plain,
    /// Encrypted with age. Where no identity is configured, `key.txt` stands for the file with it.
    Encrypted,
}

/// Returns the ways for backups of `database` in `store`.
pub(super) fn recipes(
    database: &str,
    store: &BackupStore,
    surroundings: &Surroundings,
    form: Form,
) -> Vec<Recipe> {
    let (identity, decrypt) = match (form, &surroundings.identity_file) {
        (Form::Plain, _) => ("", String::new()),
        // Ours find it by themselves.
        (Form::Encrypted, Some(path)) => ("", format!("age -d -i {}", quoted(path))),
        (Form::Encrypted, None) => (" --identity key.txt", "age -d -i key.txt".to_owned()),
    };
    let location = store.location();
    let url = quoted(location.trim_end_matches('/'));
    let pipe = if decrypt.is_empty() { String::new() } else { format!("{decrypt} | ") };
    let database = quoted(database);
    let look = format!(
        "simplebackup restore --store {url} --from {{name}} --to /tmp/restored.db{identity}"
    );
    let place = format!(
        "simplebackup restore --store {url} --database {database} --from {{name}} --force{identity}"
    );
    let archive = quoted(&format!("{location}{{name}}"));
    let unpack = match (store.kind(), &surroundings.endpoint) {
        (StoreKind::Folder, _) => {
            let path = archive.replacen("file://", "", 1);
            match form {
                Form::Plain => format!("gunzip -c {path} > /tmp/restored.db"),
                Form::Encrypted => {
                    format!("{decrypt} {path} | gunzip > /tmp/restored.db")
                }
            }
        }
        (StoreKind::S3, None) => {
            format!("aws s3 cp {archive} - | {pipe}gunzip > /tmp/restored.db")
        }
        (StoreKind::S3, Some(endpoint)) => {
            let endpoint = quoted(endpoint);
            format!(
                "aws --endpoint-url {endpoint} s3 cp {archive} - | {pipe}gunzip > /tmp/restored.db"
            )
        }
    };
    let check = "sqlite3 /tmp/restored.db 'PRAGMA integrity_check'";
    vec![
        Recipe { title: "To a new file, to look at", commands: look },
        Recipe { title: "In place of the database; stop the service first", commands: place },
        Recipe {
            title: "With stock tools, to a new file; the check must say ok",
            commands: format!("{unpack}\n{check}"),
        },
    ]
}

/// Returns a word as a shell takes it.
fn quoted(word: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "/:._-+=@%{}".contains(letter);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::memory::InMemory;

    use super::*;

    fn store(kind: StoreKind, root: &str, prefix: &str) -> BackupStore {
        BackupStore::over(Arc::new(InMemory::new()), kind, root, prefix)
    }

    fn commands(store: &BackupStore, endpoint: Option<&str>) -> Vec<String> {
        let endpoint = endpoint.map(str::to_owned);
        let surroundings = Surroundings { endpoint, ..Surroundings::default() };
        let recipes = recipes("/var/lib/app/database.db", store, &surroundings, Form::Plain);
        recipes.into_iter().map(|recipe| recipe.commands).collect()
    }

    #[test]
    fn a_bucket_is_read_with_the_aws_command() {
        let bucket = store(StoreKind::S3, "s3://mybucket", "backups");
        assert_eq!(
            commands(&bucket, None),
            [
                "simplebackup restore --store s3://mybucket/backups --from {name} \
                 --to /tmp/restored.db",
                "simplebackup restore --store s3://mybucket/backups \
                 --database /var/lib/app/database.db --from {name} --force",
                "aws s3 cp s3://mybucket/backups/{name} - | gunzip > /tmp/restored.db\n\
                 sqlite3 /tmp/restored.db 'PRAGMA integrity_check'",
            ]
        );
        let other = &commands(&bucket, Some("http://minio:9000"))[2];
        assert!(other.starts_with("aws --endpoint-url http://minio:9000 s3 cp s3://"), "{other}");
    }

    #[test]
    fn an_encrypted_backup_wants_its_key() {
        let place = Surroundings::default();
        for (store, unpack) in [
            (
                store(StoreKind::S3, "s3://mybucket", "backups"),
                "aws s3 cp s3://mybucket/backups/{name} - | age -d -i key.txt | gunzip > ",
            ),
            (
                store(StoreKind::Folder, "file:///srv", ""),
                "age -d -i key.txt /srv/{name} | gunzip > ",
            ),
        ] {
            let recipes = recipes("app.db", &store, &place, Form::Encrypted);
            assert!(recipes[0].commands.ends_with(" --identity key.txt"), "{recipes:?}");
            assert!(recipes[1].commands.ends_with(" --identity key.txt"), "{recipes:?}");
            assert!(recipes[2].commands.starts_with(unpack), "{recipes:?}");
        }
        let known = Surroundings { identity_file: Some("/etc/my key".to_owned()), ..place };
        let folder = store(StoreKind::Folder, "file:///srv", "");
        let recipes = recipes("app.db", &folder, &known, Form::Encrypted);
        assert!(!recipes[0].commands.contains("--identity"), "{recipes:?}");
        assert!(recipes[2].commands.starts_with("age -d -i '/etc/my key' /srv/"), "{recipes:?}");
    }

    #[test]
    fn what_a_shell_would_take_apart_is_quoted() {
        let folder = store(StoreKind::Folder, "file:///srv/it's here", "");
        let commands = commands(&folder, None);
        assert!(commands[0].contains(r"--store 'file:///srv/it'\''s here' --from"), "{commands:?}");
        let path = r"gunzip -c '/srv/it'\''s here/{name}' > /tmp/restored.db";
        assert!(commands[2].starts_with(path), "{commands:?}");
        for (word, expect) in [("", "''"), ("a;b", "'a;b'"), ("$(x)", "'$(x)'"), ("a", "a")] {
            assert_eq!(quoted(word), expect, "{word}");
        }
    }
}
