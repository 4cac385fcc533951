//! The configuration of the PgBouncer behind the pooled endpoint.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use super::binaries::answer;
use super::files::write;
use super::identity::Identity;
use super::names::{OWNER, SUPERUSER};
use super::server::ServerSettings;
use crate::error::Error;

/// The first version that can track prepared statements.
const TRACKS_STATEMENTS: (u32, u32) = (1, 21);

/// PgBouncer's directory and port, and the port of the PostgreSQL behind it.
pub(super) struct Place<'a> {
    pub(super) run: &'a Path,
    pub(super) port: u16,
    pub(super) postgres_port: u16,
}

/// Writes the files that PgBouncer starts from, and returns its version.
pub(super) fn configure(
    program: &Path,
    who: Identity,
    place: &Place<'_>,
    password: &str,
    settings: &ServerSettings,
) -> Result<(u32, u32), Error> {
    let version = version(program);
    let run = place.run.display();
    let mut text = format!(
        "[databases]\n\
         * = host='{}' port={}\n\
         [pgbouncer]\n\
         listen_addr = 127.0.0.1\n\
         listen_port = {}\n\
         unix_socket_dir = {run}\n\
         auth_type = hba\n\
         auth_hba_file = {run}/pgbouncer.hba\n\
         auth_file = {run}/pgbouncer.users\n\
         auth_user = {SUPERUSER}\n\
         admin_users = {SUPERUSER}\n",
        run.to_string().replace('\'', "''"),
        place.postgres_port,
        place.port,
    );
    for (name, value) in merged(settings, version)? {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name} = {value}");
    }
    write(&place.run.join("pgbouncer.ini"), &text, who)?;
    write(
        &place.run.join("pgbouncer.hba"),
        "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n",
        who,
    )?;
    // PgBouncer looks up other roles in the server.
    write(
        &place.run.join("pgbouncer.users"),
        &format!("\"{SUPERUSER}\" \"\"\n\"{OWNER}\" \"{password}\"\n"),
        who,
    )?;
    Ok(version)
}

/// Returns Neon's settings, overridden by the user's.
fn merged(settings: &ServerSettings, version: (u32, u32)) -> Result<ServerSettings, Error> {
    let tracks = version >= TRACKS_STATEMENTS;
    let mut merged: ServerSettings = [
        ("pool_mode", "transaction"),
        ("max_client_conn", "10000"),
        ("default_pool_size", "80"),
        ("query_wait_timeout", "120"),
        ("ignore_startup_parameters", "extra_float_digits"),
        ("max_prepared_statements", "1000"),
        // A failed login must not delay the next.
        ("server_login_retry", "0.05"),
    ]
    .into_iter()
    .filter(|(name, _)| tracks || *name != "max_prepared_statements")
    .map(|(name, value)| (name.into(), value.into()))
    .collect();
    for (name, value) in settings {
        if name == "max_prepared_statements" && !tracks {
            if value == "0" {
                continue;
            }
            return Err(Error::Setting(format!(
                "PgBouncer {}.{} has no max_prepared_statements; 1.21 is the first that does",
                version.0, version.1
            )));
        }
        merged.retain(|(known, _)| known != name);
        merged.push((name.clone(), value.clone()));
    }
    Ok(merged)
}

fn version(program: &Path) -> (u32, u32) {
    answer(Command::new(program).arg("--version"))
        .and_then(|text| {
            let mut numbers = text.split_whitespace().nth(1)?.split('.');
            Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
        })
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_directory_will_do() {
        let directory = tempfile::tempdir().unwrap();
        let who = Identity::of_owner(&directory.path().metadata().unwrap()).unwrap();
        let run = directory.path().join("it's a run");
        std::fs::create_dir(&run).unwrap();
        let place = Place {
            run: &run,
            port: 2,
            postgres_port: 1,
        };
        let none = ServerSettings::new();
        configure(Path::new("/nowhere"), who, &place, "", &none).unwrap();
        let written = std::fs::read_to_string(run.join("pgbouncer.ini")).unwrap();
        assert!(written.contains("/it''s a run' port=1\n"), "{written}");
    }

    #[test]
    fn old_versions_are_not_given_settings_they_do_not_know() {
        let off = vec![("max_prepared_statements".to_owned(), "0".to_owned())];
        let names = |settings: ServerSettings| settings.into_iter().map(|(name, _)| name);
        assert!(names(merged(&off, (1, 18)).unwrap()).all(|name| !name.contains("prepared")));
        assert!(merged(&off, (1, 24)).unwrap().contains(&off[0]));
        let on = vec![("max_prepared_statements".to_owned(), "10".to_owned())];
        assert!(merged(&on, (1, 18)).is_err());
    }
}
