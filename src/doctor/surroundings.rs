//! What stands around a backup: its encryption, its hooks, and whether anybody hears of a failure.

use simplebackup_engine::doctor::Finding;
use simplebackup_engine::encryption::Identities;
use simplebackup_engine::text;

use super::command;
use crate::config::Config;

const ENCRYPTION: &str = "config.encryption";
const HOOKS: &str = "config.hooks";
const NOTICES: &str = "config.notices";

/// Looks at all three.
pub(super) fn examine(config: &Config) -> Vec<Finding> {
    vec![encryption(config), hooks(config), notices(config)]
}

fn encryption(config: &Config) -> Finding {
    let identities = match config.identity_file.as_deref().map(Identities::read).transpose() {
        Ok(identities) => identities,
        Err(error) => {
            let next = "mend encryption.identity_file: \"run\" refuses to start with it";
            return Finding::failure(ENCRYPTION, text::chain(&error), next);
        }
    };
    match (&config.recipients, identities) {
        (None, None) => Finding::skipped(ENCRYPTION, "backups are not encrypted"),
        (None, Some(_)) => Finding::ok(ENCRYPTION, "encrypted backups can be opened, none is made"),
        (Some(_), None) => Finding::warning(
            ENCRYPTION,
            "backups are encrypted, and no identity here opens them",
            "set encryption.identity_file, unless restores are made elsewhere: a start without a \
             database is refused",
        ),
        (Some(recipients), Some(identities)) if !identities.fit(recipients) => Finding::warning(
            ENCRYPTION,
            format!("no identity in {} fits the recipients", identities.path().display()),
            "add its public key to encryption.recipients, or name the right file",
        ),
        (Some(_), Some(identities)) if identities.is_exposed() => Finding::warning(
            ENCRYPTION,
            format!("others may read {}", identities.path().display()),
            "run \"chmod 600\" on it",
        ),
        (Some(recipients), Some(_)) => {
            let found = format!("for {}, and can be opened here", recipients.names().join(", "));
            Finding::ok(ENCRYPTION, found)
        }
    }
}

fn hooks(config: &Config) -> Finding {
    let hooks = [("before_backup", &config.before_backup), ("after_backup", &config.after_backup)];
    let programs: Vec<_> =
        hooks.iter().filter_map(|(name, words)| Some((name, words.first()?))).collect();
    if programs.is_empty() {
        return Finding::skipped(HOOKS, "there are none");
    }
    if let Some((name, program)) =
        programs.iter().find(|(_, program)| command::find(program).is_none())
    {
        return Finding::failure(
            HOOKS,
            format!("hooks.{name}: there is no program \"{program}\""),
            "check the command, and PATH if it has no slash: without before_backup no backup is made",
        );
    }
    let (limit, stop) = (config.hook_timeout, config.final_timeout);
    if limit * 2 > stop {
        return Finding::warning(
            HOOKS,
            format!(
                "each may take {} of the {} of a final backup",
                text::setting(limit),
                text::setting(stop)
            ),
            "lower hooks.timeout, or raise shutdown.backup_timeout",
        );
    }
    let names: Vec<_> = programs.iter().map(|(name, _)| **name).collect();
    Finding::ok(HOOKS, format!("{}, {} each", names.join(" and "), text::setting(limit)))
}

fn notices(config: &Config) -> Finding {
    if config.snitch_url.is_none() && config.webhook_url.is_none() {
        let why =
            "nobody is told of a failure: set snitch.url or webhook.url, or watch the metrics";
        return Finding::skipped(NOTICES, why);
    }
    Finding::ok(NOTICES, "set; \"simplebackup notify --test\" tries them")
}
