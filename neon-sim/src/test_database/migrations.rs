//! Migrations in folders, as Diesel's command makes them.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use tokio_postgres::Client;

use crate::error::{Context, Error};

/// A migration's content.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Migration {
    version: String,
    name: String,
    up: String,
    in_transaction: bool,
}

/// Where Diesel keeps the versions that have been run: an app that runs its migrations finds none pending.
const TABLE: &str = "CREATE TABLE IF NOT EXISTS __diesel_schema_migrations (\
     version VARCHAR(50) PRIMARY KEY NOT NULL, \
     run_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP)";

const RESET: &str = "RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL";

impl Migration {
    /// Reads the migrations in a folder, in the order in which they are to be run.
    pub(super) fn read_all(folder: &Path) -> Result<Vec<Self>, Error> {
        let reading = || format!("cannot read the migrations in {}", folder.display());
        let mut migrations = Vec::new();
        for entry in fs::read_dir(folder).context(reading)? {
            let entry = entry.context(reading)?;
            let name = entry.file_name();
            let is_hidden = name.as_encoded_bytes().starts_with(b".");
            if !is_hidden && entry.path().join("up.sql").is_file() {
                migrations.push(Self::read(&entry.path(), &name)?);
            }
        }
        if migrations.is_empty() {
            return Err(Error::Setting(format!(
                "{} has no migrations in folders with an `up.sql`; run migrations of other tools with `prepare`",
                folder.display()
            )));
        }
        migrations.sort_by(|one, other| one.version.cmp(&other.version));
        Ok(migrations)
    }

    fn read(folder: &Path, name: &OsStr) -> Result<Self, Error> {
        let name = name.to_string_lossy().into_owned();
        let (version, _) = name.split_once('_').unwrap_or((&name, ""));
        let up = folder.join("up.sql");
        let metadata = folder.join("metadata.toml");
        let metadata = match metadata.exists() {
            true => fs::read_to_string(&metadata)
                .context(|| format!("cannot read {}", metadata.display()))?,
            false => String::new(),
        };
        let says_no = |line: &str| {
            line.split_once('=').is_some_and(|(key, value)| {
                let value = value.split('#').next().unwrap_or_default();
                key.trim() == "run_in_transaction" && value.trim() == "false"
            })
        };
        Ok(Self {
            version: version.replace('-', ""),
            up: fs::read_to_string(&up).context(|| format!("cannot read {}", up.display()))?,
            in_transaction: !metadata.lines().any(says_no),
            name,
        })
    }

    /// Runs the migration, and notes that it has been.
    pub(super) async fn run(&self, client: &Client) -> Result<(), Error> {
        let failed = |source| Error::Migration {
            name: self.name.clone(),
            source,
        };
        let version = self.version.replace('\'', "''");
        let note = format!("INSERT INTO __diesel_schema_migrations (version) VALUES ('{version}')");
        client.batch_execute(TABLE).await?;
        let (begin, commit) = match self.in_transaction {
            true => ("BEGIN", "COMMIT"),
            false => ("", ""),
        };
        // What the migration has set, such as a role or the `search_path`, is not for the note.
        for sql in [begin, &self.up, RESET, &note, commit] {
            client.batch_execute(sql).await.map_err(failed)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_read_as_diesel_reads_them() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let none = Migration::read_all(folder.path()).unwrap_err();
        assert!(none.to_string().contains("has no migrations"), "{none}");
        write("2026-02-01-000000_later/up.sql", "SELECT 2");
        write(
            "2026-02-01-000000_later/metadata.toml",
            "run_in_transaction = false # an index",
        );
        write("2026-01-01-000000_first_of_all/up.sql", "SELECT 1");
        write("2026-01-01-000000_first_of_all/down.sql", "");
        write(".hidden/up.sql", "");
        write("empty/readme", "");
        write("diesel.toml", "");
        let migration = |version: &str, name: &str, up: &str, in_transaction| Migration {
            version: version.into(),
            name: name.into(),
            up: up.into(),
            in_transaction,
        };
        let expected = [
            migration(
                "20260101000000",
                "2026-01-01-000000_first_of_all",
                "SELECT 1",
                true,
            ),
            migration(
                "20260201000000",
                "2026-02-01-000000_later",
                "SELECT 2",
                false,
            ),
        ];
        assert_eq!(Migration::read_all(folder.path()).unwrap(), expected);
        let missing = Migration::read_all(&folder.path().join("missing")).unwrap_err();
        assert!(missing.to_string().contains("missing"), "{missing}");
    }
}
