//! Who may read encrypted backups: recipients, for whom they are made, and identities, which open
//! them. Both as age has them (<https://age-encryption.org/v1>), of the kind X25519 alone.
//!
//! A recipient is a public key and no secret. An identity is the secret key to it: it is read from a
//! file, kept in memory, and shown nowhere, not even in part in an error about its file. How an
//! archive is encrypted and decrypted is [`crate::archive`]'s.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use age::{EncryptError, Encryptor, x25519};
use thiserror::Error;

/// Each takes a hundred bytes of every archive, and its name another sixty in the manifest.
const RECIPIENTS_MAX: usize = 32;

/// A longer file holds no identities: one line each, of 74 letters, and comments.
const IDENTITY_FILE_BYTES_MAX: u64 = 64 * 1024;

/// For whom backups are encrypted: one at least.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipients(Arc<[x25519::Recipient]>);

/// Why a list of recipients is refused. Names none of its texts: one may be a secret by mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RecipientError {
    /// Nothing but blanks.
    #[error(
        "recipient {0} is an empty text; take it out, or give the public key that belongs there"
    )]
    Empty(usize),
    /// An identity.
    #[error(
        "recipient {0} is a secret key; give its public key, which age-keygen -y prints, and make a \
         new pair if this one was seen by others"
    )]
    Identity(usize),
    /// Not one of age's X25519 recipients.
    #[error(
        "recipient {0} is no public key of age-keygen; give the whole of it, \"age1\" and 58 more \
         letters and digits (SSH keys, plugins and passphrases are not supported)"
    )]
    Malformed(usize),
    /// A point of low order: what is encrypted for it, anybody can read.
    #[error("recipient {0} is a public key that protects nothing; make one with age-keygen")]
    Useless(usize),
    /// The same one twice.
    #[error("recipient {0} is listed twice; is another one missing?")]
    Repeated(usize),
    /// More than an archive's header should hold.
    #[error("{0} recipients are too many; give {RECIPIENTS_MAX} at most")]
    TooMany(usize),
}

impl Recipients {
    /// Reads a list of recipients; nothing for an empty list.
    ///
    /// # Errors
    ///
    /// The first that is unusable, with its number in the list, from 1 on.
    pub fn parse(texts: &[String]) -> Result<Option<Self>, RecipientError> {
        if texts.len() > RECIPIENTS_MAX {
            return Err(RecipientError::TooMany(texts.len()));
        }
        let mut recipients = Vec::new();
        for (number, text) in (1..).zip(texts) {
            let recipient = parse_one(number, text)?;
            if recipients.contains(&recipient) {
                return Err(RecipientError::Repeated(number));
            }
            recipients.push(recipient);
        }
        Ok((!recipients.is_empty()).then(|| Self(recipients.into())))
    }

    /// Returns the recipients as texts, in their order.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }

    /// Returns what encrypts one archive, with a key of its own.
    pub(crate) fn encryptor(&self) -> Result<Encryptor, EncryptError> {
        Encryptor::with_recipients(self.0.iter().map(|recipient| recipient as _))
    }
}

fn parse_one(number: usize, text: &str) -> Result<x25519::Recipient, RecipientError> {
    if text.trim().is_empty() {
        return Err(RecipientError::Empty(number));
    }
    if is_like_identity(text) {
        return Err(RecipientError::Identity(number));
    }
    let recipient: x25519::Recipient =
        text.parse().map_err(|_why| RecipientError::Malformed(number))?;
    // With a point of low order age panics, for want of a better explanation. Rather now than in
    // each backup.
    let tried = AssertUnwindSafe(|| Encryptor::with_recipients([&recipient as _].into_iter()));
    match catch_unwind(tried) {
        Ok(Ok(_usable)) => Ok(recipient),
        Ok(Err(_)) | Err(_) => Err(RecipientError::Useless(number)),
    }
}

/// Returns whether a text looks like a secret key, so that it must not be shown.
#[must_use]
pub fn is_like_identity(text: &str) -> bool {
    let text = text.to_ascii_uppercase();
    ["AGE-SECRET-KEY", "AGE-PLUGIN", "PRIVATE KEY"].iter().any(|mark| text.contains(mark))
}

/// The secret keys of one file: one at least. Cheap to clone.
#[derive(Clone)]
pub struct Identities {
    keys: Arc<[x25519::Identity]>,
    path: PathBuf,
    is_exposed: bool,
}

/// Why a file of identities is of no use. Never holds anything of what is in it.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// It can't be read.
    #[error("identity file \"{}\" cannot be read; check that it is there and that this user may read it", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line is neither an identity nor a comment.
    #[error("identity file \"{}\" cannot be used: line {line} is {what}; give a file as age-keygen writes it", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The number of the line, from 1 on.
        line: usize,
        /// What it looks like.
        what: &'static str,
    },
    /// It holds comments at most.
    #[error("identity file \"{}\" holds no identity; give a file as age-keygen writes it", .0.display())]
    Empty(PathBuf),
}

impl Identities {
    /// Reads a file as age-keygen writes it: identities and comments, each in a line of its own.
    pub fn read(path: &Path) -> Result<Self, IdentityError> {
        let fail = |source| IdentityError::Unreadable { path: path.to_owned(), source };
        let mut content = String::new();
        let mut file = File::open(path).map_err(fail)?;
        let mode = file.metadata().map_err(fail)?.permissions().mode();
        // Bounded: the path may be that of a device.
        (&mut file).take(IDENTITY_FILE_BYTES_MAX).read_to_string(&mut content).map_err(fail)?;
        let mut keys = Vec::new();
        for (line, text) in (1..).zip(content.lines().map(str::trim)) {
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            keys.push(text.parse().map_err(|_why| IdentityError::Malformed {
                path: path.to_owned(),
                line,
                what: what_is(text),
            })?);
        }
        if keys.is_empty() {
            return Err(IdentityError::Empty(path.to_owned()));
        }
        Ok(Self { keys: keys.into(), path: path.to_owned(), is_exposed: mode & 0o044 != 0 })
    }

    /// Returns the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether other users of this machine may read the file.
    #[must_use]
    pub fn is_exposed(&self) -> bool {
        self.is_exposed
    }

    /// Returns whether what is encrypted for these recipients can be read.
    #[must_use]
    pub fn fit(&self, recipients: &Recipients) -> bool {
        self.keys.iter().any(|key| recipients.0.contains(&key.to_public()))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &dyn age::Identity> {
        self.keys.iter().map(|key| key as _)
    }
}

/// Says what a line that is no identity may be, without a letter of it.
fn what_is(text: &str) -> &'static str {
    let upper = text.to_ascii_uppercase();
    if upper.starts_with("AGE-SECRET-KEY-") {
        "an identity with a mistake in it, or of another kind than X25519"
    } else if upper.starts_with("AGE-PLUGIN-") {
        "a plugin's identity, which is not supported"
    } else if upper.starts_with("AGE1") {
        "a recipient, a public key; the identity is the secret key to it"
    } else if upper.starts_with("AGE-ENCRYPTION.ORG/") || upper.starts_with("-----BEGIN AGE") {
        "the start of an encrypted file; decrypt it first with age -d"
    } else if upper.contains("PRIVATE KEY") {
        "the start of a private key of another program, which is not supported"
    } else {
        "neither an identity nor a comment"
    }
}

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identities([redacted], {})", self.path.display())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use age::secrecy::ExposeSecret;

    use super::*;

    fn pair() -> (String, String) {
        let identity = x25519::Identity::generate();
        (identity.to_string().expose_secret().to_owned(), identity.to_public().to_string())
    }

    #[test]
    fn a_list_of_recipients_is_usable_as_a_whole_or_refused() {
        let (secret, public) = pair();
        let (_, other) = pair();
        let in_small = secret.to_lowercase();
        // Zero, a point of low order.
        let useless = "age1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq5cu47z";
        let cases = [
            (vec![""], RecipientError::Empty(1)),
            (vec![&public, "  "], RecipientError::Empty(2)),
            (vec![&public, &secret], RecipientError::Identity(2)),
            (vec![&in_small], RecipientError::Identity(1)),
            (vec!["age1abc"], RecipientError::Malformed(1)),
            (vec![&public[..61]], RecipientError::Malformed(1)),
            (vec!["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5"], RecipientError::Malformed(1)),
            (vec![&other, useless], RecipientError::Useless(2)),
            (vec![&public, &other, &public], RecipientError::Repeated(3)),
            (vec![&public; 33], RecipientError::TooMany(33)),
        ];
        for (texts, expect) in cases {
            let texts: Vec<_> = texts.iter().map(ToString::to_string).collect();
            let refused = Recipients::parse(&texts).expect_err("unusable");
            assert_eq!(refused, expect, "{texts:?}");
            let said = refused.to_string();
            assert!(!texts.iter().any(|text| !text.trim().is_empty() && said.contains(text)));
        }
        assert_eq!(Recipients::parse(&[]), Ok(None));
        let both = [public, other];
        let recipients = Recipients::parse(&both).expect("usable").expect("two");
        assert_eq!(recipients.names(), both);
    }

    #[test]
    fn a_file_of_identities_is_read_as_age_keygen_writes_it() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let path = root.path().join("key.txt");
        let (secret, public) = pair();
        let (second, _) = pair();
        let text = format!("# created: today\r\n# public key: {public}\r\n{secret}\r\n\n{second}");
        fs::write(&path, text).expect("written");
        let identities = Identities::read(&path).expect("sound");
        assert_eq!(identities.iter().count(), 2);
        assert!(!format!("{identities:?}").contains(&secret));
        let fits = |public: &str| {
            let recipients = Recipients::parse(&[public.to_owned()]).expect("sound");
            identities.fit(&recipients.expect("one"))
        };
        assert!(fits(&public) && !fits(&pair().1));
        for (mode, is_exposed) in [(0o600, false), (0o400, false), (0o640, true), (0o604, true)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
            let identities = Identities::read(&path).expect("sound");
            assert_eq!(identities.is_exposed(), is_exposed, "{mode:o}");
        }
    }

    #[test]
    fn a_useless_file_of_identities_is_refused_without_a_letter_of_it() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let path = root.path().join("key.txt");
        let (secret, public) = pair();
        let cases = [
            (String::new(), "holds no identity"),
            ("# nothing\n\n".to_owned(), "holds no identity"),
            (public, "line 1 is a recipient, a public key"),
            (format!("#\n{}x", &secret[..70]), "line 2 is an identity with a mistake in it"),
            ("age-encryption.org/v1\n".to_owned(), "encrypted file; decrypt it first"),
            ("-----BEGIN AGE ENCRYPTED FILE-----".to_owned(), "encrypted file; decrypt it first"),
            ("-----BEGIN OPENSSH PRIVATE KEY-----".to_owned(), "of another program"),
            ("AGE-PLUGIN-YUBIKEY-1Q".to_owned(), "a plugin's identity"),
            ("correct horse battery".to_owned(), "neither an identity nor a comment"),
        ];
        for (text, words) in cases {
            fs::write(&path, &text).expect("written");
            let refused = Identities::read(&path).expect_err("useless").to_string();
            assert!(refused.contains(words), "{text:?}: {refused}");
            assert!(!refused.contains(&secret[20..40]) && !refused.contains("horse"), "{refused}");
        }
        fs::write(&path, [0xff; 9]).expect("written");
        assert!(matches!(Identities::read(&path), Err(IdentityError::Unreadable { .. })));
        let missing = Identities::read(&root.path().join("none")).expect_err("missing");
        assert!(missing.to_string().contains("cannot be read"), "{missing}");
    }
}
