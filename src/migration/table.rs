//! [`MigrationTable`]: the table `__diesel_schema_migrations`, as the `diesel` CLI creates and reads it.

use std::collections::BTreeMap;

use diesel::migration::CREATE_MIGRATIONS_TABLE;

use super::error::MigrateError;
use super::report::Direction;
use super::script::Script;
use super::session::Session;

/// The table of the applied migrations, and the table of their checksums.
pub(super) struct MigrationTable {
    /// The name of the table, with its schema, as a migration may change the search path.
    name: String,
    /// The name of the checksums' table, which the `diesel` CLI does not know.
    checksums: String,
    reads_checksums: bool,
    writes_checksums: bool,
}

/// The record of an applied migration.
pub(super) struct Entry {
    pub(super) run_on: String,
    /// `None` if the `diesel` CLI has applied the migration.
    pub(super) checksum: Option<String>,
}

impl MigrationTable {
    /// Returns the table, if it exists.
    pub(super) async fn find(session: &Session) -> Result<Option<Self>, MigrateError> {
        let rows = session.rows(FIND).await?;
        Ok(rows.first().map(|row| {
            let text = |i| row.get(i).unwrap_or_default().to_owned();
            let is = |i| row.get(i) == Some("t");
            Self {
                name: text(0),
                checksums: text(1),
                reads_checksums: is(2),
                writes_checksums: is(3),
            }
        }))
    }

    /// Returns the table, and creates it if there is none.
    pub(super) async fn find_or_create(session: &Session) -> Result<Self, MigrateError> {
        if let Some(table) = Self::find(session).await? {
            return Ok(table);
        }
        session.rows(CREATE_MIGRATIONS_TABLE).await?;
        Self::find(session)
            .await?
            .ok_or_else(|| MigrateError::MigrationTable {
                message: "the table __diesel_schema_migrations is not on the search path"
                    .to_owned(),
                sqlstate: None,
            })
    }

    /// Creates the checksums' table too, if this role may.
    pub(super) async fn with_checksums(self, session: &Session) -> Result<Self, MigrateError> {
        if self.writes_checksums {
            return Ok(self);
        }
        let create = format!(
            "CREATE TABLE IF NOT EXISTS {} \
             (version VARCHAR(50) PRIMARY KEY, run_on TIMESTAMP, checksum TEXT NOT NULL)",
            self.checksums
        );
        match session.rows(&create).await {
            Ok(_) => Ok(Self::find(session).await?.unwrap_or(self)),
            // A role without the right to create tables can still migrate without checksums.
            Err(error) if error.sqlstate() == Some("42501") => Ok(self),
            Err(error) => Err(error),
        }
    }

    /// Returns the entries of the applied migrations, by version.
    pub(super) async fn applied(
        &self,
        session: &Session,
    ) -> Result<BTreeMap<String, Entry>, MigrateError> {
        let Self {
            name, checksums, ..
        } = self;
        // If the diesel CLI applies a migration anew, the old checksum stays, and its time does not match.
        let sql = match self.reads_checksums {
            true => format!(
                "SELECT l.version, l.run_on, c.checksum FROM {name} l \
                 LEFT JOIN {checksums} c ON c.version = l.version AND c.run_on = l.run_on"
            ),
            false => format!("SELECT version, run_on, NULL FROM {name}"),
        };
        let rows = session.rows(&sql).await?;
        let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
        let applied = rows.iter().map(|row| {
            let entry = Entry {
                run_on: text(row.get(1)),
                checksum: row.get(2).map(str::to_owned),
            };
            (text(row.get(0)), entry)
        });
        Ok(applied.collect())
    }

    /// Returns the statements that record a script as run.
    pub(super) fn entry(&self, script: &Script) -> String {
        let Self {
            name, checksums, ..
        } = self;
        let version = literal(&script.version);
        let (insert, delete) = (
            format!("INSERT INTO {name} (version) VALUES ({version})"),
            format!("DELETE FROM {name} WHERE version = {version}"),
        );
        match script.direction {
            Direction::Up if self.writes_checksums => format!(
                "WITH noted AS ({insert} RETURNING version, run_on) \
                 INSERT INTO {checksums} (version, run_on, checksum) \
                 SELECT version, run_on, '{}' FROM noted ON CONFLICT (version) \
                 DO UPDATE SET run_on = excluded.run_on, checksum = excluded.checksum",
                script.checksum()
            ),
            Direction::Up => insert,
            Direction::Down if self.writes_checksums => {
                format!("{delete}; DELETE FROM {checksums} WHERE version = {version}")
            }
            Direction::Down => delete,
        }
    }
}

/// Finds both tables, and whether that of the checksums can be read, and written.
const FIND: &str = "\
    SELECT l.table, l.checksums, coalesce(has_table_privilege(c.oid, 'SELECT'), false), \
      coalesce(has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT') \
        AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE'), false) \
    FROM (SELECT n.oid, quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS table, \
        quote_ident(n.nspname) || '.__diesel_neon_checksums' AS checksums \
      FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
      WHERE c.oid = to_regclass('__diesel_schema_migrations')) l \
    LEFT JOIN pg_catalog.pg_class c \
      ON c.relnamespace = l.oid AND c.relname = '__diesel_neon_checksums'";

/// Quotes a literal independently of `standard_conforming_strings`.
fn literal(text: &str) -> String {
    let text = text.replace('\'', "''").replace('\\', "\\\\");
    match text.contains('\\') {
        true => format!("E'{text}'"),
        false => format!("'{text}'"),
    }
}
