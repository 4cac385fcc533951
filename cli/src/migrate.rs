//! `diesel-neon migrate`: the crate's own migrator, without libpq and the `diesel` CLI.

use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use diesel_neon::HostName;
use diesel_neon::env::{ResolvedUrl, direct_url, load_dotenv};
use diesel_neon::migration::{Direction, Listed, MigrateError, Migrator, Progress, State, folder};
use tokio::runtime;

use crate::progress::UnderWay;
use crate::{Failure, duration, note};

#[derive(Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    task: Task,
    /// The folder with the migrations [default: where the diesel CLI would look]
    #[arg(long, value_name = "FOLDER", global = true)]
    migration_dir: Option<PathBuf>,
    /// How long to wait for another process that is migrating; 0 gives up at once
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = wait, global = true)]
    lock_wait: Duration,
}

#[derive(Subcommand)]
enum Task {
    /// Apply the pending migrations
    Run,
    /// Revert the migrations that were applied last, the latest first
    Revert(HowMany),
    /// Revert the migrations that were applied last, and apply them again
    Redo(HowMany),
    /// Show every migration, here or applied
    List,
    /// Name the pending migrations; exit status 3 if there are any
    Pending,
    /// Show the SQL that `run` would run
    DryRun,
}

#[derive(Args)]
struct HowMany {
    /// How many
    #[arg(
        short,
        long,
        value_name = "N",
        default_value_t = 1,
        conflicts_with = "all"
    )]
    number: usize,
    /// All of them
    #[arg(short, long)]
    all: bool,
}

impl HowMany {
    fn count(&self) -> usize {
        match self.all {
            true => usize::MAX,
            false => self.number,
        }
    }
}

pub(crate) const ABOUT: &str = "\
Run migrations on the direct endpoint, one process at a time

Needs neither libpq nor the diesel CLI. The layout of the folder and the table
__diesel_schema_migrations are the diesel CLI's, so that both can be used in turn:

    diesel-neon migrate run
    diesel-neon migrate revert --number 2
    diesel-neon migrate pending && echo up to date

A lock makes processes that start together take turns: each migration is run once, and all succeed. Each
runs in a transaction, unless its metadata.toml says otherwise. The folder is the one that is given, else
MIGRATION_DIRECTORY, else diesel.toml's, else the nearest `migrations`, here or above.

Exit status: 0 done; 1 a failure; 2 wrong usage; 3 `pending` has named a migration.";

pub(crate) fn run(options: &Options) -> Result<ExitCode, Failure> {
    load_dotenv()?;
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::Runtime)?;
    let outcome = runtime.block_on(work(options));
    // A name look-up that hangs would keep the process from ending.
    runtime.shutdown_background();
    outcome
}

async fn work(options: &Options) -> Result<ExitCode, Failure> {
    let found = direct_url()?;
    note(format_args!("{}", Place(&found)));
    let under_way = UnderWay::new();
    let source = folder(options.migration_dir.as_deref())?;
    let migrator = Migrator::new(&found.url, source)?
        .lock_wait(options.lock_wait)
        .on_progress({
            let under_way = under_way.clone();
            move |progress| tell(progress, &under_way)
        });
    match &options.task {
        Task::Run => summarize(options, under_way.watch(migrator.run_pending()).await?)?,
        Task::Revert(many) => summarize(
            options,
            under_way.watch(migrator.revert(many.count())).await?,
        )?,
        Task::Redo(many) => {
            summarize(options, under_way.watch(migrator.redo(many.count())).await?)?
        }
        Task::List => {
            for listed in migrator.list().await? {
                print(format_args!("{}", Line(&listed)))?;
            }
        }
        Task::Pending => {
            let pending = migrator.pending().await?;
            for listed in &pending {
                print(format_args!("{}", listed.name))?;
            }
            if !pending.is_empty() {
                return Ok(ExitCode::from(PENDING));
            }
        }
        Task::DryRun => {
            for script in migrator.dry_run().await? {
                let how = match script.in_transaction {
                    true => "",
                    false => ", not in a transaction",
                };
                print(format_args!("-- {}{how}", script.name))?;
                for batch in &script.batches {
                    print(format_args!("{}", batch.trim_end()))?;
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The exit status of `pending` if there are any: neither a failure nor wrong usage.
const PENDING: u8 = 3;

fn wait(text: &str) -> Result<Duration, String> {
    let zero = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    match zero.bytes().all(|digit| digit == b'0') && !zero.is_empty() {
        // The unit is checked all the same.
        true => duration::parse(&text.replacen('0', "1", 1)).map(|_| Duration::ZERO),
        false => duration::parse(text),
    }
}

fn tell(progress: &Progress, under_way: &UnderWay) {
    match progress {
        Progress::Waiting { holder, .. } => {
            note(format_args!("waiting for the lock, held by {holder}"));
        }
        Progress::Edited { name, .. } => note(format_args!(
            "{name} was edited after it was applied: this database has what it did before"
        )),
        Progress::Started {
            name, direction, ..
        } => under_way.begins(name, *direction),
        Progress::Finished(done) => {
            under_way.ends();
            let verb = match done.direction {
                Direction::Up => "applied",
                Direction::Down => "reverted",
            };
            // A closed stdout must not stop a migration.
            let _ = writeln!(io::stdout(), "{verb} {} in {:.1?}", done.name, done.took);
        }
        _ => {}
    }
}

fn summarize(
    options: &Options,
    outcome: Result<diesel_neon::migration::Report, MigrateError>,
) -> Result<(), Failure> {
    match outcome {
        Ok(report) if report.done.is_empty() => print(format_args!("nothing to do")),
        Ok(_) => Ok(()),
        Err(MigrateError::Locked { holder, waited, .. }) => {
            let holder = holder.map_or("another session".to_owned(), |holder| holder.to_string());
            Err(match options.lock_wait.is_zero() {
                true => Failure::Locked { holder },
                false => Failure::LockedFor { holder, waited },
            })
        }
        Err(error) => Err(error.into()),
    }
}

/// Prints a line. A reader that closes the pipe has seen enough; the exit status stands.
fn print(line: fmt::Arguments<'_>) -> Result<(), Failure> {
    match writeln!(io::stdout(), "{line}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(Failure::Output),
    }
}

/// The database that is migrated, and why it is that one.
struct Place<'a>(&'a ResolvedUrl);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = &self.0.url;
        let names = url.hosts().iter().map(|host| match &host.name {
            HostName::Tcp(name) if host.port == POSTGRES => name.clone(),
            name => format!("{name}:{}", host.port),
        });
        let hosts = names.collect::<Vec<_>>().join(", ");
        match url.database().or(url.user()) {
            Some(database) => write!(f, "database {database} on {hosts}")?,
            None => write!(f, "the default database on {hosts}")?,
        }
        match url.user() {
            Some(user) => write!(f, " as {user}")?,
            None => write!(f, " as this system's user")?,
        }
        write!(f, "; from {}", self.0)
    }
}

/// The default port, which is not shown.
const POSTGRES: u16 = 5432;

/// A line of `list`, with the diesel CLI's marks; `[!]`, for an edited migration, is not one of them.
struct Line<'a>(&'a Listed);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.0.name;
        match &self.0.state {
            State::Applied {
                run_on,
                edited: true,
                ..
            } => write!(f, "[!] {name}  {run_on}, edited since then"),
            State::Applied { run_on, .. } => write!(f, "[X] {name}  {run_on}"),
            State::Unknown { run_on, .. } => write!(f, "[?] {name}  {run_on}, not in the folder"),
            _ => write!(f, "[ ] {name}"),
        }
    }
}
