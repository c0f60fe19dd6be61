//! What breaks in practice, looked at before it does. A check returns findings: what it found, and
//! what to do next.
//!
//! A check changes nothing but one probe object in the store, which it removes again, and it never
//! fails another: each is bounded, and what cannot be known is skipped with the reason. Nothing
//! here knows the configuration, a process or HTTP routes. Start reading at [`store::examine`] and
//! [`database::examine`].

pub mod backups;
pub mod bucket;
pub mod database;
pub mod place;
pub mod store;

/// What a check came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// All is well.
    Ok,
    /// It could not be looked at, or means nothing here.
    Skipped,
    /// It works, and may not always.
    Warning,
    /// It does not work.
    Failure,
}

impl Verdict {
    /// Returns the word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Skipped => "skipped",
            Self::Warning => "warning",
            Self::Failure => "failure",
        }
    }
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The name of the check: the same in every version.
    pub check: &'static str,
    /// What it came to.
    pub verdict: Verdict,
    /// What was found, or why nothing was looked at.
    pub found: String,
    /// What to do next; nothing where nothing is to be done.
    pub next: Option<String>,
}

impl Finding {
    /// Says that all is well.
    #[must_use]
    pub fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Ok, found: found.into(), next: None }
    }

    /// Says that it works, and may not always.
    #[must_use]
    pub fn warning(check: &'static str, found: impl Into<String>, next: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Warning, found: found.into(), next: Some(next.into()) }
    }

    /// Says that it does not work.
    #[must_use]
    pub fn failure(check: &'static str, found: impl Into<String>, next: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Failure, found: found.into(), next: Some(next.into()) }
    }

    /// Says why nothing was looked at.
    #[must_use]
    pub fn skipped(check: &'static str, why: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Skipped, found: why.into(), next: None }
    }

    /// Says that it cannot be known, and how it could.
    #[must_use]
    pub fn unknown(check: &'static str, why: impl Into<String>, next: impl Into<String>) -> Self {
        Self { next: Some(next.into()), ..Self::skipped(check, why) }
    }
}

/// Skips all of these checks for one reason.
#[must_use]
pub fn skip_all(checks: &[&'static str], why: &str) -> Vec<Finding> {
    checks.iter().map(|&check| Finding::skipped(check, why)).collect()
}
