//! Which environment variable serves which role.
//!
//! | role | variables, the first that is set wins |
//! |---|---|
//! | the app | `DATABASE_URL`, `POSTGRES_URL` |
//! | migrations, the `diesel` CLI, `LISTEN` | `DATABASE_URL_UNPOOLED`, `POSTGRES_URL_NON_POOLING`, `DIRECT_URL`, `PGHOST_UNPOOLED` with `PGUSER`, `PGPASSWORD`, `PGDATABASE` (and `PGPORT`), else the app's without its `-pooler` |
//!
//! These are the names that Neon's console, `neonctl env pull`, the Vercel integration and Prisma
//! users write. An empty variable counts as unset, since dashboards and CI systems leave such ones
//! behind; `POSTGRES_URL_NO_SSL` is never used.
//!
//! `DIESEL_NEON_TRANSPORT` (`tcp`, `websocket`, `auto`) says how bytes reach the server, whatever the URL says: see
//! [`TransportMode`]. If it stands in a file, a URL of the environment that has a `transport` keeps its own.
//!
//! A variable of the environment counts before any that [`load_dotenv`] has read from a file, whatever
//! their names. A direct URL from the file, beside an app's URL from the environment, must lead to
//! the same database, else [`EnvError::DatabaseMismatch`] names both: migrations never go to a database that
//! only a forgotten file names.

mod dotenv;
mod error;
mod source;
#[cfg(test)]
mod tests;

use std::env::VarError;
use std::fmt;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

pub use self::dotenv::load_dotenv;
use self::error::TRANSPORT;
pub use self::error::{DatabaseMismatch, EnvError};
use self::source::Layer;
pub use self::source::Source;
use crate::url::{DatabaseUrl, Endpoint, Host, HostName, TransportMode};

/// Returns the URL for the app as the variable gives it, pooled or direct.
///
/// # Errors
///
/// Returns an [`EnvError`] that names the variables that were looked at, or the one that cannot be used.
pub fn app_url() -> Result<ResolvedUrl, EnvError> {
    app_url_from(&process)
}

/// Returns the URL for the app as [`load_dotenv`] and [`app_url`] would, but leaves the environment as it is.
pub(crate) fn app_url_or_dotenv() -> Result<ResolvedUrl, EnvError> {
    match app_url() {
        Err(EnvError::Missing { .. }) => app_url_from(&process_or(dotenv::read()?)),
        resolved => resolved,
    }
}

/// Returns the direct URL as [`load_dotenv`] and [`direct_url`] would, but leaves the environment as it is.
pub(crate) fn direct_url_or_dotenv() -> Result<ResolvedUrl, EnvError> {
    direct_url_from(&process_or(dotenv::read()?))
}

/// Returns the URL that leads to Postgres itself, never to the pooler.
///
/// # Errors
///
/// Returns an [`EnvError`] that names the variables that were looked at, or the one that cannot be used.
pub fn direct_url() -> Result<ResolvedUrl, EnvError> {
    direct_url_from(&process)
}

/// A URL, and the variable that it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResolvedUrl {
    /// The URL.
    pub url: DatabaseUrl,
    /// The variable that the URL was read from.
    pub variable: &'static str,
    /// The place where that variable is set.
    pub source: Source,
    /// Whether `-pooler` was removed from the variable's URL.
    pub derived: bool,
}

impl fmt::Display for ResolvedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.variable)?;
        if self.derived {
            f.write_str(" without its -pooler")?;
        }
        write!(f, ", set in {}", self.source)
    }
}

const APP: [&str; 2] = ["DATABASE_URL", "POSTGRES_URL"];
const DIRECT: [&str; 3] = [
    "DATABASE_URL_UNPOOLED",
    "POSTGRES_URL_NON_POOLING",
    "DIRECT_URL",
];
const HOST: &str = "PGHOST_UNPOOLED";

/// Returns a variable's value and source; `None` if it is unset or empty.
type Lookup<'a> = &'a dyn Fn(&'static str) -> Result<Option<(String, Source)>, EnvError>;

fn process(variable: &'static str) -> Result<Option<(String, Source)>, EnvError> {
    match std::env::var(variable) {
        Ok(value) if value.trim().is_empty() => Ok(None),
        Ok(value) => {
            let source = dotenv::source_of(variable, &value);
            Ok(Some((value, source)))
        }
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err(EnvError::NotUtf8 { variable }),
    }
}

/// Looks in the file for a variable that the environment lacks.
fn process_or(
    file: Option<dotenv::File>,
) -> impl Fn(&'static str) -> Result<Option<(String, Source)>, EnvError> {
    move |variable| match std::env::var_os(variable) {
        Some(_) => process(variable),
        None => Ok(file.as_ref().and_then(|file| file.variable(variable))),
    }
}

fn app_url_from(lookup: Lookup<'_>) -> Result<ResolvedUrl, EnvError> {
    let found = find_app(lookup)?.ok_or_else(|| EnvError::Missing {
        looked_at: APP.to_vec(),
    })?;
    over_transport(found, lookup)
}

fn find_app(lookup: Lookup<'_>) -> Result<Option<ResolvedUrl>, EnvError> {
    for layer in Layer::STRONGEST_FIRST {
        if let Some(found) = first_of(&APP, layer, lookup)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn direct_url_from(lookup: Lookup<'_>) -> Result<ResolvedUrl, EnvError> {
    let found = match find_direct(lookup)? {
        // The environment is the strongest source: this URL was set for this process.
        Some(found) if found.source.layer() == Layer::Environment => Some(found),
        Some(direct) => match find_app(lookup)? {
            Some(app) if app.source.layer() == Layer::Environment => Some(matching(&app, direct)?),
            _ => Some(direct),
        },
        None => find_app(lookup)?,
    };
    let Some(found) = found else {
        return Err(EnvError::Missing {
            looked_at: [&DIRECT[..], &[HOST], &APP].concat(),
        });
    };
    let found = over_transport(found, lookup)?;
    // The pooler's URL in a variable for the direct one is a common slip.
    Ok(ResolvedUrl {
        url: found.url.direct(),
        derived: found.url.endpoint() == Endpoint::Pooled,
        ..found
    })
}

/// Returns the `direct` URL, which comes from a weaker source than the app's, if both lead to the same
/// database: to override the app's is meant to override the direct one too.
fn matching(app: &ResolvedUrl, direct: ResolvedUrl) -> Result<ResolvedUrl, EnvError> {
    if Identity::of(&app.url) == Identity::of(&direct.url) {
        return Ok(direct);
    }
    Err(EnvError::DatabaseMismatch(Box::new(DatabaseMismatch {
        app: app.variable,
        app_source: app.source.clone(),
        app_database: in_words(&app.url),
        direct: direct.variable,
        direct_source: direct.source,
        direct_database: in_words(&direct.url),
    })))
}

/// The parts of a URL that identify a database. The role is none of them: migrations may have their own.
#[derive(PartialEq, Eq)]
struct Identity {
    /// The hosts without `-pooler`.
    hosts: Vec<Host>,
    /// The `endpoint` option.
    endpoint: Option<String>,
    database: String,
}

impl Identity {
    fn of(url: &DatabaseUrl) -> Self {
        let url = url.direct();
        Self {
            hosts: url.hosts().to_vec(),
            endpoint: url.endpoint_option().map(str::to_owned),
            database: url.database().or(url.user()).unwrap_or_default().to_owned(),
        }
    }
}

fn in_words(url: &DatabaseUrl) -> String {
    let hosts = url.hosts().iter().map(|host| match &host.name {
        HostName::Tcp(name) => format!("{name}:{}", host.port),
        HostName::Unix(_) => host.name.to_string(),
    });
    let hosts = hosts.collect::<Vec<_>>().join(",");
    let database = url
        .database()
        .or(url.user())
        .unwrap_or("the role's own database");
    format!("{database} on {hosts}")
}

fn find_direct(lookup: Lookup<'_>) -> Result<Option<ResolvedUrl>, EnvError> {
    for layer in Layer::STRONGEST_FIRST {
        if let Some(found) = first_of(&DIRECT, layer, lookup)? {
            return Ok(Some(found));
        }
        if let Some(found) = from_parts(layer, lookup)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Returns a URL as `DIESEL_NEON_TRANSPORT` asks for it.
fn over_transport(found: ResolvedUrl, lookup: Lookup<'_>) -> Result<ResolvedUrl, EnvError> {
    let Some((value, source)) = lookup(TRANSPORT)? else {
        return Ok(found);
    };
    // A URL that was set for this process means what it says.
    let is_weaker =
        source.layer() != Layer::Environment && found.source.layer() == Layer::Environment;
    if is_weaker && found.url.names_transport() {
        return Ok(found);
    }
    let transport = value.trim().parse::<TransportMode>();
    let url = transport.and_then(|transport| found.url.with_transport(transport));
    match url {
        Ok(url) => Ok(ResolvedUrl { url, ..found }),
        Err(source) => Err(EnvError::Transport {
            variable: found.variable,
            source,
        }),
    }
}

fn first_of(
    variables: &[&'static str],
    layer: Layer,
    lookup: Lookup<'_>,
) -> Result<Option<ResolvedUrl>, EnvError> {
    for variable in variables.iter().copied() {
        if let Some((text, source)) = lookup(variable)? {
            if source.layer() == layer {
                return parse(variable, source, &text).map(Some);
            }
        }
    }
    Ok(None)
}

/// Builds a URL from the Vercel integration's variables for drivers that take no URL.
fn from_parts(layer: Layer, lookup: Lookup<'_>) -> Result<Option<ResolvedUrl>, EnvError> {
    let Some((host, source)) = lookup(HOST)?.filter(|(_, source)| source.layer() == layer) else {
        return Ok(None);
    };
    let companion = |companion| match lookup(companion)? {
        Some((value, its_source)) if its_source == source => Ok(Some(value)),
        None => Ok(None),
        Some((_, its_source)) => Err(EnvError::MixedSources {
            source_of_host: source.clone(),
            companion,
            source_of_companion: its_source,
        }),
    };
    let needed = |missing| companion(missing)?.ok_or(EnvError::Companion { missing });
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let text = format!(
        "postgresql://{}:{}@{host}:{}/{}",
        encode(&needed("PGUSER")?),
        encode(&needed("PGPASSWORD")?),
        companion("PGPORT")?.as_deref().unwrap_or("5432"),
        encode(&needed("PGDATABASE")?),
    );
    parse(HOST, source, &text).map(Some)
}

fn parse(variable: &'static str, source: Source, text: &str) -> Result<ResolvedUrl, EnvError> {
    match DatabaseUrl::parse(text) {
        Ok(url) => Ok(ResolvedUrl {
            url,
            variable,
            source,
            derived: false,
        }),
        Err(source) => Err(EnvError::Url { variable, source }),
    }
}
