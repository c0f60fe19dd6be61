//! A restored database compared with the one that was there: rows table by table, in as many lines
//! as a person reads. Pure. The same number of rows is not the same rows: it says no more than that.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use simplebackup_engine::check::TableRows;
use simplebackup_engine::manifest::{Contents, Counted, Manifest};
use simplebackup_engine::present::{Held, Present};
use simplebackup_engine::text;

/// How many tables that differ are named; the rest is counted.
const NAMED_MAX: usize = 20;

/// How a table differs, by what alarms most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Gone,
    Fewer,
    Unknown,
    New,
    More,
}

/// A table that differs. Ordered by kind, then by how much, then by name.
type Difference<'a> = (Kind, Reverse<u64>, &'a str, String);

/// Returns the lines about `before`, which was at the path or still is, and `after`.
pub(super) fn compared(before: &Present, after: &Present) -> Vec<String> {
    match (before, after) {
        (Present::Held(before), Present::Held(after)) => {
            let mut lines = totals(before, (after.bytes, Some(counted(after))));
            lines.push(format!(
                "  schema version: {} -> {}, user_version: {} -> {}",
                before.schema_version,
                after.schema_version,
                before.user_version,
                after.user_version
            ));
            lines.extend(by_table(before, after));
            lines
        }
        (before, Present::Held(after)) => {
            let mut lines = uncompared(before);
            lines.push(format!(
                "  restored: {}, {}, schema version {}, user_version {}",
                text::size(after.bytes),
                counted(after).in_words(),
                after.schema_version,
                after.user_version
            ));
            lines
        }
        (_, Present::Missing) => vec!["  nothing to compare: it is gone again".to_owned()],
        (_, Present::Unreadable { reason, .. }) => {
            vec![format!("  nothing to compare: the restored one could not be read: {reason}")]
        }
    }
}

/// Returns the lines about `before` and a backup of which only its header is known.
pub(super) fn compared_with_header(before: &Present, manifest: Option<&Manifest>) -> Vec<String> {
    let Some(manifest) = manifest else {
        return vec!["  the backup says nothing about itself: other tools made it".to_owned()];
    };
    let counted = manifest.contents.as_ref().map(Contents::counted);
    if let Present::Held(before) = before {
        return totals(before, (manifest.database_bytes, counted));
    }
    let mut lines = uncompared(before);
    let rows = counted.map_or_else(|| "rows not known".to_owned(), Counted::in_words);
    lines.push(format!("  the backup: {}, {rows}", text::size(manifest.database_bytes)));
    lines
}

/// Returns what is at a path, in words: `8.2MB, 12 tables, 3456 rows`.
pub(super) fn in_words(present: &Present) -> String {
    match present {
        Present::Missing => "nothing".to_owned(),
        Present::Held(held) => {
            let damage = held.damage.as_ref().map(|words| format!(", damaged: {}", plain(words)));
            format!(
                "{}, {}{}",
                text::size(held.bytes),
                counted(held).in_words(),
                damage.unwrap_or_default()
            )
        }
        Present::Unreadable { bytes, reason } => {
            format!("{}, which cannot be read: {}", text::size(*bytes), plain(reason))
        }
    }
}

fn counted(held: &Held) -> Counted {
    Counted::of(&held.tables)
}

fn totals(before: &Held, (bytes, after): (u64, Option<Counted>)) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(words) = &before.damage {
        lines.push(format!("  the database there is damaged: {}", plain(words)));
    }
    lines.push(format!("  size: {} -> {}", text::size(before.bytes), text::size(bytes)));
    if let Some(after) = after {
        let before = counted(before);
        lines.push(format!("  tables: {} -> {}", before.tables, after.tables));
        lines.push(format!("  rows: {} -> {}", before.rows, after.rows));
    }
    lines
}

fn uncompared(before: &Present) -> Vec<String> {
    match before {
        Present::Missing => vec!["  there was nothing before".to_owned()],
        other => vec![format!("  before: {}", in_words(other))],
    }
}

fn by_table(before: &Held, after: &Held) -> Vec<String> {
    let mut tables: BTreeMap<&str, [Option<&TableRows>; 2]> = BTreeMap::new();
    for (side, held) in [before, after].into_iter().enumerate() {
        for table in &held.tables {
            tables.entry(&table.table).or_default()[side] = Some(table);
        }
    }
    let count = tables.len();
    let mut differences: Vec<_> =
        tables.into_iter().filter_map(|(name, sides)| difference(name, sides)).collect();
    differences.sort();
    let same = count - differences.len();
    let named = differences.iter().take(NAMED_MAX);
    let mut lines: Vec<_> =
        named.map(|(_, _, name, words)| format!("  {}: {words}", plain(name))).collect();
    let further = differences.len() - lines.len();
    if further > 0 {
        lines.push(format!("  and {further} further tables differ"));
    }
    if same > 0 {
        let (tables, have) = if same == 1 { ("table", "has") } else { ("tables", "have") };
        lines.push(format!("  {same} {tables} {have} as many rows as before"));
    }
    lines
}

fn difference<'a>(name: &'a str, sides: [Option<&TableRows>; 2]) -> Option<Difference<'a>> {
    let words = |rows: Option<u64>| match rows {
        Some(1) => "1 row".to_owned(),
        Some(rows) => format!("{rows} rows"),
        None => "uncountable rows".to_owned(),
    };
    let (kind, by, words) = match sides.map(|side| side.map(|table| table.rows)) {
        [Some(Some(before)), Some(Some(after))] if before == after => return None,
        [Some(Some(before)), Some(Some(after))] if after < before => {
            let by = before - after;
            (Kind::Fewer, by, format!("{before} -> {} (-{by})", words(Some(after))))
        }
        [Some(Some(before)), Some(Some(after))] => {
            let by = after - before;
            (Kind::More, by, format!("{before} -> {} (+{by})", words(Some(after))))
        }
        [Some(before), Some(after)] => {
            (Kind::Unknown, 0, format!("{} -> {}", words(before), words(after)))
        }
        [Some(rows), None] => (Kind::Gone, rows.unwrap_or(0), format!("{} -> gone", words(rows))),
        [None, Some(rows)] => (Kind::New, rows.unwrap_or(0), format!("new -> {}", words(rows))),
        [None, None] => return None,
    };
    Some((kind, Reverse(by), name, words))
}

/// Returns a text of the database's without what could move the cursor of a terminal.
fn plain(text: &str) -> String {
    let safe = |letter: char| {
        let escaped: String = letter.escape_default().collect();
        if letter.is_control() { escaped } else { letter.to_string() }
    };
    text.chars().map(safe).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(tables: &[(&str, Option<u64>)]) -> Held {
        let table = |&(name, rows): &(&str, _)| TableRows { table: name.to_owned(), rows };
        let tables = tables.iter().map(table).collect();
        Held { bytes: 8192, tables, schema_version: 4, user_version: 2, damage: None }
    }

    #[test]
    fn what_alarms_most_comes_first() {
        let before = held(&[
            ("few", Some(9)),
            ("gone", Some(1)),
            ("many", Some(500)),
            ("odd\u{1b}[2J\n", Some(1)),
            ("same", Some(3)),
            ("virtual", None),
        ]);
        let after = held(&[
            ("few", Some(8)),
            ("many", Some(1)),
            ("new", Some(7)),
            ("odd\u{1b}[2J\n", Some(2)),
            ("same", Some(3)),
            ("virtual", Some(4)),
        ]);
        let expect = [
            "  size: 8.2KB -> 8.2KB",
            "  tables: 6 -> 6",
            "  rows: 514 -> 25",
            "  schema version: 4 -> 4, user_version: 2 -> 2",
            "  gone: 1 row -> gone",
            "  many: 500 -> 1 row (-499)",
            "  few: 9 -> 8 rows (-1)",
            "  virtual: uncountable rows -> 4 rows",
            "  new: new -> 7 rows",
            "  odd\\u{1b}[2J\\n: 1 -> 2 rows (+1)",
            "  1 table has as many rows as before",
        ];
        assert_eq!(compared(&Present::Held(before), &Present::Held(after)), expect);
    }

    #[test]
    fn thousands_of_tables_are_a_few_lines() {
        let names: Vec<_> = (0..5000).map(|number| format!("table_{number:04}")).collect();
        let tables = |rows: fn(usize) -> u64| {
            let tables = names.iter().enumerate();
            held(&tables.map(|(at, name)| (name.as_str(), Some(rows(at)))).collect::<Vec<_>>())
        };
        let (before, after) = (tables(|at| at as u64), tables(|at| (at / 2) as u64));
        let lines = compared(&Present::Held(before), &Present::Held(after));
        assert_eq!(lines.len(), 4 + NAMED_MAX + 2);
        assert_eq!(lines[4], "  table_4999: 4999 -> 2499 rows (-2500)");
        assert_eq!(lines[24], "  and 4979 further tables differ");
        assert_eq!(lines[25], "  1 table has as many rows as before");
    }

    #[test]
    fn what_was_not_readable_is_said_and_the_rest_told() {
        let after = || Present::Held(held(&[("notes", Some(3))]));
        let restored = "  restored: 8.2KB, 1 table, 3 rows, schema version 4, user_version 2";
        assert_eq!(compared(&Present::Missing, &after()), ["  there was nothing before", restored]);
        let locked = Present::Unreadable { bytes: 5, reason: "database is locked".to_owned() };
        let before = "  before: 5B, which cannot be read: database is locked";
        assert_eq!(compared(&locked, &after()), [before, restored]);
        let mut damaged = held(&[("notes", None)]);
        damaged.damage = Some("malformed".to_owned());
        let lines = compared(&Present::Held(damaged), &after());
        assert_eq!(lines[0], "  the database there is damaged: malformed");
    }
}
