//! What a bucket says of itself, read from S3's XML. Pure, and no parser of XML: of documents whose
//! form S3 gives, the few elements that matter are looked for.

/// What a rule does to the objects of its prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Deed {
    /// Deletes them, so many days after they were stored, or on one date.
    Delete { days: Option<u32> },
    /// Moves them to a class of storage from which they cannot be read at once.
    Move { days: Option<u32>, class: String },
    /// Removes for good what was deleted or overwritten, so many days after that.
    RemoveVersions { days: u32 },
}

/// One deed of a rule that is switched on and meant for objects like ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) id: String,
    /// What names have to begin with.
    pub(super) prefix: String,
    pub(super) deed: Deed,
}

/// Returns the status of versioning, empty if it was never on; `None` for another document.
pub(super) fn versioning(status: u16, body: &str) -> Option<&str> {
    let is_one = status == 200 && body.contains("<VersioningConfiguration");
    is_one.then(|| inner(body, "Status").unwrap_or_default())
}

/// Returns the deeds of all rules that may concern our objects, which bear no tags; `None` for
/// another document.
pub(super) fn parse(body: &str) -> Option<Vec<Rule>> {
    if !body.contains("<LifecycleConfiguration") {
        return None;
    }
    let mut rules = Vec::new();
    for rule in all(body, "Rule") {
        if inner(rule, "Status") != Some("Enabled") || rule.contains("<Tag>") {
            continue;
        }
        let id = plain(inner(rule, "ID").unwrap_or("without a name"));
        let prefix = plain(inner(rule, "Prefix").unwrap_or_default());
        let found = deeds(rule).into_iter();
        rules.extend(found.map(|deed| Rule { id: id.clone(), prefix: prefix.clone(), deed }));
    }
    Some(rules)
}

fn deeds(rule: &str) -> Vec<Deed> {
    let days = |part: &str| inner(part, "Days").and_then(|days| days.parse().ok());
    let mut deeds = Vec::new();
    for part in all(rule, "Expiration") {
        // Else it is about the marks of deleted objects alone.
        if inner(part, "Days").is_some() || inner(part, "Date").is_some() {
            deeds.push(Deed::Delete { days: days(part) });
        }
    }
    for part in all(rule, "Transition") {
        let class = inner(part, "StorageClass").unwrap_or_default();
        if matches!(class, "GLACIER" | "DEEP_ARCHIVE") {
            deeds.push(Deed::Move { days: days(part), class: class.to_owned() });
        }
    }
    for part in all(rule, "NoncurrentVersionExpiration") {
        if let Some(days) = inner(part, "NoncurrentDays").and_then(|days| days.parse().ok()) {
            deeds.push(Deed::RemoveVersions { days });
        }
    }
    deeds
}

/// Returns the insides of all elements of this name.
fn all<'a>(document: &'a str, name: &str) -> Vec<&'a str> {
    let (start, end) = (format!("<{name}>"), format!("</{name}>"));
    let parts = document.split(start.as_str()).skip(1);
    parts.filter_map(|rest| rest.split(end.as_str()).next()).collect()
}

/// Returns the inside of the first element of this name.
fn inner<'a>(document: &'a str, name: &str) -> Option<&'a str> {
    all(document, name).first().map(|text| text.trim())
}

/// Returns a text as it is meant, fit for one line.
fn plain(text: &str) -> String {
    let escapes = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")];
    let text = escapes.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
    text.replace(char::is_control, " ")
}
