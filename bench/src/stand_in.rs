//! The server of all arms.

use std::path::{Path, PathBuf};

use neon_sim::{Builder, NeonSim};

/// A compute that does not suspend by itself, and whose pooler tracks prepared statements as Neon's does.
pub async fn start() -> NeonSim {
    let builder = builder().never_suspend();
    builder.start().await.expect("the stand-in for Neon starts")
}

/// The same, with more to set.
pub fn builder() -> Builder {
    NeonSim::builder().pgbouncer_program(tracking_pgbouncer())
}

/// Where `make setup` puts a PgBouncer that tracks prepared statements.
pub fn pgbouncer() -> PathBuf {
    repository().join("target/tools/bin/pgbouncer-tracking")
}

fn tracking_pgbouncer() -> PathBuf {
    let program = pgbouncer();
    program
        .canonicalize()
        .unwrap_or_else(|error| panic!("{}: {error}; `make setup` builds it", program.display()))
}

/// Where the workspace is.
pub fn repository() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().expect("a folder above")
}

/// Authors and books: enough rows for the look-ups, and few enough to be in memory.
pub const SCHEMA: &str = "\
    CREATE TABLE authors (id SERIAL PRIMARY KEY, name TEXT NOT NULL); \
    CREATE TABLE books ( \
        id SERIAL PRIMARY KEY, author_id INTEGER NOT NULL REFERENCES authors, title TEXT NOT NULL, \
        pages INTEGER NOT NULL, rating DOUBLE PRECISION NOT NULL, note TEXT \
    ); \
    CREATE INDEX ON books (author_id); \
    INSERT INTO authors (name) SELECT 'Author ' || n FROM generate_series(1, 200) n; \
    INSERT INTO books (author_id, title, pages, rating) \
        SELECT 1 + n % 200, 'Book ' || n, n, 3.5 FROM generate_series(1, 2000) n; \
    CREATE TABLE inserted (LIKE books INCLUDING ALL); \
    GRANT ALL ON ALL TABLES IN SCHEMA public TO PUBLIC; \
    GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO PUBLIC; \
    ANALYZE";
