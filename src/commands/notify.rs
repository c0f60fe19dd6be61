//! `simplebackup notify --test`: whether anybody would hear of a failure.

use clap::Args;

use super::Done;
use crate::config::Config;
use crate::exit::FATAL;
use crate::notify;
use crate::output::show;

/// `simplebackup notify`.
#[derive(Debug, Args)]
pub(crate) struct NotifyArgs {
    /// Send a test through every channel that is configured
    #[arg(long, required = true)]
    test: bool,
}

pub(crate) async fn notify(config: &Config, _arguments: &NotifyArgs) -> Done {
    let told = notify::test(config).await;
    if told.is_empty() {
        return Err(
            "nobody would be told: set snitch.url (SIMPLE_BACKUP_SNITCH_URL) for pings, or \
                    webhook.url (SIMPLE_BACKUP_WEBHOOK_URL) for events as JSON"
                .into(),
        );
    }
    for line in &told {
        match line {
            Ok(line) | Err(line) => show(line)?,
        }
    }
    Ok(if told.iter().all(Result::is_ok) { 0 } else { FATAL })
}
