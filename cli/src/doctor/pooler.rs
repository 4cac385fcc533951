//! The pooler in between, if there is one, and what it does with the names of statements.

use diesel_neon::Endpoint;
use tokio_postgres::{Client, Error};

use super::report::{Check, Finding, Status};
use super::sql::{rows, text};

/// Returns the backend that serves a session; two open sessions with the same one share it through a pooler.
pub(crate) async fn backend(client: &Client) -> Result<String, Error> {
    Ok(text(
        rows(client, "SELECT pg_backend_pid()").await?.first(),
        0,
    ))
}

/// What became of the name of a prepared statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Naming {
    /// The pooler tracks names, and gives statements its own.
    Tracked,
    /// The server knows the client's name: there is no pooler, or one that does not track names.
    Own,
    /// Another client has taken the name.
    Taken,
}

/// Prepares a named statement in a transaction, which even a pooler keeps on one server connection, and
/// asks the server for its name.
pub(crate) async fn naming(client: &Client) -> Result<Naming, Error> {
    client.batch_execute("BEGIN").await?;
    let mark = format!("SELECT 'diesel-neon doctor {}'", std::process::id());
    let found = match client.prepare(&mark).await {
        Ok(statement) => {
            let asked = "SELECT name FROM pg_prepared_statements WHERE statement LIKE 'SELECT ''diesel-neon doctor %'";
            let names = rows(client, asked).await;
            // Close must reach the same server connection.
            drop(statement);
            names.map(|names| {
                let renamed = names
                    .iter()
                    .any(|row| row.get(0).is_some_and(|name| name.starts_with("PGBOUNCER")));
                match renamed {
                    true => Naming::Tracked,
                    false => Naming::Own,
                }
            })
        }
        Err(error) if error.code().is_some_and(|code| code.code() == "42P05") => Ok(Naming::Taken),
        Err(error) => Err(error),
    };
    client.batch_execute("ROLLBACK").await?;
    found
}

/// Returns whether named statements are safe; `shared` means that sessions share backends, whatever the host's name
/// says.
pub(crate) fn statements(endpoint: Endpoint, shared: bool, naming: Naming) -> Check {
    let check = |summary: &str| {
        Check::ok("statements", summary)
            .fact("tracked", naming == Naming::Tracked)
            .fact("shared", shared)
    };
    match (endpoint, naming) {
        (_, Naming::Tracked) => {
            check("the pooler tracks prepared statements, so names are safe")
        }
        (Endpoint::Direct, Naming::Own) if !shared => {
            check("prepared statements keep their names: sessions are your own")
        }
        (endpoint, _) => check("the pooler does not track prepared statements").found(
            match endpoint {
                // The pool knows that it is pooled, and names none.
                Endpoint::Pooled => Status::Warning,
                Endpoint::Direct => Status::Failure,
            },
            match endpoint {
                Endpoint::Pooled => Finding::new(
                    "statements-untracked",
                    "a named statement lands on whatever server connection is free, so names clash or run \
                     another client's statement; diesel-neon sends none with a name here, other drivers do",
                    "nothing for diesel-neon; for other clients of this URL use the direct one, or switch \
                     their statement cache off; a pooler of your own needs PgBouncer 1.21 with \
                     max_prepared_statements",
                ),
                Endpoint::Direct => Finding::new(
                    "statements-untracked",
                    "sessions go through a pooler that does not track prepared statements, and the host's \
                     name does not say that it is one: named statements clash, or run another client's",
                    "use a direct URL; a pooler of your own needs PgBouncer 1.21 with \
                     max_prepared_statements",
                ),
            },
        ),
    }
}

/// Returns whether sessions are the client's own, as migrations need them and a direct URL promises.
pub(crate) fn check(endpoint: Endpoint, shared: bool, migrates: bool) -> Check {
    let check = |summary: &str| Check::ok("pooler", summary).fact("shared", shared);
    match (endpoint, shared) {
        (Endpoint::Pooled, true) => {
            check("sessions share server connections, one transaction at a time")
        }
        (Endpoint::Pooled, false) => check("each session has a server connection at the moment"),
        (Endpoint::Direct, false) => check("none: each session is one of Postgres's own"),
        (Endpoint::Direct, true) => check("two sessions share one server connection").found(
            Status::Failure,
            Finding::new(
                "pooler-hidden",
                match migrates {
                    true => {
                        "this URL should be direct, and leads through a pooler all the same: migrations \
                         would run without a lock, and lose what they SET"
                    }
                    false => {
                        "the host's name does not end in -pooler, yet there is a pooler: the pool takes \
                         sessions for its own that are not"
                    }
                },
                "set DATABASE_URL_UNPOOLED to a URL that leads to Postgres itself",
            ),
        ),
    }
}
