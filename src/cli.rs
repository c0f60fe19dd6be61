//! The command line: what may be typed, and where it leads. Errors of the commands are printed
//! here, once, with their causes.

use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::commands;
use crate::config::{self, Config, Flags, Input};
use crate::doctor;
use crate::exit::{FATAL, USAGE};
use crate::init::{self, InitArgs};
use crate::manual::{self, Shell};
use crate::output::complain;
use crate::progress_bar;
use crate::service::{Service, ServiceError, log_start_failure};
use crate::signals::Signals;
use crate::telemetry;
use crate::version;
use simplebackup_actors::app::NoApp;
use simplebackup_actors::child::{ChildProcess, bury_orphans};
use simplebackup_engine::encryption::IdentityError;

/// Backs up the SQLite database of an app: restores it when it is missing, starts the app, backs
/// up every hour and on SIGTERM.
#[derive(Debug, Parser)]
#[command(name = "simplebackup", version = version::line(), about, after_help = EXAMPLES)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(flatten)]
    run: Run,
    #[command(subcommand)]
    command: Option<Command>,
}

const EXAMPLES: &str = "\
Examples:
  simplebackup run --simple-backup -- ./server --port 3000
  simplebackup list
  simplebackup restore --at 2024-11-24T12:00:00Z --to /tmp/yesterday.db
  simplebackup init compose
  simplebackup demo";

#[derive(Debug, Args)]
struct Global {
    /// Configuration file [default: config.toml if it is there]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The SQLite database
    #[arg(long, global = true, value_name = "PATH")]
    database: Option<String>,
    /// Where backups go
    #[arg(long, global = true, value_name = "s3://BUCKET/PREFIX|file:///FOLDER")]
    store: Option<String>,
    /// When backups are due: cron with seconds, in UTC
    #[arg(long, global = true, value_name = "EXPR")]
    schedule: Option<String>,
    /// How many backups stay
    #[arg(long, global = true, value_name = "N")]
    keep: Option<String>,
    /// Where to serve health, status and metrics, or "off"
    #[arg(long, global = true, value_name = "ADDR")]
    http: Option<String>,
    /// How log lines look: text or json
    #[arg(long, global = true, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Say more; twice for everything
    #[arg(short, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Debug, Args, Clone, Default)]
struct Run {
    /// Switch on restore, hourly backups and the final backup
    #[arg(long)]
    simple_backup: bool,
    /// The app and its arguments, after "--"
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

#[derive(Debug, Args)]
struct Doctor {
    /// As JSON
    #[arg(long)]
    json: bool,
    /// The app and its arguments as for "run", after "--", to be checked too
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Restore if needed, run the app, back up until it ends (the default)
    Run(Run),
    /// Make one backup now
    Backup,
    /// Bring a backup back
    Restore(commands::RestoreArgs),
    /// Show what is stored
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Download backups, unpack and check them, count their rows
    Verify(commands::VerifyArgs),
    /// Delete the backups that retention does not keep
    Prune(commands::PruneArgs),
    /// Ask a running service whether it lives; for a container's HEALTHCHECK
    Healthcheck {
        /// Ask whether it is ready instead: the database restored, the app started
        #[arg(long)]
        ready: bool,
    },
    /// Check everything that backups and a stop need, and say how to mend what is not right
    Doctor(Doctor),
    /// Say whether anybody would hear of a failure
    Notify(commands::NotifyArgs),
    /// Show the whole story in ten seconds, in a temporary folder
    Demo,
    /// Write a commented configuration to start from, and the file for a platform
    Init(InitArgs),
    /// Print completions for a shell
    Completions { shell: Shell },
    /// Print the manual page
    Man {
        /// Write it and the pages of all commands to this folder instead
        #[arg(long, value_name = "DIR")]
        output: Option<PathBuf>,
    },
}

impl Command {
    /// Returns whether it only tells of the program itself, whatever is configured.
    fn needs_no_configuration(&self) -> bool {
        matches!(self, Self::Init(_) | Self::Completions { .. } | Self::Man { .. })
    }
}

/// Parses the command line, does what it says, and returns the exit code.
#[must_use]
pub fn main() -> i32 {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are "errors" with exit code 0. A closed pipe loses only them.
            let _unprintable = error.print();
            return error.exit_code();
        }
    };
    let Cli { global, run, command } = cli;
    let is_bare = !run.simple_backup && run.command.is_empty();
    let command = match command {
        None if is_bare => {
            let _unprintable = Cli::command().print_help();
            return USAGE;
        }
        None => Command::Run(run),
        Some(Command::Run(inner)) => Command::Run(Run {
            simple_backup: inner.simple_backup || run.simple_backup,
            command: inner.command,
        }),
        Some(other) => other,
    };
    let input = Input::from_process(flags(&global, &command));
    let loaded =
        if command.needs_no_configuration() { Ok(Config::default()) } else { config::load(&input) };
    let config = match loaded {
        Ok(config) => config,
        Err(problems) => {
            complain(&problems.to_string());
            return USAGE;
        }
    };
    start_logging(&config, &command, global.verbose);
    execute(command, config)
}

/// Runs the command in an actix system on this thread: the child process has to be started by a
/// thread that lives as long as the process.
fn execute(command: Command, config: Config) -> i32 {
    if !matches!(command, Command::Run(_) | Command::Doctor(_) | Command::Demo) {
        leave_on_signals();
    }
    let system = actix::System::new();
    let code = system.block_on(async move {
        if let Err(error) = Signals::survive() {
            tracing::warn!("WARNING: Signals that pass by otherwise may end us: {error}");
        }
        let done = match command {
            Command::Run(_) => Ok(run_service(config).await),
            Command::Backup => commands::back_up(&config).await,
            Command::Restore(arguments) => commands::restore(&config, &arguments).await,
            Command::List { json: true } => commands::list_as_json(&config).await,
            Command::List { json: false } => commands::list(&config).await,
            Command::Verify(arguments) => commands::verify(&config, &arguments).await,
            Command::Prune(arguments) => commands::prune(&config, &arguments).await,
            Command::Healthcheck { ready } => commands::healthcheck(&config, ready).await,
            Command::Doctor(Doctor { json: true, .. }) => doctor::print_as_json(&config).await,
            Command::Doctor(Doctor { json: false, .. }) => doctor::print(&config).await,
            Command::Notify(arguments) => commands::notify(&config, &arguments).await,
            Command::Demo => crate::demo::run().await,
            Command::Init(arguments) => init::init(&arguments),
            Command::Completions { shell } => manual::completions(Cli::command(), shell),
            Command::Man { output } => manual::manual(Cli::command(), output.as_deref()),
        };
        done.unwrap_or_else(|error| {
            complain(&format!("error: {}", simplebackup_engine::text::chain(&*error)));
            if error.is::<IdentityError>() { USAGE } else { FATAL }
        })
    });
    // Dropping the runtime would wait for its threads without limit, also for one that a hanging
    // disk holds up; the process ends now and takes them along.
    std::mem::forget(system);
    code
}

/// As PID 1 the kernel drops every signal that has no handler, Ctrl-C and `docker stop` too: has
/// them end a command as they do elsewhere. What it leaves behind is swept by the next run.
fn leave_on_signals() {
    if std::process::id() == 1
        && let Err(error) = ctrlc::set_handler(|| std::process::exit(FATAL))
    {
        tracing::warn!("WARNING: Signals will be ignored: {error}");
    }
}

async fn run_service(config: Config) -> i32 {
    // Handle signals first: one that comes during the start must already be heard.
    let signals = match Signals::of_process() {
        Ok(signals) => signals,
        Err(error) => {
            complain(&format!("error: cannot handle signals: {error}"));
            return FATAL;
        }
    };
    let command = config.command.iter().map(Into::into).collect::<Vec<_>>();
    let service = if command.is_empty() {
        bury_orphans();
        Service::new(config, NoApp)
    } else {
        Service::new(config, ChildProcess::new(command))
    };
    service.run(&signals).await.unwrap_or_else(|error| {
        log_start_failure(&error);
        // What was configured is of no use, as much as a value that is not accepted.
        if matches!(error, ServiceError::Identity(_)) { USAGE } else { FATAL }
    })
}

/// The service always logs; a command shows a bar instead where it can.
fn start_logging(config: &Config, command: &Command, verbosity: u8) {
    let shows_bar = matches!(command, Command::Backup | Command::Restore(_) | Command::Verify(_));
    let is_short = command.needs_no_configuration()
        || matches!(
            command,
            Command::List { .. }
                | Command::Healthcheck { .. }
                | Command::Doctor(_)
                | Command::Notify(_)
        );
    if verbosity == 0 && (is_short || (shows_bar && progress_bar::is_wanted())) {
        telemetry::start_quiet();
    } else {
        telemetry::start(config.log_format, verbosity);
    }
}

fn flags(global: &Global, command: &Command) -> Flags {
    let mut values = Vec::new();
    let mut add = |key, flag, value: &Option<String>| {
        if let Some(value) = value {
            values.push((key, flag, value.clone()));
        }
    };
    add("database.path", "--database", &global.database);
    add("store.url", "--store", &global.store);
    add("backup.schedule", "--schedule", &global.schedule);
    add("backup.keep", "--keep", &global.keep);
    add("http.address", "--http", &global.http);
    add("log.format", "--log-format", &global.log_format);
    let mut app = Vec::new();
    if let Command::Doctor(doctor) = command {
        app.clone_from(&doctor.command);
    }
    if let Command::Run(run) = command {
        app.clone_from(&run.command);
        if run.simple_backup {
            values.push(("backup.enabled", "--simple-backup", "true".to_owned()));
        }
    }
    Flags { config: global.config.clone(), values, command: app }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_flags_stand_before_or_after_the_subcommand() {
        for words in [["--keep", "5", "list"], ["list", "--keep", "5"]] {
            let cli = Cli::try_parse_from(["simplebackup"].iter().chain(&words)).expect("valid");
            assert_eq!(cli.global.keep.as_deref(), Some("5"), "{words:?}");
        }
    }

    #[test]
    fn a_bare_flag_and_a_bare_command_mean_run() {
        let words = ["simplebackup", "--simple-backup", "--", "./server", "--port", "3000"];
        let cli = Cli::try_parse_from(words).expect("valid");
        assert!(cli.command.is_none() && cli.run.simple_backup);
        assert_eq!(cli.run.command, ["./server", "--port", "3000"]);
    }
}
