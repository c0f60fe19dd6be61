//! The sources of settings, in their order: file, environment, flags.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use simplebackup_engine::encryption::is_like_identity;
use simplebackup_engine::secret::Secret;
use toml::de::{DeTable, DeValue};

use super::Config;
use super::problem::{Problem, Problems};
use super::settings::{Draft, SETTINGS, Setting, variable};
use super::values::{Raw, is_endpoint, is_header_text, is_prefix};

/// The file that is read when none is named, if it is there.
const DEFAULT_FILE: &str = "config.toml";

/// A longer file holds no secret.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// What a variable may name a file for: the name with `_FILE` at its end holds a path.
const AWS_SECRETS: [&str; 3] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];

/// The author's variables and the settings they stand for. The bucket and its prefix are one
/// setting here, and are read apart.
const MINIO: [(&str, &str); 5] = [
    ("MINIO_ENDPOINT", "store.endpoint"),
    ("MINIO_ACCESS_KEY", "store.access_key"),
    ("MINIO_SECRET_KEY", "store.secret_key"),
    ("MINIO_USE_SSL", "store.use_ssl"),
    ("MINIO_REGION", "store.region"),
];

/// The global flags, as typed.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `--config FILE`.
    pub config: Option<PathBuf>,
    /// Keys and what was typed for them: `("backup.keep", "--keep", "5")`.
    pub values: Vec<(&'static str, &'static str, String)>,
    /// The words after `--`.
    pub command: Vec<String>,
}

/// Everything that a configuration is made of; tests bring their own environment.
#[derive(Debug, Clone, Default)]
pub struct Input {
    /// The flags.
    pub flags: Flags,
    /// The environment.
    pub variables: Vec<(String, String)>,
}

impl Input {
    /// Takes the environment of this process.
    #[must_use]
    pub fn from_process(flags: Flags) -> Self {
        let text = |os: std::ffi::OsString| os.into_string().ok();
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((text(name)?, text(value)?)))
            .collect();
        Self { flags, variables }
    }

    /// Returns a variable that is set, and not to nothing.
    fn given(&self, name: &str) -> Option<&str> {
        self.variable(name).filter(|value| !value.is_empty())
    }

    fn variable(&self, name: &str) -> Option<&str> {
        self.variables.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// Reads all sources.
///
/// # Errors
///
/// All problems of all sources at once.
pub fn load(input: &Input) -> Result<Config, Problems> {
    let mut reader = Reader { draft: Draft::default(), problems: Vec::new() };
    reader.read_file(input);
    reader.read_environment(input);
    reader.read_flags(&input.flags);
    let aws = reader.read_aws(input);
    let Reader { draft, mut problems } = reader;
    match draft.finish(&aws) {
        Ok(config) if problems.is_empty() => Ok(config),
        Ok(_) => Err(Problems(problems)),
        Err(problem) => {
            problems.push(problem);
            Err(Problems(problems))
        }
    }
}

/// Reads the file and the environment of this process, and has `settings` win over both: keys of
/// config.toml and their values, such as `("backup.keep", "5")`.
///
/// # Errors
///
/// All problems of all sources at once.
pub fn load_with(settings: &[(&'static str, &str)]) -> Result<Config, Problems> {
    let values = settings.iter().map(|(key, value)| (*key, *key, (*value).to_owned())).collect();
    load(&Input::from_process(Flags { values, ..Flags::default() }))
}

struct Reader {
    draft: Draft,
    problems: Vec<Problem>,
}

impl Reader {
    fn problem(&mut self, place: impl Into<String>, text: impl Into<String>) {
        self.problems.push(Problem { place: place.into(), text: text.into() });
    }

    fn apply(&mut self, setting: &Setting, place: &str, raw: &Raw) {
        if (setting.apply)(&mut self.draft, raw).is_none() {
            let (key, accepts) = (setting.key, setting.accepts);
            let text = match setting.explain {
                Some(explain) => format!("{key}: {}", explain(raw)),
                None => format!("{key} = {} is not accepted; give {accepts}", shown(setting, raw)),
            };
            self.problem(place, text);
        }
    }

    fn read_file(&mut self, input: &Input) {
        let named = input.flags.config.clone();
        let named = named.or_else(|| input.given("SIMPLE_BACKUP_CONFIG").map(PathBuf::from));
        let path = named.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_FILE));
        let content = match fs::read_to_string(&path) {
            Ok(content) => content,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && named.is_none() => return,
            Err(error) => {
                let text = format!("file cannot be read: {error}; check --config");
                return self.problem(path.display().to_string(), text);
            }
        };
        self.read_toml(&path, &content);
    }

    fn read_toml(&mut self, path: &Path, content: &str) {
        let place = |offset: usize| {
            let line = content.get(..offset).unwrap_or(content).matches('\n').count() + 1;
            format!("{}:{line}", path.display())
        };
        let (table, errors) = DeTable::parse_recoverable(content);
        for error in errors {
            let at = place(error.span().map_or(0, |span| span.start));
            self.problem(at, format!("not TOML: {}", error.message()));
        }
        for (section, value) in table.get_ref() {
            let at = place(section.span().start);
            let name = section.get_ref();
            let DeValue::Table(entries) = value.get_ref() else {
                self.problem(at, unknown(name));
                continue;
            };
            if !SETTINGS.iter().any(|s| s.key.split('.').next() == Some(name)) {
                self.problem(at, unknown(name));
                continue;
            }
            for (key, value) in entries {
                let full = format!("{name}.{}", key.get_ref());
                let at = place(key.span().start);
                match SETTINGS.iter().find(|setting| setting.key == full) {
                    Some(setting) => self.apply(setting, &at, &raw_of(value.get_ref())),
                    None => self.problem(at, unknown(&full)),
                }
            }
        }
    }

    fn read_environment(&mut self, input: &Input) {
        for (name, key) in MINIO {
            if let Some(value) = self.value_of(input, name) {
                self.apply(setting(key), name, &Raw::Untyped(value));
            }
        }
        self.read_bucket(input);
        for setting in SETTINGS {
            let name = variable(setting.key);
            let value = if setting.is_secret {
                self.value_of(input, &name)
            } else {
                input.variable(&name).map(str::to_owned)
            };
            if let Some(value) = value {
                self.apply(setting, &name, &Raw::Untyped(value));
            }
        }
        for (name, _) in &input.variables {
            if name.starts_with("SIMPLE_BACKUP_") && !is_known_variable(name) {
                let text = "unknown variable; the README lists all, as SIMPLE_BACKUP_ and the key";
                self.problem(name, text);
            }
        }
    }

    fn read_bucket(&mut self, input: &Input) {
        let (bucket, prefix) = (input.given("MINIO_BUCKET"), input.given("MINIO_PREFIX"));
        if bucket.is_none() && prefix.is_none() {
            return;
        }
        if let Some(prefix) = prefix.filter(|prefix| !is_prefix(prefix)) {
            let text = "is not accepted; give names between single slashes";
            return self.problem("MINIO_PREFIX", format!("\"{prefix}\" {text}"));
        }
        if self.draft.set_bucket(bucket, prefix).is_none() {
            match bucket {
                Some(bucket) => {
                    let text = format!("\"{bucket}\" is not accepted; give the name of a bucket");
                    self.problem("MINIO_BUCKET", text);
                }
                None => self.problem("MINIO_PREFIX", "a prefix needs a bucket; set MINIO_BUCKET"),
            }
        }
    }

    fn read_flags(&mut self, flags: &Flags) {
        for (key, flag, value) in &flags.values {
            self.apply(setting(key), flag, &Raw::Untyped(value.clone()));
        }
        if !flags.command.is_empty() {
            self.apply(setting("app.command"), "--", &Raw::List(flags.command.clone()));
        }
    }

    /// Collects the standard variables, with their `_FILE` forms, by lower-case name.
    fn read_aws(&mut self, input: &Input) -> Vec<(String, Secret)> {
        let mut aws: Vec<_> = input
            .variables
            .iter()
            .filter(|(name, value)| name.starts_with("AWS_") && !value.is_empty())
            .map(|(name, value)| (name.to_lowercase(), Secret::new(value)))
            .collect();
        for name in AWS_SECRETS {
            if input.variable(&format!("{name}_FILE")).is_some()
                && let Some(value) = self.value_of(input, name)
            {
                aws.push((name.to_lowercase(), Secret::new(value)));
            }
        }
        for (name, value) in &aws {
            let is_sound = match name.as_str() {
                "aws_endpoint" | "aws_endpoint_url" | "aws_endpoint_url_s3" => is_endpoint,
                _ => is_header_text,
            };
            if !is_sound(value.expose()) {
                let text = "not accepted; give a text of plain characters, without line breaks or \
                            blanks around it, and an address where one belongs";
                self.problem(name.to_uppercase(), text);
            }
        }
        aws
    }

    /// Returns a variable's value, or what the file holds that its `_FILE` form names.
    fn value_of(&mut self, input: &Input, name: &str) -> Option<String> {
        let file_name = format!("{name}_FILE");
        match (input.variable(name), input.variable(&file_name)) {
            (Some(_), Some(_)) => {
                self.problem(&file_name, format!("{name} is set too; set one of the two"));
                None
            }
            (Some(value), None) => Some(value.to_owned()),
            (None, Some(path)) => match read_secret(path) {
                // Files end with a line break that is no part of the secret.
                Ok(content) => Some(content.trim_end_matches(['\r', '\n']).to_owned()),
                Err(error) => {
                    self.problem(&file_name, format!("\"{path}\" cannot be read: {error}"));
                    None
                }
            },
            (None, None) => None,
        }
    }
}

/// Reads a file that holds a secret. Bounded: the path may be that of a device.
fn read_secret(path: &str) -> io::Result<String> {
    let mut content = String::new();
    fs::File::open(path)?.take(SECRET_BYTES_MAX).read_to_string(&mut content)?;
    Ok(content)
}

fn setting(key: &str) -> &'static Setting {
    SETTINGS.iter().find(|setting| setting.key == key).expect("the keys in this file are settings")
}

/// Returns the variables that may hold a secret themselves. Not their `_FILE` forms: those say
/// where it is, and who may read it there is the affair of the file.
pub(crate) fn secret_variables() -> Vec<String> {
    let secret = |key: &str| SETTINGS.iter().any(|setting| setting.is_secret && setting.key == key);
    let minio = MINIO.iter().filter(|(_, key)| secret(key)).map(|(name, _)| (*name).to_owned());
    let own = SETTINGS.iter().filter(|setting| setting.is_secret);
    let own = own.map(|setting| variable(setting.key));
    minio.chain(AWS_SECRETS.map(str::to_owned)).chain(own).collect()
}

fn is_known_variable(name: &str) -> bool {
    name == "SIMPLE_BACKUP_CONFIG"
        || SETTINGS.iter().any(|setting| {
            let own = variable(setting.key);
            name == own || (setting.is_secret && name == format!("{own}_FILE"))
        })
}

fn unknown(key: &str) -> String {
    let section = key.split('.').next().unwrap_or(key);
    let mut known: Vec<_> = SETTINGS
        .iter()
        .filter(|setting| setting.key.split('.').next() == Some(section))
        .map(|setting| setting.key)
        .collect();
    if known.is_empty() {
        known = SETTINGS.iter().filter_map(|setting| setting.key.split('.').next()).collect();
        known.dedup();
    }
    format!("unknown key \"{key}\"; known are {}", known.join(", "))
}

fn shown(setting: &Setting, raw: &Raw) -> String {
    if setting.is_secret {
        return "[redacted]".to_owned();
    }
    match raw {
        // An address with a password in it, say.
        Raw::Text(text) | Raw::Untyped(text) if text.contains('@') || is_like_identity(text) => {
            "[redacted]".to_owned()
        }
        Raw::Text(text) | Raw::Untyped(text) => format!("\"{text}\""),
        Raw::Whole(number) => number.to_string(),
        Raw::Truth(truth) => truth.to_string(),
        Raw::List(list) => format!("{list:?}"),
        Raw::Other(kind) => (*kind).to_owned(),
    }
}

fn raw_of(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Boolean(truth) => Raw::Truth(*truth),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or(Raw::Other("a huge number"), Raw::Whole),
        DeValue::Array(values) => {
            let texts = values.iter().map(|value| match value.get_ref() {
                DeValue::String(text) => Some(text.to_string()),
                _ => None,
            });
            texts.collect::<Option<_>>().map_or(Raw::Other("a mixed list"), Raw::List)
        }
        DeValue::Float(_) => Raw::Other("a fraction"),
        DeValue::Datetime(_) => Raw::Other("a date"),
        DeValue::Table(_) => Raw::Other("a table"),
    }
}
