//! What can go wrong with the stand-in itself.

use std::io;

/// Why the stand-in could not start, or could not carry out a call.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The certificates could not be made.
    #[error("the certificates could not be made")]
    Certificate(#[from] rcgen::Error),

    /// A file, a directory, a socket or a process could not be used.
    #[error("{what}")]
    Io {
        /// What was being done.
        what: String,
        /// The system's error.
        source: io::Error,
    },

    /// A migration failed.
    #[error("migration `{name}` failed")]
    Migration {
        /// The name of its folder.
        name: String,
        /// The server's error.
        source: tokio_postgres::Error,
    },

    /// A program that the stand-in runs is not on this machine.
    #[error("`{program}` was not found in {searched}; install it with {install}")]
    MissingProgram {
        /// The program's name.
        program: &'static str,
        /// The directories that were searched.
        searched: String,
        /// The commands that install it.
        install: &'static str,
    },

    /// PostgreSQL serves the pooled endpoint itself.
    #[error("there is no PgBouncer: PostgreSQL serves the pooled endpoint itself")]
    NoPgBouncer,

    /// The function that was given to [`TestDatabaseBuilder::prepare`](crate::TestDatabaseBuilder::prepare) failed.
    #[error("the function given to `prepare` failed")]
    Preparation(#[source] Box<dyn std::error::Error + Send + Sync>),

    /// A program that the stand-in runs has failed.
    #[error("{program} failed: {detail}")]
    ProgramFailed {
        /// The program's name.
        program: &'static str,
        /// The last lines that it printed.
        detail: String,
    },

    /// A setting cannot be used.
    #[error("{0}")]
    Setting(String),

    /// The method is for servers that serve one database alone.
    #[error(
        "`{0}` would disturb other test databases; give this one servers of its own with `alone`"
    )]
    SharedServers(&'static str),

    /// The server refused a statement.
    #[error("the server refused the statement")]
    Sql(#[from] tokio_postgres::Error),

    /// The stand-in's thread has ended.
    #[error("the stand-in has stopped")]
    Stopped,

    /// The TLS configuration was refused.
    #[error("the TLS configuration was refused")]
    Tls(#[from] rustls::Error),
}

/// Adds what was being done to an error of the system.
pub(crate) trait Context<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|source| Error::Io {
            what: what(),
            source,
        })
    }
}
