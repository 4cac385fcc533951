//! The table `__diesel_schema_migrations`, as the `diesel` CLI creates and reads it.

use std::collections::BTreeMap;

use diesel::migration::CREATE_MIGRATIONS_TABLE;

use super::error::MigrateError;
use super::report::Direction;
use super::script::Script;
use super::session::Session;

/// Where the applied migrations are noted.
pub(super) struct Ledger {
    /// With its schema, so that a migration may change the search path.
    table: String,
}

impl Ledger {
    /// The table, where there is one.
    pub(super) async fn find(session: &Session) -> Result<Option<Self>, MigrateError> {
        let table = session.value(FIND).await?;
        Ok(table.map(|table| Self { table }))
    }

    /// The table, created where there is none.
    pub(super) async fn find_or_create(session: &Session) -> Result<Self, MigrateError> {
        if let Some(ledger) = Self::find(session).await? {
            return Ok(ledger);
        }
        session.rows(CREATE_MIGRATIONS_TABLE).await?;
        let table = session.value(FIND).await?;
        Ok(Self {
            table: table.unwrap_or_else(|| "__diesel_schema_migrations".to_owned()),
        })
    }

    /// The applied versions, and when that was.
    pub(super) async fn applied(
        &self,
        session: &Session,
    ) -> Result<BTreeMap<String, String>, MigrateError> {
        let sql = format!("SELECT version, run_on FROM {}", self.table);
        let rows = session.rows(&sql).await?;
        let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
        let applied = rows
            .iter()
            .map(|row| (text(row.get(0)), text(row.get(1))))
            .collect();
        Ok(applied)
    }

    /// The statement that notes a migration.
    pub(super) fn entry(&self, script: &Script) -> String {
        let (table, version) = (&self.table, literal(&script.version));
        match script.direction {
            Direction::Up => format!("INSERT INTO {table} (version) VALUES ({version})"),
            Direction::Down => format!("DELETE FROM {table} WHERE version = {version}"),
        }
    }
}

const FIND: &str = "SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname) \
                    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                    WHERE c.oid = to_regclass('__diesel_schema_migrations')";

/// Independent of `standard_conforming_strings`.
fn literal(text: &str) -> String {
    let text = text.replace('\'', "''").replace('\\', "\\\\");
    match text.contains('\\') {
        true => format!("E'{text}'"),
        false => format!("'{text}'"),
    }
}
