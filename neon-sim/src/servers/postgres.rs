//! The configuration of the PostgreSQL behind the direct endpoint.

use std::fmt::Write as _;
use std::path::Path;

use super::files::write;
use super::identity::Identity;
use super::server::ServerSettings;
use crate::error::Error;

/// Writes the files that PostgreSQL starts from.
pub(super) fn configure(
    directory: &Path,
    port: u16,
    settings: &ServerSettings,
    who: Identity,
) -> Result<(), Error> {
    let data = directory.join("data");
    let run = directory.join("run");
    let mut text = format!(
        "port = {port}\n\
         listen_addresses = '127.0.0.1'\n\
         unix_socket_directories = '{}'\n\
         fsync = off\n\
         full_page_writes = off\n\
         shared_buffers = 32MB\n\
         password_encryption = 'scram-sha-256'\n\
         authentication_timeout = 10s\n\
         idle_in_transaction_session_timeout = 300000\n\
         timezone = 'GMT'\n\
         log_timezone = 'GMT'\n\
         logging_collector = off\n",
        quoted(&run.display().to_string())
    );
    for (name, value) in settings {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name} = '{}'", quoted(value));
    }
    write(&data.join("postgresql.auto.conf"), &text, who)?;
    write(
        &data.join("pg_hba.conf"),
        "local all all trust\n\
         local replication all trust\n\
         host all all 127.0.0.1/32 scram-sha-256\n",
        who,
    )
}

fn quoted(value: &str) -> String {
    value.replace('\'', "''")
}
