//! `simplebackup init`: the files to start from, exactly as the repository has them.
//!
//! They are embedded, so that there is one copy of each, and the one that people get is the one that
//! is tested. What to do next stands at the head of each file, and is printed from there.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use crate::output::show;

/// `simplebackup init`.
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// What the app will run on [default: config.toml alone]
    #[arg(value_name = "PLATFORM", value_enum)]
    platform: Option<Platform>,
    /// The folder to write to; "-" prints one file instead, the platform's if one is named
    #[arg(long, value_name = "DIR", default_value = ".")]
    output: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Platform {
    /// Docker Compose, with an S3 server to try things out
    Compose,
    /// Nomad
    Nomad,
    /// A machine with systemd
    Systemd,
    /// Kubernetes, with simplebackup in the app's image
    Kubernetes,
    /// Kubernetes, with simplebackup beside an image that stays as it is
    KubernetesSidecar,
    /// Fly.io
    Fly,
}

/// A file of the repository.
struct Template {
    name: &'static str,
    text: &'static str,
}

const CONFIG: Template = Template { name: "config.toml", text: include_str!("../config.toml") };

impl Platform {
    const fn template(self) -> Template {
        let (name, text) = match self {
            Self::Compose => ("docker-compose.yml", include_str!("../docker-compose.yml")),
            Self::Nomad => {
                ("simplebackup.nomad.hcl", include_str!("../deploy/simplebackup.nomad.hcl"))
            }
            Self::Systemd => {
                ("simplebackup.service", include_str!("../deploy/simplebackup.service"))
            }
            Self::Kubernetes => {
                ("statefulset.yaml", include_str!("../deploy/kubernetes/statefulset.yaml"))
            }
            Self::KubernetesSidecar => {
                ("sidecar.yaml", include_str!("../deploy/kubernetes/sidecar.yaml"))
            }
            Self::Fly => ("fly.toml", include_str!("../deploy/fly.toml")),
        };
        Template { name, text }
    }
}

/// What to do with a config.toml and nothing else.
const FIRST_STEPS: &str = "\
Give config.toml the path of your database and the address of your bucket (store.url, and
store.endpoint unless it is AWS), and the environment the keys. Then, beside it:

  export MINIO_ACCESS_KEY=… MINIO_SECRET_KEY=…
  simplebackup backup && simplebackup list
  simplebackup run --simple-backup -- ./server

For the file of a platform too: simplebackup init --help";

/// Why there are no files to start from.
#[derive(Debug, thiserror::Error)]
enum InitError {
    #[error(
        "\"{}\" exists, and nothing is overwritten; move it away, name another folder with --output, \
         or print the file with --output -",
        path.display()
    )]
    Exists { path: PathBuf },
    #[error("\"{}\" cannot be written; look at the folder's rights and its disk", path.display())]
    Write { path: PathBuf, source: io::Error },
}

pub(crate) fn init(arguments: &InitArgs) -> Result<i32, Box<dyn std::error::Error>> {
    let deployment = arguments.platform.map(Platform::template);
    if arguments.output == Path::new("-") {
        show(deployment.unwrap_or(CONFIG).text.trim_end())?;
        return Ok(0);
    }
    let steps = deployment.as_ref().map_or_else(|| FIRST_STEPS.to_owned(), head);
    let files: Vec<_> = [Some(CONFIG), deployment]
        .into_iter()
        .flatten()
        .map(|file| (arguments.output.join(file.name), file.text))
        .collect();
    // All are looked at before one is written, so that a refusal leaves nothing half done.
    if let Some((path, _)) = files.iter().find(|(path, _)| path.symlink_metadata().is_ok()) {
        return Err(InitError::Exists { path: path.clone() }.into());
    }
    for (path, text) in &files {
        write_new(path, text).map_err(|source| InitError::Write { path: path.clone(), source })?;
        show(&format!("wrote {}", path.display()))?;
    }
    show(&format!("\n{steps}"))?;
    Ok(0)
}

/// Writes a file that must not exist, and leaves no part of it behind.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(text.as_bytes()).inspect_err(|_| {
        // The error that made it useless is the one to report.
        let _stays = fs::remove_file(path);
    })
}

/// Returns the comment at the head of a file, as text.
fn head(file: &Template) -> String {
    let comment = file.text.lines().map_while(|line| line.strip_prefix('#'));
    let lines: Vec<_> = comment.map(|line| line.strip_prefix(' ').unwrap_or(line)).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_says_at_its_head_what_to_do_and_where_it_came_from() {
        for platform in Platform::value_variants() {
            let file = platform.template();
            let head = head(&file);
            assert!(head.lines().count() > 5, "{}: {head}", file.name);
            assert!(head.contains(file.name) || *platform == Platform::Compose, "{head}");
            assert!(head.contains("config.toml"), "{head}");
        }
    }
}
