//! The options of the doctor, and its help.

use std::path::PathBuf;
use std::time::Duration;

use anstream::ColorChoice;
use clap::{Args, ValueEnum};

use super::websocket::Way;
use crate::duration::{self, Window};

#[derive(Args)]
pub(crate) struct Options {
    /// How many instances of the app there are at most, each with a pool of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) instances: u32,
    /// The pool's max_size
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) max_size: Option<u32>,
    /// The compute's "scale to zero" setting: 300s, 5m, …, or never
    #[arg(long, value_name = "DURATION", value_parser = duration::window)]
    pub(super) suspend_after: Option<Window>,
    /// The folder with the migrations [default: where the diesel CLI would look]
    #[arg(long, value_name = "FOLDER")]
    pub(super) migration_dir: Option<PathBuf>,
    /// The way to look at, whatever the URL says [default: the URL's, and port 443 if Postgres's own is blocked]
    #[arg(long, value_name = "WAY", value_enum)]
    pub(super) transport: Option<Way>,
    /// How long each step may take, a login with its cold start too [default: the pool's connect_timeout]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub(super) timeout: Option<Duration>,
    /// Print one JSON document instead of text
    #[arg(long)]
    pub(super) json: bool,
    /// When to use colours; auto: on a terminal, unless NO_COLOR is set
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = Colors::Auto)]
    pub(super) color: Colors,
}

#[derive(Clone, Copy, ValueEnum)]
pub(super) enum Colors {
    Auto,
    Always,
    Never,
}

impl From<Colors> for ColorChoice {
    fn from(colors: Colors) -> Self {
        match colors {
            Colors::Auto => Self::Auto,
            Colors::Always => Self::Always,
            Colors::Never => Self::Never,
        }
    }
}

pub(crate) const ABOUT: &str = "\
Look at the environment and the database, and say what is wrong

Goes the way that a connection of the pool goes, step by step with the time of each: variables, name
look-up, TCP, TLS, login, then what the database says of itself. Every failure comes with the error, what
it means, and how to mend it.

    diesel-neon doctor
    diesel-neon doctor --instances 4 --max-size 20 --suspend-after 60s
    diesel-neon doctor --transport auto
    diesel-neon doctor --json | jq '.checks[] | select(.status == \"failure\")'

It looks at the app's endpoint and at the direct one. It changes nothing, but a suspended compute wakes, as
with any connection. No password is ever printed.";

const MORE: &str = "\
Checks:
  environment     which variable each URL comes from, and whether it can be used
  parameters      what drivers other than this one would choke on
  sslmode         what it means here
  dns, tcp        every address of every host
  websocket       whether port 443 works
  tls             version, negotiation, ALPN
  certificate     whose, by whom, for how long; a warning below 14 days
  endpoint        the endpoint, as the server sees it
  authentication  the role, and whether the login is bound to TLS
  start           cold or warm
  server, clock, time-zone, round-trip
  connections     max_size times the instances, against what the server takes
  pooler          whether sessions are shared
  statements      whether a pooler tracks prepared statements
  activity        what keeps the compute awake, as far as this role may see
  migrations      the folder against __diesel_schema_migrations, on the direct endpoint
  same-database   whether both URLs lead to one
  pool            what a pool with these settings would do

Exit status: 0 all well, or warnings only; 1 a failure; 2 wrong usage.

JSON:
  format, verdict (ok, warning, failure), elapsed_ms, failures, warnings,
  endpoints: roles (app, direct), kind (pooled, direct), variable, file, derived, url
  checks: endpoint (app, direct, null), check, status (ok, warning, failure, skipped), elapsed_ms,
          summary, details, facts; with a warning or a failure also code, error, meaning, mend
  Names of checks, codes and facts stay; texts may change.";

pub(crate) fn more_help() -> String {
    format!("{}\n\n{MORE}", crate::VARIABLES)
}
