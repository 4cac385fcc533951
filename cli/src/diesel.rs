//! `diesel-neon diesel`: the real `diesel` CLI on the direct endpoint.

use std::ffi::OsString;
use std::io;
use std::process::{Command, ExitCode, ExitStatus};

use diesel_neon::env::{EnvError, direct_url};

use crate::Failure;
use crate::url::for_libpq;

pub(crate) const ABOUT: &str = "\
Run the `diesel` CLI on the direct endpoint, never through the pooler

Migrations need a session of their own, which Neon's pooler does not give them. All arguments go to
the `diesel` that is found on the PATH, and its exit status comes back:

    diesel-neon diesel migration run
    diesel-neon diesel print-schema
    diesel-neon diesel --help

It gets the URL as DATABASE_URL and the password as PGPASSWORD in its environment: arguments can be
seen by everybody on the machine, and it quotes the URL when it cannot connect.";

pub(crate) fn run(arguments: &[OsString], has_dotenv: bool) -> Result<ExitCode, Failure> {
    if names_a_url(arguments) {
        return Err(Failure::UrlInArguments);
    }
    let mut diesel = Command::new("diesel");
    diesel.args(arguments);
    match direct_url() {
        Ok(found) => {
            // diesel quotes its URL when it cannot connect, and CI systems keep what it prints.
            diesel.env("DATABASE_URL", for_libpq(&found.url.without_password()));
            if let Some(password) = found.url.password() {
                diesel.env("PGPASSWORD", password);
            }
            // libpq takes from these variables what the URL leaves open: they would lead it elsewhere.
            for variable in ["PGHOSTADDR", "PGSERVICE", "PGDATABASE", "PGUSER"] {
                diesel.env_remove(variable);
            }
            become_process(diesel)
        }
        // Not every subcommand needs a database, and only diesel knows which one does.
        Err(missing @ EnvError::Missing { .. }) => {
            // An empty DATABASE_URL makes diesel panic, but keeps it from reading another one from a .env file.
            if !has_dotenv {
                diesel.env_remove("DATABASE_URL");
            }
            let status = diesel.status().map_err(start)?;
            if !status.success() {
                crate::note(format_args!("note: {missing}"));
            }
            Ok(exit_code(status))
        }
        Err(error) => Err(error.into()),
    }
}

fn names_a_url(arguments: &[OsString]) -> bool {
    arguments
        .iter()
        .map(|argument| argument.as_encoded_bytes())
        .take_while(|argument| *argument != b"--")
        .any(|argument| {
            argument
                .strip_prefix(b"--database-url")
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"="))
        })
}

#[cfg(unix)]
fn become_process(mut command: Command) -> Result<ExitCode, Failure> {
    use std::os::unix::process::CommandExt;

    Err(start(command.exec()))
}

#[cfg(not(unix))]
fn become_process(mut command: Command) -> Result<ExitCode, Failure> {
    command.status().map(exit_code).map_err(start)
}

fn start(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::NotFound => Failure::NotInstalled,
        _ => Failure::NotRunnable(error),
    }
}

fn exit_code(status: ExitStatus) -> ExitCode {
    #[cfg(unix)]
    let signal = std::os::unix::process::ExitStatusExt::signal(&status).map(|signal| 128 + signal);
    #[cfg(not(unix))]
    let signal = None;
    // Windows has exit codes beyond a byte, and their lowest byte must not look like success.
    match status.code().or(signal).map(u8::try_from) {
        Some(Ok(code)) => ExitCode::from(code),
        _ => ExitCode::FAILURE,
    }
}
