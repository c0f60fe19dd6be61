//! What is wrong with a configuration, and where: all of it at once.

use std::error::Error;
use std::fmt;

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// `config.toml:12`, `MINIO_USE_SSL` or `--keep`.
    pub place: String,
    /// What is wrong, and what is accepted.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.text)
    }
}

/// All problems of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => writeln!(f, "the configuration has a problem:")?,
            count => writeln!(f, "the configuration has {count} problems:")?,
        }
        for problem in &self.0 {
            writeln!(f, "  {problem}")?;
        }
        f.write_str("nothing was started; mend them and start again")
    }
}

impl Error for Problems {}
