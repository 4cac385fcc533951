//! [`EnvError`]: why the environment does not lead to a database.

use std::path::PathBuf;

use super::Source;
use crate::url::UrlError;

/// The environment does not say, or not usably, where the database is.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
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
    /// A variable is set to something that is not a usable URL.
    #[error("{variable}: {source}")]
    Url {
        /// The variable.
        variable: &'static str,
        /// What is wrong with it.
        source: UrlError,
    },
    /// A variable is not UTF-8.
    #[error("{variable} is not UTF-8")]
    NotUtf8 {
        /// The variable.
        variable: &'static str,
    },
    /// `PGHOST_UNPOOLED` is set, but one that must go with it is not.
    #[error(
        "PGHOST_UNPOOLED is set, but {missing} is not: set it too, or set DATABASE_URL_UNPOOLED"
    )]
    Companion {
        /// The variable that is missing.
        missing: &'static str,
    },
    /// `PGHOST_UNPOOLED` and one that must go with it are set in different places, so that together
    /// they might lead to a database that neither of them means.
    #[error(
        "PGHOST_UNPOOLED is set in {source_of_host}, but {companion} in {source_of_companion}: set them in \
         one place, or set DATABASE_URL_UNPOOLED"
    )]
    #[non_exhaustive]
    Scattered {
        /// The place of `PGHOST_UNPOOLED`.
        source_of_host: Source,
        /// The variable that must go with it.
        companion: &'static str,
        /// That variable's place.
        source_of_companion: Source,
    },
    /// The direct URL comes from a weaker source than the app's, and leads to another database: the
    /// app's was overridden, and the direct one was not.
    #[error(transparent)]
    Elsewhere(Box<Elsewhere>),
    /// The `.env` file cannot be used.
    #[error("{}{}: {reason}", .path.display(), .line.map_or(String::new(), |line| format!(", line {line}")))]
    #[non_exhaustive]
    DotEnv {
        /// The file.
        path: PathBuf,
        /// The line at fault, counted from one.
        line: Option<usize>,
        /// Why it cannot be used.
        reason: String,
    },
}

/// A direct URL leads to another database than the app's URL, which comes from a stronger source.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{app}, set in {app_source}, leads to {app_database}, but {direct}, set in {direct_source}, to \
     {direct_database}: set {direct} in {app_source} too, or set it to nothing there, so that it is derived \
     from {app}"
)]
#[non_exhaustive]
pub struct Elsewhere {
    /// The app's variable.
    pub app: &'static str,
    /// The place where it is set.
    pub app_source: Source,
    /// The database and the host that it leads to.
    pub app_database: String,
    /// The direct URL's variable.
    pub direct: &'static str,
    /// The place where it is set.
    pub direct_source: Source,
    /// The database and the host that it leads to.
    pub direct_database: String,
}

crate::util::debug_is_display!(EnvError);
