//! The name of one installation: the service on one disk, through all its restarts.
//!
//! Sixteen random hexadecimal digits in the work folder beside the database. Whoever loses the
//! disk is another instance; whoever restarts on it is the same. A random name, because a host's
//! name and a process id mean nothing in containers.

use std::fmt;
use std::fs;
use std::io;

use rustix::rand::{GetRandomFlags, getrandom};
use serde::{Deserialize, Serialize};

use crate::text;
use crate::work_dir::{WorkFolder, keep};

const DIGITS: usize = 16;

/// The name of an installation.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Instance(String);

impl Instance {
    /// Returns the instance that `name` spells, or `None` if it is not sixteen hexadecimal
    /// digits: it becomes part of object names.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (name.len() == DIGITS && name.bytes().all(is_digit)).then(|| Self(name.to_owned()))
    }

    /// Returns the instance of the installation that works in `folder`, and names it if it is
    /// new. A name that cannot be read back in full is replaced.
    pub fn of(folder: &WorkFolder) -> io::Result<Self> {
        folder.under_lock(|path| {
            let file = path.join("instance");
            match fs::read_to_string(&file) {
                Ok(name) => {
                    if let Some(instance) = Self::parse(name.trim()) {
                        return Ok(instance);
                    }
                }
                // InvalidData: no text at all, as a damaged disk leaves it.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::InvalidData
                    ) => {}
                Err(error) => return Err(error),
            }
            let instance = Self::random()?;
            keep(path, "instance", &format!("{instance}\n"))?;
            Ok(instance)
        })
    }

    fn random() -> io::Result<Self> {
        let mut bytes = [0; DIGITS / 2];
        // Up to 256 bytes come whole or not at all (getrandom(2)).
        getrandom(&mut bytes, GetRandomFlags::empty())?;
        Ok(Self(text::hex(&bytes)))
    }
}

impl TryFrom<String> for Instance {
    type Error = &'static str;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        Self::parse(&name).ok_or("an instance is sixteen hexadecimal digits")
    }
}

impl From<Instance> for String {
    fn from(instance: Instance) -> Self {
        instance.0
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_installation_keeps_its_name_and_another_has_another() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let [one, two] = ["one.db", "two.db"].map(|db| WorkFolder::beside(&root.path().join(db)));
        let name = Instance::of(&one).expect("named");
        assert_eq!(Instance::of(&one).expect("named"), name);
        assert_ne!(Instance::of(&two).expect("named"), name);
        // A disk that was full when it was written.
        fs::write(one.path().join("instance"), "0123").expect("written");
        assert_ne!(Instance::of(&one).expect("named"), name);
        assert_eq!(Instance::of(&one).expect("named"), Instance::of(&one).expect("named"));
        // A disk that was damaged: not even text.
        fs::write(one.path().join("instance"), [0xff; 17]).expect("written");
        assert_ne!(Instance::of(&one).expect("named"), name);
    }

    #[test]
    fn only_a_name_that_fits_an_object_is_one() {
        for name in ["", "0123", "0123456789abcdeF", "0123456789abcde/", "0123456789abcdef0"] {
            assert_eq!(Instance::parse(name), None, "{name:?}");
        }
    }
}
