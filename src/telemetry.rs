//! Logs, to standard error: the lines of the specification, or the same events as JSON.
//!
//! An event is a sentence plus fields. The text format prints the sentence alone, behind the tag
//! of its part of the service; steps below `info` and other crates' events show fields too.

use std::fmt::{self, Write};

use simplebackup_actors::SERVER_LOG;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, layer};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::{LookupSpan, Registry};
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::LogFormat;
use crate::output::LogOutput;

/// Starts logging. `verbosity` is how often `-v` was given; `RUST_LOG` wins over it. A second
/// call changes nothing.
pub fn start(format: LogFormat, verbosity: u8) {
    let levels = match verbosity {
        // What clients of the routes do wrong is their affair, and could fill the log.
        0 => "warn,actix_http=off,simple_backup=info,server=info,cronjob=info",
        1 => "info,simple_backup=debug,server=debug,cronjob=debug",
        _ => "debug,simple_backup=trace,server=trace,cronjob=trace",
    };
    start_with(format, levels);
}

/// Starts logging of warnings and errors only: a progress bar shows the rest.
pub(crate) fn start_quiet() {
    start_with(LogFormat::Text, "warn");
}

fn start_with(format: LogFormat, levels: &str) {
    let asked = std::env::var_os("RUST_LOG").unwrap_or_default();
    let asked = asked.to_string_lossy();
    let (mut wanted, unknown) = understood(&asked);
    // What is not understood must not silence the rest, nor the warning of it.
    if wanted.is_empty() || !unknown.is_empty() {
        wanted.insert(0, levels);
    }
    let filter: Targets = wanted.join(",").parse().expect("each part of it was understood");
    let lines = layer().with_writer(|| LogOutput).log_internal_errors(true);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match format {
        LogFormat::Text => Box::new(lines.event_format(TextLines)),
        LogFormat::Json => Box::new(lines.json().flatten_event(true).with_current_span(false)),
    };
    // Err means that a program that embeds us logs in its own way.
    let started = tracing_subscriber::registry().with(lines).with(filter).try_init();
    if started.is_ok() && !unknown.is_empty() {
        tracing::warn!(
            target: SERVER_LOG,
            "WARNING: Of RUST_LOG, {:?} is not understood and left out; write target=level, with a \
             level of error, warn, info, debug, trace or off",
            unknown.join(",")
        );
    }
}

/// What is understood of `RUST_LOG`, and what is not: it may be the app's, too, whose filter knows more.
fn understood(levels: &str) -> (Vec<&str>, Vec<&str>) {
    let parts = levels.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts.partition(|part| is_ours(part))
}

/// Returns whether it is a level, `target` or `target=level`. The library takes anything for a target, quotes
/// and halves of a span's fields too, and what nothing is called silences everything.
fn is_ours(part: &str) -> bool {
    let is_name = |name: &str| {
        !name.is_empty()
            && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '-' | '.'))
    };
    match part.split_once('=') {
        Some((target, level)) => {
            is_name(target) && !level.is_empty() && level.parse::<LevelFilter>().is_ok()
        }
        None => is_name(part),
    }
}

/// The text format.
struct TextLines;

impl<S, N> FormatEvent<S, N> for TextLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        let mut sentence = Sentence::default();
        event.record(&mut sentence);
        let tag = match metadata.target() {
            simplebackup_engine::LOG => Some("SIMPLE-BACKUP"),
            simplebackup_actors::SERVER_LOG => Some("SERVER"),
            simplebackup_actors::CRON_LOG => Some("CRONJOB"),
            _ => None,
        };
        match tag {
            Some(tag) => write!(writer, "[{tag}] {}", sentence.message)?,
            None => write!(
                writer,
                "[{}] {}: {}",
                metadata.level(),
                metadata.target(),
                sentence.message
            )?,
        }
        if tag.is_none() || *metadata.level() > Level::INFO {
            writer.write_str(&sentence.fields)?;
        }
        writeln!(writer)
    }
}

/// What an event says, and its fields as ` key=value`.
#[derive(Default)]
struct Sentence {
    message: String,
    fields: String,
}

impl Visit for Sentence {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a String can't fail.
        let _infallible = if field.name() == "message" {
            write!(self.message, "{value:?}")
        } else {
            write!(self.fields, " {}={value:?}", field.name())
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rust_log_says_for_another_filter_changes_no_level_of_ours() {
        let (known, unknown) =
            understood("warn, server=debug,,app[request{id=1}]=trace,cronjob=loud");
        assert_eq!(unknown.join(","), "app[request{id=1}]=trace,cronjob=loud");
        for other in
            ["\"info\"", "app[a{b,c}]=trace", "app[a]=trace", "server=", "server=inof", "=info"]
        {
            let (known, unknown) = understood(other);
            assert_eq!((known.join(","), unknown.join(",")), (String::new(), other.to_owned()));
        }
        let filter: Targets = known.join(",").parse().expect("understood");
        let is_logged = |target, level| filter.would_enable(target, &level);
        assert!(is_logged("server", Level::DEBUG) && !is_logged("server", Level::TRACE));
        assert!(is_logged("cronjob", Level::WARN) && !is_logged("cronjob", Level::INFO));
    }
}
