//! [`Known`]: the migrations of a source, and their SQL, taken from them without a database.
//!
//! Diesel runs migrations on a blocking connection, which can neither be cancelled nor say where a
//! statement failed. A migration can only give SQL to the connection that it is handed, so it is handed
//! [`Notes`], and the migrator runs the noted SQL on a session that can do both.

use std::any::Any;
use std::collections::BTreeMap;
use std::error::Error;

use diesel::QueryResult;
use diesel::connection::{BoxableConnection, SimpleConnection};
use diesel::migration::{Migration, MigrationSource};
use diesel::pg::Pg;
use diesel_migrations::MigrationError;

use super::error::{Fault, MigrateError};
use super::report::Direction;
use super::script::Script;

/// The migrations of a source, by version.
pub(super) struct Known(BTreeMap<String, Box<dyn Migration<Pg>>>);

impl Known {
    pub(super) fn load(source: &dyn MigrationSource<Pg>) -> Result<Self, MigrateError> {
        let mut known = BTreeMap::new();
        let migrations = source.migrations().map_err(MigrateError::Source)?;
        for migration in migrations {
            let version = migration.name().version().to_string();
            let name = migration.name().to_string();
            // Diesel would run only one of the two, the one that its hash map keeps.
            if let Some(other) = known.insert(version.clone(), migration) {
                let mut names = [name, other.name().to_string()];
                names.sort();
                return Err(MigrateError::Duplicate { version, names });
            }
        }
        Ok(Self(known))
    }

    /// Returns the version and the name of each migration, in the order in which they are applied.
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
            // Diesel refuses a file of no bytes before it gives its SQL to the connection.
            Err(error) if is_empty(&*error) => notes.0.push(String::new()),
            Err(error) if is_not_utf8(&*error) => {
                return Err(MigrateError::Faulty {
                    name,
                    direction,
                    fault: Fault::NotUtf8,
                });
            }
            Err(error) => {
                return Err(match error.downcast_ref() {
                    Some(MigrationError::NoMigrationRevertFile) => {
                        MigrateError::Irreversible { name }
                    }
                    _ => MigrateError::Script {
                        name,
                        source: error,
                    },
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

    /// Returns whether the SQL of a migration differs from the SQL whose checksum is `applied`.
    pub(super) fn is_edited(&self, version: &str, applied: &str) -> bool {
        // A script that cannot be run now is not the one that was applied.
        let script = self.script(version, Direction::Up);
        script.map_or(true, |script| script.checksum() != applied)
    }
}

/// Goes by the text, as Diesel's type of this error has no public name.
fn is_empty(error: &(dyn Error + Send + Sync)) -> bool {
    error
        .to_string()
        .ends_with("Attempted to run an empty migration.")
}

/// Goes by the text, as Diesel hands on only the words of the standard library.
fn is_not_utf8(error: &(dyn Error + Send + Sync)) -> bool {
    error
        .to_string()
        .ends_with("stream did not contain valid UTF-8")
}

/// A connection that only notes the SQL that it is given.
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
