//! The command `diesel-neon`, with a stand-in for the `diesel` CLI and with the real one.

#![cfg(unix)]

mod diesel;
mod docs;
#[path = "../common/folder.rs"]
mod folder;
mod migrate;
mod shell;
mod size;
mod url;
mod usage;

/// As Neon's console gives it, with another ORM's parameter and a password that must not be seen.
const POOLED: &str = "postgresql://u:s3cr%40et@ep-a-1-pooler.x.aws.neon.tech/db?pgbouncer=true";
