//! The `diesel-neon` command: migrations and the real `diesel` CLI on the direct endpoint, a
//! doctor, and a calculator of pools' sizes.

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]

mod completions;
mod diesel;
mod doctor;
mod duration;
mod man;
mod migrate;
mod progress;
mod size;
mod url;

use std::error::Error;
use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use diesel_neon::env::{EnvError, load_dotenv};
use diesel_neon::migration::MigrateError;
use diesel_neon::{PolicyError, UrlError};

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(failure) => {
            // A reader that closes the pipe has seen enough, which is no failure.
            if failure.is_broken_pipe() {
                return ExitCode::SUCCESS;
            }
            note(format_args!("{}", with_causes(&failure)));
            failure.exit_code()
        }
    }
}

/// Writes a line to stderr. `eprintln!` would panic if nobody reads it.
fn note(text: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "diesel-neon: {text}");
}

/// Diesel on Neon, from the command line.
#[derive(Parser)]
#[command(name = "diesel-neon", version, after_help = VARIABLES)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run the `diesel` CLI on the direct endpoint, never through the pooler
    #[command(
        disable_help_flag = true,
        override_usage = "diesel-neon diesel [ARGUMENTS OF THE DIESEL CLI]...",
        long_about = diesel::ABOUT,
        after_help = VARIABLES
    )]
    Diesel {
        /// Arguments of the diesel CLI, passed on unchanged, `--help` too
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Look at the environment and the database, and say what is wrong
    #[command(long_about = doctor::ABOUT, after_help = VARIABLES, after_long_help = doctor::more_help())]
    Doctor(doctor::Options),
    /// Run migrations on the direct endpoint, one process at a time
    #[command(long_about = migrate::ABOUT, after_help = VARIABLES)]
    Migrate(migrate::Options),
    /// Work out how large the instances' pools may be
    #[command(long_about = size::ABOUT)]
    Size(size::Options),
    /// Print the database URL that is used, and why
    #[command(long_about = url::ABOUT, after_help = VARIABLES)]
    Url(url::Options),
    /// Print a script that completes this command's arguments in a shell
    #[command(long_about = completions::ABOUT)]
    Completions(completions::Options),
    /// Print the manual's page, or write all pages into a folder
    #[command(long_about = man::ABOUT)]
    Man(man::Options),
}

const VARIABLES: &str = "\
Environment, then a .env file in this folder or above; in each, the first that is set wins:
  the app      DATABASE_URL, POSTGRES_URL
  direct       DATABASE_URL_UNPOOLED, POSTGRES_URL_NON_POOLING, DIRECT_URL,
               PGHOST_UNPOOLED with PGUSER, PGPASSWORD, PGDATABASE,
               else the app's without its -pooler";

fn run(cli: Cli) -> Result<ExitCode, Failure> {
    match cli.task {
        Task::Diesel { arguments } => diesel::run(&arguments, load_dotenv()?.is_some()),
        Task::Doctor(options) => doctor::run(&options),
        Task::Migrate(options) => migrate::run(&options),
        Task::Size(options) => size::run(&options),
        Task::Url(options) => url::run(&options),
        Task::Completions(options) => completions::run(&options),
        Task::Man(options) => man::run(&options),
    }
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Environment(#[from] EnvError),
    #[error(transparent)]
    Url(#[from] UrlError),
    #[error(
        "--database-url shows the password to everybody on this machine, and may lead through the \
         pooler: set DATABASE_URL_UNPOOLED instead, or run diesel itself"
    )]
    UrlInArguments,
    #[error(
        "the diesel CLI is not on the PATH; with libpq installed, this gets it: \
         cargo install diesel_cli --version ^2.3 --locked --no-default-features --features postgres"
    )]
    NotInstalled,
    #[error("the diesel CLI cannot be run")]
    NotRunnable(#[source] io::Error),
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    #[error("the migrations' lock is held by {holder}: --lock-wait 5m waits for it")]
    Locked { holder: String },
    #[error(
        "the migrations' lock was not free within {waited:.1?}: it is held by {holder}; try again when that \
         session is done, or give more time with --lock-wait"
    )]
    LockedFor { holder: String, waited: Duration },
    #[error(
        "stopped {}; that migration is undone, unless it was at its commit: diesel-neon migrate list tells",
        .migration.as_ref().map_or("before the next migration".to_owned(), |name| format!("in {name}"))
    )]
    Interrupted {
        migration: Option<String>,
        signal: u8,
    },
    #[error("the folder {} cannot be written", .path.display())]
    Folder { path: PathBuf, source: io::Error },
    #[error("no runtime can be started")]
    Runtime(#[source] io::Error),
    #[error("a pool cannot be built with this")]
    Policy(#[from] PolicyError),
    #[error("the output cannot be written")]
    Output(#[source] io::Error),
}

impl Failure {
    fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// Returns the exit status, by the conventions of shells and of clap.
    fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Environment(_)
            | Self::Url(_)
            | Self::Migrate(_)
            | Self::Locked { .. }
            | Self::LockedFor { .. }
            | Self::Folder { .. }
            | Self::Runtime(_)
            | Self::Output(_) => 1,
            Self::Interrupted { signal, .. } => 128 + signal,
            Self::UrlInArguments | Self::Policy(_) => 2,
            Self::NotRunnable(_) => 126,
            Self::NotInstalled => 127,
        })
    }
}

/// Joins an error and its causes to one line.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
