//! Logs, to standard error: the lines of the specification, or the same events as JSON.
//!
//! An event is a sentence plus fields. The text format prints the sentence alone, behind the tag
//! of its part of the service; steps below `info` and other crates' events show fields too.

use std::fmt::{self, Write};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::config::LogFormat;
use crate::output::LogOutput;

/// Starts logging. `verbosity` is how often `-v` was given; `RUST_LOG` wins over it. A second
/// call changes nothing.
pub fn start(format: LogFormat, verbosity: u8) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_unset| {
        EnvFilter::new(match verbosity {
            // What clients of the routes do wrong is their affair, and could fill the log.
            0 => "warn,actix_http=off,simple_backup=info,server=info,cronjob=info",
            1 => "info,simple_backup=debug,server=debug,cronjob=debug",
            _ => "debug,simple_backup=trace,server=trace,cronjob=trace",
        })
    });
    start_with(format, filter);
}

/// Starts logging of warnings and errors only: a progress bar shows the rest.
pub(crate) fn start_quiet() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_unset| EnvFilter::new("warn"));
    start_with(LogFormat::Text, filter);
}

fn start_with(format: LogFormat, filter: EnvFilter) {
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| LogOutput);
    // Err means that a program that embeds us logs in its own way.
    let _already = match format {
        LogFormat::Text => builder.event_format(TextLines).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).try_init(),
    };
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
