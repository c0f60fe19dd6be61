//! What shells and `man` want to know: made of the command line's own definition and of the list of
//! settings, so that neither can say something else than the program does.

use std::fmt::Write;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Command, ValueEnum};
use clap_complete::shells::{Bash, Fish, Zsh};
use clap_mangen::Man;

use crate::config::{SETTINGS, variable};
use crate::output::show;

const NAME: &str = "simplebackup";

/// The shells that completions are for.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Why there are no manual pages.
#[derive(Debug, thiserror::Error)]
#[error("manual pages cannot be written to \"{}\"; look at its rights and its disk", folder.display())]
struct PagesError {
    folder: PathBuf,
    source: io::Error,
}

/// Prints what the shell has to source.
pub(crate) fn completions(
    mut command: Command,
    shell: Shell,
) -> Result<i32, Box<dyn std::error::Error>> {
    let mut script = Vec::new();
    match shell {
        Shell::Bash => clap_complete::generate(Bash, &mut command, NAME, &mut script),
        Shell::Zsh => clap_complete::generate(Zsh, &mut command, NAME, &mut script),
        Shell::Fish => clap_complete::generate(Fish, &mut command, NAME, &mut script),
    }
    show(String::from_utf8(script)?.trim_end())?;
    Ok(0)
}

/// Prints the page of the program, or writes that and those of its commands to a folder.
pub(crate) fn manual(
    command: Command,
    folder: Option<&Path>,
) -> Result<i32, Box<dyn std::error::Error>> {
    let page = main_page(command.clone())?;
    let Some(folder) = folder else {
        show(page.trim_end())?;
        return Ok(0);
    };
    let written = fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(command, folder))
        // In the place of the one without the settings.
        .and_then(|()| fs::write(folder.join(format!("{NAME}.1")), page));
    written.map_err(|source| PagesError { folder: folder.to_owned(), source })?;
    Ok(0)
}

fn main_page(command: Command) -> Result<String, Box<dyn std::error::Error>> {
    let mut page = Vec::new();
    Man::new(command).render(&mut page)?;
    Ok(String::from_utf8(page)? + &settings())
}

/// Returns the section about settings: the key, its variable, what it accepts.
fn settings() -> String {
    let mut section = String::from(
        ".SH SETTINGS\nDefaults < config.toml < environment < flags. The file is the one of \
         \\fB\\-\\-config\\fR, else of the variable SIMPLE_BACKUP_CONFIG, else config.toml in the \
         current folder. \\fBsimplebackup init\\fR writes one that explains every setting.\n",
    );
    for setting in SETTINGS {
        let (key, accepts) = (escaped(setting.key), escaped(setting.accepts));
        let variable = variable(setting.key);
        // Writing to memory does not fail.
        let _always = writeln!(section, ".TP\n\\fB{key}\\fR, {variable}\n{accepts}");
    }
    section
}

/// Escapes what troff would take for its own.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-")
}
