//! The two servers, by name.

use super::names::DATABASE;

/// One of the servers behind the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    Postgres,
    PgBouncer,
}

impl Server {
    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::PgBouncer => "pgbouncer",
        }
    }

    /// Returns a database that is always there.
    pub(super) fn database(self) -> &'static str {
        match self {
            Self::Postgres => DATABASE,
            Self::PgBouncer => "pgbouncer",
        }
    }
}

/// Settings of a server that a user adds to those that are always there.
pub(crate) type ServerSettings = Vec<(String, String)>;
