//! What a migration says to the database, taken from it without a database.
//!
//! Diesel's migrations run on a blocking connection, which can neither be cancelled nor say where a
//! statement failed. All that a migration can do with the connection that it is handed is to give it
//! SQL, so it is handed one that takes notes, and the notes are run where both are possible.

use std::any::Any;
use std::collections::BTreeMap;
use std::error::Error;

use diesel::QueryResult;
use diesel::connection::{BoxableConnection, SimpleConnection};
use diesel::migration::{Migration, MigrationSource};
use diesel::pg::Pg;
use diesel_migrations::MigrationError;
use sha2::{Digest, Sha256};

use super::error::{Fault, MigrateError};
use super::report::Direction;

/// One migration's SQL in one direction, as [`Migrator::dry_run`](super::Migrator::dry_run) shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Script {
    /// The migration's name, that is its folder's.
    pub name: String,
    /// Its version: the name up to the first `_`, without dashes.
    pub version: String,
    /// What of it this is.
    pub direction: Direction,
    /// Whether it runs in a transaction, as its `metadata.toml` says.
    pub in_transaction: bool,
    /// Its SQL: the whole of `up.sql` or `down.sql`; a migration that is written in Rust may have
    /// several.
    pub batches: Vec<String>,
}

impl Script {
    /// Returns what stays the same as long as its SQL does; line endings are the checkout's affair.
    pub(super) fn checksum(&self) -> String {
        let mut hash = Sha256::new();
        for batch in &self.batches {
            hash.update(batch.trim_end().replace("\r\n", "\n"));
            hash.update([0]);
        }
        let bytes = hash.finalize();
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Diesel's type of it has no public name.
fn is_empty(error: &(dyn Error + Send + Sync)) -> bool {
    error
        .to_string()
        .ends_with("Attempted to run an empty migration.")
}

/// Diesel hands on what the standard library says of the file.
fn is_not_utf8(error: &(dyn Error + Send + Sync)) -> bool {
    error
        .to_string()
        .ends_with("stream did not contain valid UTF-8")
}

/// What a source has, by version.
pub(super) struct Known(BTreeMap<String, Box<dyn Migration<Pg>>>);

impl Known {
    pub(super) fn load(source: &dyn MigrationSource<Pg>) -> Result<Self, MigrateError> {
        let mut known = BTreeMap::new();
        let migrations = source.migrations().map_err(MigrateError::Source)?;
        for migration in migrations {
            let version = migration.name().version().to_string();
            let name = migration.name().to_string();
            // Diesel would run one of the two, whichever its hash map keeps.
            if let Some(other) = known.insert(version.clone(), migration) {
                let mut names = [name, other.name().to_string()];
                names.sort();
                return Err(MigrateError::Duplicate { version, names });
            }
        }
        Ok(Self(known))
    }

    /// Version and name of each, in the order in which they are applied.
    pub(super) fn names(&self) -> impl Iterator<Item = (&str, String)> {
        let known = self.0.iter();
        known.map(|(version, migration)| (version.as_str(), migration.name().to_string()))
    }

    pub(super) fn has(&self, version: &str) -> bool {
        self.0.contains_key(version)
    }

    pub(super) fn script(
        &self,
        version: &str,
        direction: Direction,
    ) -> Result<Script, MigrateError> {
        let Some(migration) = self.0.get(version) else {
            return Err(MigrateError::Unknown {
                version: version.to_owned(),
            });
        };
        let name = migration.name().to_string();
        let mut notes = Notes::default();
        let noted = match direction {
            Direction::Up => migration.run(&mut notes),
            Direction::Down => migration.revert(&mut notes),
        };
        match noted {
            Ok(()) => {}
            // It looks for no bytes at all, before it asks for any statement.
            Err(error) if is_empty(&*error) => notes.0.push(String::new()),
            Err(error) if is_not_utf8(&*error) => {
                return Err(MigrateError::Faulty {
                    name,
                    direction,
                    fault: Fault::NotUtf8,
                });
            }
            Err(source) => {
                return Err(match source.downcast_ref() {
                    Some(MigrationError::NoMigrationRevertFile) => {
                        MigrateError::Irreversible { name }
                    }
                    _ => MigrateError::Script { name, source },
                });
            }
        }
        let script = Script {
            name,
            version: version.to_owned(),
            direction,
            in_transaction: migration.metadata().run_in_transaction(),
            batches: notes.0,
        };
        match Fault::of(&script) {
            None => Ok(script),
            Some(fault) => Err(MigrateError::Faulty {
                name: script.name,
                direction,
                fault,
            }),
        }
    }

    /// Returns whether a migration is another one now than what was applied under this checksum.
    pub(super) fn is_edited(&self, version: &str, applied: &str) -> bool {
        // What cannot be run now is not what was run then.
        let script = self.script(version, Direction::Up);
        script.map_or(true, |script| script.checksum() != applied)
    }
}

/// A connection that only notes what it is given.
#[derive(Default)]
struct Notes(Vec<String>);

impl SimpleConnection for Notes {
    fn batch_execute(&mut self, sql: &str) -> QueryResult<()> {
        self.0.push(sql.to_owned());
        Ok(())
    }
}

impl BoxableConnection<Pg> for Notes {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}
