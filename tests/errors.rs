//! Errors: each prints its own words and leaves its cause's to `source()`; Debug prints the whole story. What Diesel's
//! errors tell through `DatabaseErrorExt`.

mod common;

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bb8::ManageConnection;
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use diesel::sql_query;
use diesel_async::{AsyncConnection, RunQueryDsl, SimpleAsyncConnection};
use diesel_neon::axum::Unavailable;
use diesel_neon::env::EnvError;
use diesel_neon::migration::{MigrateError, Migrator};
use diesel_neon::{
    BuildError, Connection, ConnectionManager, DatabaseErrorExt, DatabaseUrl, Policy, PolicyError,
    PoolError, RetryError, TlsError, UrlError, rustls,
};
use tokio::time::timeout;

use common::{HANG, connect, neon, pool, refusing_port};

/// The errors of the crate that have a cause, by themselves or through what they pass on.
const WITH_CAUSE: [&str; 9] = [
    "BuildError",
    "ConnectError",
    "EnvError",
    "ManagerError",
    "MigrateError",
    "PoolError",
    "RetryError",
    "TlsError",
    "Unavailable",
];

/// Those that have none.
const WITHOUT: [&str; 17] = [
    "AbandonedTransaction",
    "CloseError",
    "DatabaseMismatch",
    "EvictReason",
    "FailedMigration",
    "Invalid",
    "InvalidCursor",
    "InvalidPageSize",
    "ListenUnsupported",
    "ParameterUnsupported",
    "PolicyError",
    "RowsUnsupported",
    "Rule",
    "TransactionUnsupported",
    "UnreadRows",
    "UrlError",
    "Violation",
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => sources(&path, found),
            false if path.extension().is_some_and(|extension| extension == "rs") => {
                found.push(path);
            }
            false => {}
        }
    }
}

/// Returns the texts of the crate and of its command.
fn texts() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    sources(&root.join("src"), &mut found);
    sources(&root.join("cli/src"), &mut found);
    let texts = found.iter().map(|path| fs::read_to_string(path).unwrap());
    texts.collect()
}

/// Returns the names of the types that are public and errors.
fn public_errors() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for text in texts() {
        for (at, _) in text.match_indices("thiserror::Error)]") {
            // The item begins behind its attributes, at the left margin.
            let mut lines = text[at..].lines();
            let item = lines.find(|line| line.starts_with("pub"));
            let item = item.unwrap_or_default();
            for public in ["pub enum ", "pub struct "] {
                let Some(name) = item.strip_prefix(public) else {
                    continue;
                };
                let end = name
                    .find(|c: char| !c.is_alphanumeric())
                    .unwrap_or(name.len());
                names.insert(name[..end].to_owned());
            }
        }
        for line in text.lines().filter(|line| !line.starts_with(' ')) {
            let name = line.split("Error for ").nth(1);
            let name = name.and_then(|name| name.split_whitespace().next());
            if let Some(name) = name.filter(|name| text.contains(&format!("\npub struct {name}"))) {
                names.insert(name.to_owned());
            }
        }
    }
    names
}

#[test]
fn every_public_error_is_known_here() {
    let known = WITH_CAUSE.iter().chain(&WITHOUT);
    let known = known.map(|name| (*name).to_owned());
    assert_eq!(public_errors(), known.collect::<BTreeSet<_>>());
}

#[test]
fn no_message_quotes_its_source() {
    for text in texts() {
        // Each variant ends with the attribute, or the type, behind it.
        for variant in text.split("#[error(").skip(1) {
            let is_source = ["#[source]", "#[from]"]
                .iter()
                .any(|mark| variant.contains(mark));
            let message = variant.split(")]").next().unwrap();
            assert!(!(is_source && message.contains("{0")), "{message}");
            assert!(!message.contains("{source}"), "{message}");
        }
    }
}

/// Returns the error's words and those of its causes, outermost first.
fn words(error: &(dyn Error + 'static)) -> Vec<String> {
    let mut words = vec![error.to_string()];
    let mut next = error.source();
    while let Some(cause) = next {
        words.push(cause.to_string());
        next = cause.source();
    }
    words
}

/// Asserts that the words of each cause are printed once, and all of them by Debug, which `main` prints.
fn assert_story(error: &(impl Error + 'static), causes: usize) -> String {
    let words = words(error);
    assert_eq!(words.len(), causes + 1, "{words:?}");
    for pair in words.windows(2) {
        assert!(!pair[0].contains(&pair[1]), "{words:?}");
        assert!(!pair[1].contains(&pair[0]), "{words:?}");
    }
    let story = words.join(": ");
    assert_eq!(format!("{error:?}"), story);
    story
}

async fn refusal(url: &str) -> PoolError {
    let pool = pool(url, |policy| policy.connect_timeout(Duration::from_secs(4)));
    let refused = timeout(HANG, pool.get()).await.expect("no hang").map(drop);
    refused.expect_err("no connection")
}

#[tokio::test]
async fn a_failed_connect_tells_each_cause_once() {
    let neon = neon().await;
    let (_refusing, port) = refusing_port();
    let nowhere = format!("postgresql://u:p@127.0.0.1:{port}/d?sslmode=disable");
    let untrusted = neon.url().replace("sslrootcert", "application_name");
    let wrong = neon.postgres_url().replace(neon.password(), "wrong");
    for (url, causes, says) in [
        // The server's words are the error's own.
        (wrong, 0, "password authentication failed"),
        (
            neon.url().replace(neon.password(), "wrong"),
            0,
            "password authentication failed",
        ),
        (nowhere.clone(), 1, "Connection refused"),
        (untrusted, 1, "invalid peer certificate"),
    ] {
        let error = refusal(&url).await;
        let PoolError::Connect(refused) = error else {
            panic!("{error:?}");
        };
        let story = assert_story(&refused, causes);
        assert!(story.contains(says), "{story}");
        assert!(refused.reason().contains(says), "{}", refused.reason());
        let sent = refused
            .server_error()
            .map(|error| error.message().to_owned());
        assert_eq!(sent.is_some(), causes == 0, "{story}");
        assert_story(&PoolError::Connect(refused), causes);

        let url = DatabaseUrl::parse(&url).unwrap();
        let policy = Policy::builder().connect_timeout(Duration::from_secs(1));
        let manager = ConnectionManager::<Connection>::new(&url, policy.build().unwrap()).unwrap();
        let error = manager.connect().await.map(drop).unwrap_err();
        assert_story(&error, causes);
    }

    let alone = Connection::establish(&nowhere).await.map(drop);
    let alone = alone.unwrap_err();
    assert!(alone.to_string().contains("Connection refused"), "{alone}");
}

#[tokio::test]
async fn errors_with_a_cause_tell_it_once() {
    let env = || EnvError::Url {
        variable: "DATABASE_URL",
        source: UrlError::NoHost,
    };
    let rustls = || TlsError::Rustls(rustls::Error::General("no cipher suites".to_owned()));
    assert_eq!(
        assert_story(&env(), 1),
        "DATABASE_URL cannot be used: the database URL names no host"
    );
    assert_eq!(
        assert_story(&rustls(), 1),
        "rustls cannot be configured: unexpected error: no cipher suites"
    );
    assert_story(&BuildError::from(env()), 1);
    assert_story(&BuildError::from(rustls()), 1);
    let system = std::io::Error::other("too many open files");
    assert_story(&BuildError::Runtime(system.into()), 1);
    assert_story(&Unavailable::from(PoolError::Closed), 0);
    assert_story(
        &BuildError::from(PolicyError::Zero {
            setting: "max_size",
        }),
        0,
    );
    assert_story(&MigrateError::from(env()), 1);
    assert_story(&MigrateError::from(rustls()), 1);
    assert_story(&MigrateError::Source("no folder".into()), 1);
    assert_story(&RetryError::Pool(PoolError::Closed), 0);
    assert_story(&RetryError::Query(DieselError::NotFound), 0);

    let neon = neon().await;
    let wrong = neon.url().replace(neon.password(), "wrong");
    let url = DatabaseUrl::parse(&wrong).unwrap();
    let migrations = diesel_migrations::FileBasedMigrations::from_path("migrations").unwrap();
    let migrator = Migrator::new(&url, migrations).unwrap();
    let error = migrator.run_pending().await.unwrap_err();
    let story = assert_story(&error, 1);
    assert!(
        story.contains("no connection for the migrations: password"),
        "{story}"
    );
    let refused = refusal(&wrong).await;
    assert_story(&RetryError::Pool(refused), 0);
}

#[tokio::test]
async fn diesels_errors_tell_their_sqlstate_and_what_became_of_the_connection() {
    let neon = neon().await;
    for url in [neon.url(), neon.pooled_url()] {
        let mut connection = connect(&url).await;
        let wrong = connection.batch_execute("SELECT 1 / 0").await.unwrap_err();
        assert_eq!(wrong.sqlstate(), Some("22012"));
        assert!(!wrong.is_transient() && !wrong.is_connection_lost());

        let inner = "DO $$ BEGIN EXECUTE 'SELECT wrong'; END $$";
        let wrong = connection.batch_execute(inner).await.unwrap_err();
        assert_eq!(wrong.internal_query(), Some("SELECT wrong"));

        // The statement is at fault: class 08 does not mean that the connection is.
        let misuse = sql_query("SELECT $1").execute(&mut connection).await;
        let misuse = misuse.unwrap_err();
        assert_eq!(misuse.sqlstate(), Some("08P01"), "{misuse:?}");
        assert!(!misuse.is_transient() && !misuse.is_connection_lost());
        assert!(matches!(
            misuse,
            DieselError::DatabaseError(DatabaseErrorKind::UnableToSendCommand, _)
        ));

        assert_eq!(DieselError::NotFound.sqlstate(), None);
        assert!(!DieselError::NotFound.is_transient());
    }
}

#[tokio::test]
async fn a_serialization_failure_and_a_lost_connection_are_transient() {
    let neon = neon().await;
    let counters = "CREATE TABLE counters AS SELECT 0 AS n; GRANT ALL ON counters TO PUBLIC";
    neon.sql(counters).await.unwrap();
    let mut first = connect(&neon.url()).await;
    let mut second = connect(&neon.url()).await;
    let read = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT n FROM counters";
    first.batch_execute(read).await.unwrap();
    let update = "UPDATE counters SET n = n + 1";
    second.batch_execute(update).await.unwrap();
    let failed = first.batch_execute(update).await.unwrap_err();
    assert_eq!(failed.sqlstate(), Some("40001"));
    assert!(failed.is_transient() && !failed.is_connection_lost());

    let ended = second.batch_execute("SELECT pg_terminate_backend(pg_backend_pid())");
    let ended = ended.await.unwrap_err();
    assert_eq!(ended.sqlstate(), Some("57P01"), "{ended:?}");
    assert!(ended.is_connection_lost() && ended.is_transient());
    assert!(!ended.is_response_timeout());
    let again = second.batch_execute("SELECT 1").await.unwrap_err();
    assert!(
        again.is_connection_lost() && again.is_transient(),
        "{again:?}"
    );
}
