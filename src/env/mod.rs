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
//! What is set in the environment counts before what [`load_dotenv`] has read from a file, whatever the
//! variables' names. A direct URL from the file, beside an app's URL from the environment, must lead to
//! the same database, else [`EnvError::Elsewhere`] names both: migrations never go where only a
//! forgotten file points.

mod dotenv;
mod error;
#[cfg(test)]
mod tests;

use std::env::VarError;
use std::fmt;
use std::path::PathBuf;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

pub use self::dotenv::load_dotenv;
pub use self::error::{Elsewhere, EnvError};
use crate::url::{DatabaseUrl, Endpoint, Host, HostName};

/// The URL for the app, as it is given: pooled or direct.
///
/// # Errors
///
/// [`EnvError`] says which variables were looked at, or which one cannot be used.
pub fn app_url() -> Result<Found, EnvError> {
    app_url_from(&process)
}

/// Returns the URL for the app as [`load_dotenv`] and [`app_url`] would, but leaves the environment as it is.
pub(crate) fn app_url_or_dotenv() -> Result<Found, EnvError> {
    match app_url() {
        Err(EnvError::Missing { .. }) => app_url_from(&process_or(dotenv::read()?)),
        found => found,
    }
}

/// Returns the direct URL as [`load_dotenv`] and [`direct_url`] would, but leaves the environment as it is.
#[cfg(feature = "migrations")]
pub(crate) fn direct_url_or_dotenv() -> Result<Found, EnvError> {
    direct_url_from(&process_or(dotenv::read()?))
}

/// The URL that leads to Postgres itself, never to the pooler.
///
/// # Errors
///
/// [`EnvError`] says which variables were looked at, or which one cannot be used.
pub fn direct_url() -> Result<Found, EnvError> {
    direct_url_from(&process)
}

/// A URL, and where it was found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Found {
    /// The URL.
    pub url: DatabaseUrl,
    /// The variable that it was read from.
    pub variable: &'static str,
    /// The place where that variable is set.
    pub source: Source,
    /// Whether `-pooler` had to be taken off what the variable says.
    pub derived: bool,
}

/// The place where a variable is set.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// The environment of the process.
    Environment,
    /// A `.env` file that [`load_dotenv`] has read: weaker than the environment.
    File(PathBuf),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment => f.write_str("the environment"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

impl fmt::Display for Found {
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

/// Returns a variable's value and where it is set; an empty one is none.
type Lookup<'a> = &'a dyn Fn(&'static str) -> Result<Option<(String, Source)>, EnvError>;

/// How strong a source is: what stands in the environment was meant for this very process.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Layer {
    Environment,
    File,
}

impl Layer {
    const STRONGEST_FIRST: [Self; 2] = [Self::Environment, Self::File];
}

impl Source {
    fn layer(&self) -> Layer {
        match self {
            Self::Environment => Layer::Environment,
            Self::File(_) => Layer::File,
        }
    }
}

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

/// Looks in the file for what the environment lacks.
fn process_or(
    file: Option<dotenv::File>,
) -> impl Fn(&'static str) -> Result<Option<(String, Source)>, EnvError> {
    move |variable| match std::env::var_os(variable) {
        Some(_) => process(variable),
        None => Ok(file.as_ref().and_then(|file| file.variable(variable))),
    }
}

fn app_url_from(lookup: Lookup<'_>) -> Result<Found, EnvError> {
    find_app(lookup)?.ok_or_else(|| EnvError::Missing {
        looked_at: APP.to_vec(),
    })
}

fn find_app(lookup: Lookup<'_>) -> Result<Option<Found>, EnvError> {
    for layer in Layer::STRONGEST_FIRST {
        if let Some(found) = first_of(&APP, layer, lookup)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn direct_url_from(lookup: Lookup<'_>) -> Result<Found, EnvError> {
    let found = match find_direct(lookup)? {
        // Nothing is stronger than the environment, and what is set there for this process counts.
        Some(found) if found.source.layer() == Layer::Environment => Some(found),
        Some(direct) => match find_app(lookup)? {
            Some(app) if app.source.layer() == Layer::Environment => Some(beside(&app, direct)?),
            _ => Some(direct),
        },
        None => find_app(lookup)?,
    };
    let Some(found) = found else {
        return Err(EnvError::Missing {
            looked_at: [&DIRECT[..], &[HOST], &APP].concat(),
        });
    };
    // Also a variable that should be direct: the pooler's URL pasted there is a common slip.
    Ok(Found {
        url: found.url.direct(),
        derived: found.url.endpoint() == Endpoint::Pooled,
        ..found
    })
}

/// Returns the `direct` URL from a weaker source than the app's, which must lead to the same database:
/// who overrides the one means the other too.
fn beside(app: &Found, direct: Found) -> Result<Found, EnvError> {
    if place(&app.url) == place(&direct.url) {
        return Ok(direct);
    }
    Err(EnvError::Elsewhere(Box::new(Elsewhere {
        app: app.variable,
        app_source: app.source.clone(),
        app_database: in_words(&app.url),
        direct: direct.variable,
        direct_source: direct.source,
        direct_database: in_words(&direct.url),
    })))
}

/// What tells one database from another; not the role, since migrations may have one of their own.
#[derive(PartialEq, Eq)]
struct Place {
    /// Without `-pooler`.
    hosts: Vec<Host>,
    /// The one among the options.
    endpoint: Option<String>,
    database: String,
}

fn place(url: &DatabaseUrl) -> Place {
    let url = url.direct();
    Place {
        hosts: url.hosts().to_vec(),
        endpoint: url.endpoint_option().map(str::to_owned),
        database: url.database().or(url.user()).unwrap_or_default().to_owned(),
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

fn find_direct(lookup: Lookup<'_>) -> Result<Option<Found>, EnvError> {
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

fn first_of(
    variables: &[&'static str],
    layer: Layer,
    lookup: Lookup<'_>,
) -> Result<Option<Found>, EnvError> {
    for variable in variables.iter().copied() {
        if let Some((text, source)) = lookup(variable)? {
            if source.layer() == layer {
                return parse(variable, source, &text).map(Some);
            }
        }
    }
    Ok(None)
}

/// The Vercel integration's variables for drivers that take no URL.
fn from_parts(layer: Layer, lookup: Lookup<'_>) -> Result<Option<Found>, EnvError> {
    let Some((host, source)) = lookup(HOST)?.filter(|(_, source)| source.layer() == layer) else {
        return Ok(None);
    };
    let companion = |companion| match lookup(companion)? {
        Some((value, its_source)) if its_source == source => Ok(Some(value)),
        None => Ok(None),
        Some((_, its_source)) => Err(EnvError::Scattered {
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

fn parse(variable: &'static str, source: Source, text: &str) -> Result<Found, EnvError> {
    match DatabaseUrl::parse(text) {
        Ok(url) => Ok(Found {
            url,
            variable,
            source,
            derived: false,
        }),
        Err(source) => Err(EnvError::Url { variable, source }),
    }
}
