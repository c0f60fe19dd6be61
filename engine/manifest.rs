//! What a backup says about itself: what it holds, where it came from, who may read it.
//!
//! It travels as JSON in the gzip header, which every store and every copy keeps, and as metadata
//! of the object, where people's tools show it. Everything is read back from the header alone. An
//! archive without one, or one of an older version, is as good a backup; less is known about it.
//! Of an encrypted backup the header is encrypted too, and the metadata tells nothing of what it holds.

use serde::{Deserialize, Serialize};

use crate::check::TableRows;
use crate::instance::Instance;
use crate::key::{BackupKey, Form};
use crate::snapshot::{JournalMode, Owner};
use crate::text;

/// A database that has shrunk below one part in so many is taken for emptied by mistake.
const SHRUNK_BELOW_ONE_IN: u64 = 10;

/// So is one with fewer than one row in so many and less than half the bytes: an app that finds no
/// database makes its tables anew.
const ROWS_BELOW_ONE_IN: u64 = 100;

/// The manifest of one backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The size of the database in bytes.
    pub database_bytes: u64,
    /// The journal mode of the source; the database file itself carries it too.
    pub journal_mode: JournalMode,
    /// Permissions of the source, given to the restored file where we may.
    pub owner: Owner,
    /// What the database holds; nothing in archives of version 0.1.0 and before.
    #[serde(flatten)]
    pub contents: Option<Contents>,
    /// Which installation made it.
    pub instance: Option<Instance>,
    /// The timestamp of the backup before, if it could not be read and this one could therefore
    /// not be compared with it: whoever comes next, after a restart too, compares with that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uncompared_with: Option<u64>,
    /// For whom it is encrypted: public keys; none of a backup that is not. The same database for
    /// others is not the same backup.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recipients: Vec<String>,
}

/// What a database holds, in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Contents {
    /// Its tables, those of virtual tables included, SQLite's own not.
    pub tables: u64,
    /// The rows of all tables that can be counted without the app's own modules.
    pub rows: u64,
    /// SHA-256 of the database file, in hexadecimal: `gunzip -c … | sha256sum`.
    pub sha256: String,
}

/// How much a database holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// Its tables.
    pub tables: u64,
    /// Their rows, of those that can be counted.
    pub rows: u64,
}

impl Counted {
    /// Adds up what was counted.
    #[must_use]
    pub fn of(tables: &[TableRows]) -> Self {
        let rows = tables.iter().filter_map(|table| table.rows).sum();
        Self { tables: tables.len() as u64, rows }
    }

    /// Returns `12 tables, 3456 rows`.
    #[must_use]
    pub fn in_words(self) -> String {
        let Self { tables, rows } = self;
        let ending = |count| if count == 1 { "" } else { "s" };
        format!("{tables} table{}, {rows} row{}", ending(tables), ending(rows))
    }
}

impl Contents {
    /// Returns the numbers without the hash.
    #[must_use]
    pub fn counted(&self) -> Counted {
        Counted { tables: self.tables, rows: self.rows }
    }

    /// Puts together what was counted and what was hashed.
    #[must_use]
    pub fn of(Counted { tables, rows }: Counted, sha256: String) -> Self {
        Self { tables, rows, sha256 }
    }
}

impl Manifest {
    /// Returns the entries for the metadata of an object of this form. It is not encrypted, so that of
    /// an encrypted backup it holds the `instance` alone.
    #[must_use]
    pub fn entries_of(&self, form: Form) -> Vec<(String, String)> {
        let mut entries = self.entries();
        if form == Form::Encrypted {
            entries.retain(|(name, _)| name == "instance");
        }
        entries
    }

    /// Returns the name and the text of each entry for a plain object's metadata: `database-bytes`,
    /// `journal-mode`, `tables`, `rows`, `sha256`, `instance`, and `uncompared-with` if it applies.
    #[must_use]
    pub fn entries(&self) -> Vec<(String, String)> {
        let fields = match serde_json::to_value(self) {
            Ok(serde_json::Value::Object(fields)) => fields,
            // A struct of numbers and texts is always an object.
            _ => serde_json::Map::new(),
        };
        let entries = fields.into_iter().filter_map(|(name, value)| {
            let text = match value {
                serde_json::Value::String(text) => text,
                serde_json::Value::Number(number) => number.to_string(),
                // Permissions mean nothing to a person who looks at a store.
                _ => return None,
            };
            Some((name.replace('_', "-"), text))
        });
        entries.collect()
    }

    /// Returns what is wrong with the metadata of an object of this form, in words; entries of others
    /// are not ours to judge.
    #[must_use]
    pub fn metadata_fault(&self, metadata: &[(String, String)], form: Form) -> Option<String> {
        let has = |name: &str| metadata.iter().any(|(there, _)| there.eq_ignore_ascii_case(name));
        let (lost, changed): (Vec<_>, Vec<_>) = self
            .entries_of(form)
            .into_iter()
            .filter(|entry| !metadata.iter().any(|there| is_same_entry(there, entry)))
            .map(|(name, _)| name)
            .partition(|name| !has(name));
        let part = |what: &str, names: &[String]| {
            (!names.is_empty()).then(|| format!("{what} {}", names.join(", ")))
        };
        let parts = [part("lacks", &lost), part("differs in", &changed)];
        let parts: Vec<_> = parts.into_iter().flatten().collect();
        (!parts.is_empty()).then(|| parts.join(" and "))
    }

    /// Returns what was lost between the backup `before` and this one, in words, if it is so much
    /// that a mistake is likelier than a change: all tables, nine tenths of the bytes, or nearly all
    /// rows and half of the bytes.
    #[must_use]
    pub fn loss_since(&self, before: &Self, before_key: BackupKey) -> Option<String> {
        let tables = |manifest: &Self| manifest.contents.as_ref().map(|contents| contents.tables);
        if let (Some(0), Some(gone @ 1..)) = (tables(self), tables(before)) {
            let (all, them) = if gone == 1 { ("", "table is") } else { ("all ", "tables are") };
            return Some(format!("{all}the {gone} {them} gone that {before_key} has"));
        }
        let rows = |manifest: &Self| manifest.contents.as_ref().map(|contents| contents.rows);
        if let (Some(left), Some(rows)) = (rows(self), rows(before))
            && left.saturating_mul(ROWS_BELOW_ONE_IN) < rows
            && self.database_bytes.saturating_mul(2) < before.database_bytes
        {
            return Some(format!("of {rows} rows in {before_key} only {left} are left"));
        }
        let is_shrunk =
            self.database_bytes.saturating_mul(SHRUNK_BELOW_ONE_IN) < before.database_bytes;
        is_shrunk.then(|| {
            format!(
                "the database shrank to {} from {} in {before_key}",
                text::size(self.database_bytes),
                text::size(before.database_bytes)
            )
        })
    }

    /// Returns the same for a backup before of which nothing is known but the size of its archive: a
    /// database is no smaller than what it packs to, so that nine tenths of its bytes are surely gone.
    #[must_use]
    pub fn loss_since_archive(&self, archive_bytes: u64, before_key: BackupKey) -> Option<String> {
        let is_shrunk = self.database_bytes.saturating_mul(SHRUNK_BELOW_ONE_IN) < archive_bytes;
        is_shrunk.then(|| {
            format!(
                "the database shrank to {}, and {before_key} has {} even packed",
                text::size(self.database_bytes),
                text::size(archive_bytes)
            )
        })
    }
}

/// Some stores change the case of names.
fn is_same_entry(one: &(String, String), other: &(String, String)) -> bool {
    one.0.eq_ignore_ascii_case(&other.0) && one.1 == other.1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(database_bytes: u64, tables: Option<u64>) -> Manifest {
        Manifest {
            database_bytes,
            journal_mode: JournalMode::Wal,
            owner: Owner { mode: 0o600, uid: 1, gid: 2 },
            contents: tables.map(|tables| Contents { tables, ..Contents::default() }),
            instance: None,
            uncompared_with: None,
            recipients: Vec::new(),
        }
    }

    #[test]
    fn only_a_loss_that_looks_like_a_mistake_is_one() {
        let key = BackupKey::parse("db-backup-5.db.gz").expect("a valid name");
        let cases = [
            (
                (8192, Some(2)),
                (4096, Some(0)),
                Some("all the 2 tables are gone that db-backup-5.db.gz has"),
            ),
            (
                (8192, Some(1)),
                (4096, Some(0)),
                Some("the 1 table is gone that db-backup-5.db.gz has"),
            ),
            (
                (100_000, Some(2)),
                (9_999, Some(2)),
                Some("the database shrank to 10.0KB from 100.0KB in db-backup-5.db.gz"),
            ),
            ((100_000, Some(2)), (10_000, Some(1)), None),
            (
                (100_000, None),
                (9_999, None),
                Some("the database shrank to 10.0KB from 100.0KB in db-backup-5.db.gz"),
            ),
            ((8192, None), (4096, Some(0)), None),
            ((4096, Some(0)), (4096, Some(0)), None),
            ((4096, Some(0)), (8192, Some(3)), None),
        ];
        for ((bytes, tables), (bytes_after, tables_after), expect) in cases {
            let (before, after) = (manifest(bytes, tables), manifest(bytes_after, tables_after));
            let loss = after.loss_since(&before, key);
            assert_eq!(
                loss.as_deref(),
                expect,
                "{bytes} {tables:?} → {bytes_after} {tables_after:?}"
            );
        }
    }

    #[test]
    fn an_app_that_made_its_tables_anew_has_lost_its_rows() {
        let key = BackupKey::parse("db-backup-5.db.gz").expect("a valid name");
        let of = |bytes, rows| {
            let mut manifest = manifest(bytes, Some(8));
            manifest.contents = Some(Contents { tables: 8, rows, ..Contents::default() });
            manifest
        };
        let before = of(188_000, 3000);
        let cases = [
            (41_000, 0, Some("of 3000 rows in db-backup-5.db.gz only 0 are left")),
            (41_000, 29, Some("of 3000 rows in db-backup-5.db.gz only 29 are left")),
            (41_000, 30, None),
            // Rows went, their space did not: a queue that was worked off, say.
            (94_000, 0, None),
        ];
        for (bytes, rows, expect) in cases {
            let loss = of(bytes, rows).loss_since(&before, key);
            assert_eq!(loss.as_deref(), expect, "{bytes} bytes, {rows} rows");
        }
        assert_eq!(of(4096, 0).loss_since(&of(8192, 0), key), None);
    }

    #[test]
    fn a_manifest_of_the_first_version_is_read() {
        let old =
            r#"{"database_bytes":8192,"journal_mode":"wal","owner":{"mode":384,"uid":1,"gid":2}}"#;
        let read: Manifest = serde_json::from_str(old).expect("still valid");
        assert_eq!(read, manifest(8192, None));
    }

    #[test]
    fn metadata_is_held_against_the_header_entry_by_entry() {
        let manifest = manifest(8192, Some(3));
        let sound = manifest.entries();
        let mut copied: Vec<_> =
            sound.iter().map(|(name, text)| (name.to_uppercase(), text.clone())).collect();
        copied.push(("added-by-a-tool".to_owned(), "x".to_owned()));
        let mut changed = sound.clone();
        changed.retain(|(name, _)| name != "tables");
        for (_, text) in changed.iter_mut().filter(|(name, _)| name == "rows") {
            *text = "7".to_owned();
        }
        let cases = [
            (sound, None),
            (copied, None),
            (changed, Some("lacks tables and differs in rows")),
            (Vec::new(), Some("lacks database-bytes, journal-mode, rows, sha256, tables")),
        ];
        for (metadata, expect) in cases {
            assert_eq!(
                manifest.metadata_fault(&metadata, Form::Plain).as_deref(),
                expect,
                "{metadata:?}"
            );
        }
    }

    #[test]
    fn entries_are_plain_texts_and_tell_nothing_of_users() {
        let mut manifest = manifest(8192, Some(3));
        manifest.instance = Instance::parse("0123456789abcdef");
        let entries = manifest.entries();
        let entries: Vec<_> = entries.iter().map(|(name, text)| (&**name, &**text)).collect();
        assert_eq!(
            entries,
            [
                ("database-bytes", "8192"),
                ("instance", "0123456789abcdef"),
                ("journal-mode", "wal"),
                ("rows", "0"),
                ("sha256", ""),
                ("tables", "3"),
            ]
        );
    }
    #[test]
    fn the_metadata_of_an_encrypted_backup_tells_nothing_of_what_it_holds() {
        let mut manifest = manifest(8192, Some(3));
        manifest.instance = Instance::parse("0123456789abcdef");
        manifest.recipients = vec!["age1".to_owned()];
        let entries = manifest.entries_of(Form::Encrypted);
        assert_eq!(entries, [("instance".to_owned(), "0123456789abcdef".to_owned())]);
        let fault = |metadata| manifest.metadata_fault(metadata, Form::Encrypted);
        assert_eq!(fault(&entries), None);
        assert_eq!(fault(&[]).as_deref(), Some("lacks instance"));
    }

    #[test]
    fn the_size_of_an_archive_alone_shows_a_loss_that_is_one_for_sure() {
        let key = BackupKey::parse("db-backup-5.db.gz.age").expect("a valid name");
        let loss = |bytes| manifest(bytes, None).loss_since_archive(100_000, key);
        assert_eq!(loss(10_000), None);
        let words =
            "the database shrank to 10.0KB, and db-backup-5.db.gz.age has 100.0KB even packed";
        assert_eq!(loss(9_999).as_deref(), Some(words));
    }
}
