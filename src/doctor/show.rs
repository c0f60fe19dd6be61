//! What was found, for people and for machines. Of what comes from outside, nothing but its text
//! reaches a terminal.

use std::io;

use serde::Serialize;
use simplebackup_engine::doctor::{Finding, Verdict};

use crate::config::{Config, StoreChoice};
use crate::output::show;

/// Prints a line for each check, one for what to do next, and the sum.
pub(super) fn as_text(findings: &[Finding]) -> io::Result<()> {
    lines(findings).iter().try_for_each(|line| show(line))
}

fn lines(findings: &[Finding]) -> Vec<String> {
    let width = findings.iter().map(|finding| finding.check.len()).max().unwrap_or(0);
    let mut lines = Vec::new();
    for Finding { check, verdict, found, next } in findings {
        lines.push(format!("{:<7}  {check:<width$}  {}", verdict.word(), plain(found)));
        if let Some(next) = next {
            lines.push(format!("{:<7}  {:<width$}  next: {}", "", "", plain(next)));
        }
    }
    lines.push(String::new());
    lines.push(sum(findings));
    lines
}

/// Returns `20 ok, 2 warnings, no failure, 3 skipped`.
fn sum(findings: &[Finding]) -> String {
    let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    let many = |count: usize, word: &str| match count {
        0 => format!("no {word}"),
        1 => format!("1 {word}"),
        count => format!("{count} {word}s"),
    };
    format!(
        "{} ok, {}, {}, {} skipped",
        count(Verdict::Ok),
        many(count(Verdict::Warning), "warning"),
        many(count(Verdict::Failure), "failure"),
        count(Verdict::Skipped)
    )
}

/// Names of a schema or of a rule may hold what a terminal takes for a command.
fn plain(text: &str) -> String {
    text.replace(char::is_control, " ")
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    /// The worst of all: `ok`, `warning` or `failure`.
    status: &'static str,
    version: &'static str,
    database: String,
    store: String,
    checks: Vec<Check<'a>>,
}

#[derive(Debug, Serialize)]
struct Check<'a> {
    name: &'a str,
    verdict: &'static str,
    found: &'a str,
    next: Option<&'a str>,
}

/// Prints one object.
pub(super) fn as_json(
    config: &Config,
    findings: &[Finding],
) -> Result<(), Box<dyn std::error::Error>> {
    let worst = findings.iter().map(|finding| finding.verdict).max();
    let status = worst.filter(|verdict| *verdict > Verdict::Skipped).unwrap_or(Verdict::Ok);
    let checks = findings.iter().map(|Finding { check, verdict, found, next }| Check {
        name: check,
        verdict: verdict.word(),
        found,
        next: next.as_deref(),
    });
    let report = Report {
        status: status.word(),
        version: env!("CARGO_PKG_VERSION"),
        database: config.database.display().to_string(),
        store: place(&config.store),
        checks: checks.collect(),
    };
    show(&serde_json::to_string_pretty(&report)?)?;
    Ok(())
}

fn place(store: &StoreChoice) -> String {
    match store {
        StoreChoice::S3(settings) => format!("s3://{}/{}", settings.bucket, settings.prefix),
        StoreChoice::Folder(folder) | StoreChoice::BesideDatabase(folder) => {
            format!("file://{}", folder.display())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_nothing_commands_the_terminal() {
        let findings = [
            Finding::ok("store.list", "3 backups"),
            Finding::warning("database.schema", "lacks \u{1b}[2Jx\ny", "do this"),
            Finding::skipped("http.port", "off"),
        ];
        let expected = [
            "ok       store.list       3 backups",
            "warning  database.schema  lacks  [2Jx y",
            "                          next: do this",
            "skipped  http.port        off",
            "",
            "1 ok, 1 warning, no failure, 1 skipped",
        ];
        assert_eq!(lines(&findings), expected);
    }
}
