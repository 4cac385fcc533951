//! [`EnvError`]: why the environment does not lead to a database.

use std::path::PathBuf;

use super::source::Source;
use crate::url::UrlError;

/// The variable that says how bytes reach the server, whatever the URL says.
pub(super) const TRANSPORT: &str = "DIESEL_NEON_TRANSPORT";

/// The environment has no usable URL of a database.
#[derive(Clone, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum EnvError {
    /// None of the variables is set.
    #[error(
        "no database URL in the environment: looked at {}; set DATABASE_URL to the connection string \
         from Neon's console, or put it into a .env file",
        .looked_at.join(", ")
    )]
    Missing {
        /// The variables that are unset or empty.
        looked_at: Vec<&'static str>,
    },
    /// The URL in a variable cannot be used.
    #[error("{variable} cannot be used")]
    Url {
        /// The variable.
        variable: &'static str,
        /// Why the URL cannot be used.
        source: UrlError,
    },
    /// `DIESEL_NEON_TRANSPORT` cannot be used, or does not fit the URL.
    #[error("{TRANSPORT} cannot be used with {variable}")]
    Transport {
        /// The variable of the URL.
        variable: &'static str,
        /// Why the URL cannot be used that way.
        source: UrlError,
    },
    /// A variable is not UTF-8.
    #[error("{variable} is not UTF-8")]
    NotUtf8 {
        /// The variable.
        variable: &'static str,
    },
    /// `PGHOST_UNPOOLED` is set, but a variable that it needs is not.
    #[error(
        "PGHOST_UNPOOLED is set, but {missing} is not: set it too, or set DATABASE_URL_UNPOOLED"
    )]
    Companion {
        /// The variable that is missing.
        missing: &'static str,
    },
    /// `PGHOST_UNPOOLED` and a variable that it needs are set in different places, so that together
    /// they might lead to a database that neither place means.
    #[error(
        "PGHOST_UNPOOLED is set in {source_of_host}, but {companion} in {source_of_companion}: set them in \
         one place, or set DATABASE_URL_UNPOOLED"
    )]
    #[non_exhaustive]
    MixedSources {
        /// The place where `PGHOST_UNPOOLED` is set.
        source_of_host: Source,
        /// The variable that `PGHOST_UNPOOLED` needs.
        companion: &'static str,
        /// The place where that variable is set.
        source_of_companion: Source,
    },
    /// The direct URL comes from a weaker source than the app's, and leads to another database: the
    /// app's was overridden, and the direct one was not.
    #[error(transparent)]
    DatabaseMismatch(Box<DatabaseMismatch>),
    /// The `.env` file cannot be used.
    #[error("{}{}: {reason}", .path.display(), .line.map_or(String::new(), |line| format!(", line {line}")))]
    #[non_exhaustive]
    DotEnv {
        /// The file.
        path: PathBuf,
        /// The line at fault, counted from one.
        line: Option<usize>,
        /// Why the file cannot be used.
        reason: String,
    },
}

/// The direct URL leads to another database than the app's URL, which comes from a stronger source.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error(
    "{app}, set in {app_source}, leads to {app_database}, but {direct}, set in {direct_source}, to \
     {direct_database}: set {direct} in {app_source} too, or set it to nothing there, so that it is derived \
     from {app}"
)]
#[non_exhaustive]
pub struct DatabaseMismatch {
    /// The variable of the app's URL.
    pub app: &'static str,
    /// The place where that variable is set.
    pub app_source: Source,
    /// The database and the host of the app's URL.
    pub app_database: String,
    /// The variable of the direct URL.
    pub direct: &'static str,
    /// The place where that variable is set.
    pub direct_source: Source,
    /// The database and the host of the direct URL.
    pub direct_database: String,
}

crate::util::debug_is_chain!(EnvError);
