//! The identities that the configuration names, and what is worth a warning about them.

use std::path::Path;

use simplebackup_engine::LOG;
use simplebackup_engine::encryption::{Identities, IdentityError};

use crate::config::Config;

/// Reads the identities: of the file that a flag names, else of the configured one, if there is one.
pub(crate) fn identities(
    config: &Config,
    flag: Option<&Path>,
) -> Result<Option<Identities>, IdentityError> {
    let Some(path) = flag.or(config.identity_file.as_deref()) else { return Ok(None) };
    let identities = Identities::read(path)?;
    if identities.is_exposed() {
        tracing::warn!(
            target: LOG,
            "WARNING: Other users of this machine may read the identity file {}, and with it every \
             backup; run \"chmod 600\" on it", path.display()
        );
    }
    Ok(Some(identities))
}

/// Says at the start whether backups are encrypted, and whether this machine could bring them back.
pub(crate) fn announce(config: &Config, identities: Option<&Identities>) {
    let Some(recipients) = &config.recipients else { return };
    let names = recipients.names();
    tracing::info!(target: LOG, "Backups are encrypted for {}", names.join(", "));
    match identities {
        None => tracing::warn!(
            target: LOG,
            "WARNING: encryption.identity_file is not set: backups are made here and cannot be \
             brought back or verified here, and on a new machine this configuration refuses to start; \
             if that is meant, keep the identity where a restore can have it"
        ),
        Some(identities) if !identities.fit(recipients) => tracing::warn!(
            target: LOG,
            "WARNING: No identity in {} fits encryption.recipients: the backups that are made here \
             cannot be brought back with it; add its public key to the recipients, or name the right \
             file", identities.path().display()
        ),
        Some(_) => {}
    }
}
