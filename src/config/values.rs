//! What a setting's value may look like, and how it is read. Pure: a value in, a value or nothing
//! out.

use std::path::PathBuf;
use std::time::Duration;

use object_store::path::Path as ObjectPath;
use simplebackup_engine::encryption::Recipients;
use url::Url;

/// A value as a source gives it: files have types, variables and flags are text.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Raw {
    Text(String),
    /// Text from a variable or a flag, which may stand for any type.
    Untyped(String),
    Whole(i64),
    Truth(bool),
    List(Vec<String>),
    /// A TOML type that no setting takes.
    Other(&'static str),
}

pub(super) fn text(raw: &Raw) -> Option<String> {
    match raw {
        Raw::Text(text) | Raw::Untyped(text) => Some(text.clone()),
        _ => None,
    }
}

pub(super) fn truth(raw: &Raw) -> Option<bool> {
    match raw {
        Raw::Truth(truth) => Some(*truth),
        Raw::Untyped(text) => match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Some(true),
            "false" | "0" | "no" | "off" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

pub(super) fn whole(raw: &Raw, least: usize, most: usize) -> Option<usize> {
    let number = match raw {
        Raw::Whole(number) => usize::try_from(*number).ok()?,
        Raw::Untyped(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    (least..=most).contains(&number).then_some(number)
}

/// Reads `500ms`, `30s`, `2m`, `1h`; from zero to a day.
pub(super) fn duration(raw: &Raw) -> Option<Duration> {
    let text = text(raw)?;
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().ok()?;
    let millis = match &text[digits.len()..] {
        "ms" => number,
        "s" => number.checked_mul(1000)?,
        "m" => number.checked_mul(60_000)?,
        "h" => number.checked_mul(3_600_000)?,
        _ => return None,
    };
    let duration = Duration::from_millis(millis);
    (duration <= Duration::from_hours(24)).then_some(duration)
}

/// Reads a duration in which something has to get done.
pub(super) fn timeout(raw: &Raw) -> Option<Duration> {
    duration(raw).filter(|duration| !duration.is_zero())
}

/// Reads a list; from a variable a JSON list, or words between blanks.
pub(super) fn list(raw: &Raw) -> Option<Vec<String>> {
    match raw {
        Raw::List(list) => Some(list.clone()),
        Raw::Untyped(text) if text.trim_start().starts_with('[') => serde_json::from_str(text).ok(),
        Raw::Untyped(text) => Some(text.split_whitespace().map(str::to_owned).collect()),
        _ => None,
    }
}

/// Reads for whom backups are encrypted, or says why not. Only a list that says so itself is empty: a
/// variable that was left empty by mistake must not switch encryption off.
pub(super) fn recipients(raw: &Raw) -> Result<Option<Recipients>, String> {
    if let Raw::Untyped(text) = raw
        && text.trim().is_empty()
    {
        return Err("is set to nothing; unset it, or give [] for no encryption".to_owned());
    }
    let list = list(raw).ok_or("is no list of texts; give one such as [\"age1…\"]")?;
    Recipients::parse(&list).map_err(|error| error.to_string())
}

pub(super) fn is_address(text: &str) -> bool {
    text == "off"
        || text.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty() && port.parse::<u16>().is_ok() && !host.contains('/')
        })
}

pub(super) fn is_endpoint(text: &str) -> bool {
    if text.is_empty() {
        return true;
    }
    // The parser of URLs trims and drops what the client would stumble over.
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]/".contains(&byte);
    if !text.bytes().all(is_plain) || text.contains("///") {
        return false;
    }
    let has_scheme = text.starts_with("http://") || text.starts_with("https://");
    let address = if has_scheme { text.to_owned() } else { format!("http://{text}") };
    // The client panics over what is no address, so that it has to be refused here.
    Url::parse(&address).is_ok_and(|url| {
        let is_bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        let is_open = url.username().is_empty() && url.password().is_none();
        is_bare && is_open && url.host_str().is_some_and(|host| !host.is_empty())
    })
}

/// What fits into the head of a request: visible ASCII, with blanks inside at most.
pub(super) fn is_header_text(text: &str) -> bool {
    text.trim() == text && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

pub(super) fn header_text(raw: &Raw) -> Option<String> {
    text(raw).filter(|text| is_header_text(text))
}

/// What an object's name may begin with: no empty parts, no `.` or `..`, no control characters.
pub(super) fn is_prefix(prefix: &str) -> bool {
    ObjectPath::parse(prefix.trim_matches('/')).is_ok()
}

/// Letters, digits, `.`, `-` and `_`, as every S3 server has them.
pub(super) fn is_bucket(name: &str) -> bool {
    let is_usual = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !name.is_empty() && !name.starts_with('.') && name.bytes().all(is_usual)
}

/// Reads the address of a web page, or nothing.
pub(super) fn web_address(raw: &Raw) -> Option<String> {
    let is_address = |text: &String| {
        Url::parse(text)
            .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.host_str().is_some())
    };
    text(raw).filter(|text| text.is_empty() || is_address(text))
}

/// A name, a colon, and a value.
pub(super) fn is_header_line(text: &str) -> bool {
    let is_usual = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    text.split_once(':').is_some_and(|(name, value)| {
        !name.is_empty() && name.bytes().all(is_usual) && !value.trim().is_empty()
    })
}

/// Where a store's URL points.
pub(super) enum Place {
    Bucket { bucket: String, prefix: String },
    Folder(PathBuf),
}

/// Reads a store's URL: `s3://bucket/prefix` or `file:` and a path.
pub(super) fn place_of(text: &str) -> Option<Place> {
    if let Some(rest) = text.strip_prefix("s3://") {
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.trim_matches('/').to_owned();
        let is_named = is_bucket(bucket) && is_prefix(&prefix);
        return is_named.then(|| Place::Bucket { bucket: bucket.to_owned(), prefix });
    }
    // Not parsed as a URL: "file:backups" and "file:///srv/ñ %20" are paths as they stand.
    let path = text.strip_prefix("file:")?;
    let path = path.strip_prefix("//").unwrap_or(path);
    (!path.is_empty()).then(|| Place::Folder(PathBuf::from(path)))
}
