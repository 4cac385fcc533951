//! [`folder`]: the migrations at the place where the `diesel` CLI looks for them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use diesel_migrations::{FileBasedMigrations, MigrationError};

use super::error::MigrateError;

/// Finds a folder of migrations as the `diesel` CLI does: the `given` one, else the one that
/// `MIGRATION_DIRECTORY` names, else the one that `diesel.toml` names (in this folder or above, or at the
/// path in `DIESEL_CONFIG_FILE`), else the nearest `migrations`, in this folder or above.
///
/// # Errors
///
/// Returns [`MigrateError::NoFolder`] if the folder does not exist, [`MigrateError::NoMigration`] if an
/// entry is not a migration, [`MigrateError::Config`] if a `metadata.toml` has anything but
/// `run_in_transaction`.
pub fn folder(given: Option<&Path>) -> Result<FileBasedMigrations, MigrateError> {
    let here = env::current_dir().map_err(|error| MigrateError::Source(error.into()))?;
    let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
    let path = find(given, variable, &here)?;
    if !path.is_dir() {
        return Err(MigrateError::NoFolder { path });
    }
    let source = FileBasedMigrations::from_path(&path).map_err(|error| match error {
        MigrationError::UnknownMigrationFormat(path) => MigrateError::NoMigration { path },
        error => MigrateError::Source(error.into()),
    })?;
    let unreadable = |error: io::Error| MigrateError::Source(error.into());
    for migration in fs::read_dir(&path).map_err(unreadable)? {
        let migration = migration.map_err(unreadable)?;
        // Diesel skips hidden entries too.
        if !migration.file_name().as_encoded_bytes().starts_with(b".") {
            check_metadata(&migration.path().join("metadata.toml"))?;
        }
    }
    Ok(source)
}

/// Refuses a `metadata.toml` that Diesel misreads: it ignores a file that it cannot understand and a
/// misspelt key, and reads a file without the key as `run_in_transaction = false`.
fn check_metadata(path: &Path) -> Result<(), MigrateError> {
    if matches!(path.metadata(), Err(error) if is_absent(&error)) {
        return Ok(());
    }
    let unusable = |reason: String| MigrateError::Config {
        path: path.to_owned(),
        reason,
    };
    let table = read(path)?;
    if let Some(key) = table.keys().find(|key| *key != IN_TRANSACTION) {
        return Err(unusable(format!(
            "unknown key {key}; the only one is {IN_TRANSACTION}"
        )));
    }
    match table.get(IN_TRANSACTION) {
        Some(toml::Value::Boolean(_)) => Ok(()),
        Some(_) => Err(unusable(format!("{IN_TRANSACTION} must be true or false"))),
        None => Err(unusable(format!(
            "it lacks {IN_TRANSACTION}, which the diesel CLI then takes for false; write \
             `{IN_TRANSACTION} = true` or `{IN_TRANSACTION} = false`, or remove the file, which means true"
        ))),
    }
}

const IN_TRANSACTION: &str = "run_in_transaction";

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

fn read(path: &Path) -> Result<toml::Table, MigrateError> {
    let unusable = |reason: String| MigrateError::Config {
        path: path.to_owned(),
        reason,
    };
    let text = fs::read_to_string(path).map_err(|error| unusable(error.to_string()))?;
    text.parse().map_err(|error: toml::de::Error| {
        let line = match error.span() {
            Some(span) => format!("line {}: ", text[..span.start].matches('\n').count() + 1),
            None => String::new(),
        };
        unusable(format!("{line}{}", error.message()))
    })
}

fn find(
    given: Option<&Path>,
    variable: impl Fn(&str) -> Option<OsString>,
    here: &Path,
) -> Result<PathBuf, MigrateError> {
    if let Some(path) = given {
        return Ok(path.to_owned());
    }
    if let Some(path) = variable("MIGRATION_DIRECTORY") {
        return Ok(path.into());
    }
    let above = |name: &'static str| here.ancestors().map(move |folder| folder.join(name));
    let config = match variable("DIESEL_CONFIG_FILE") {
        Some(path) => Some(path.into()),
        None => above("diesel.toml").find(|path| path.is_file()),
    };
    if let Some(config) = config {
        if let Some(path) = configured(&config)? {
            return Ok(path);
        }
    }
    let nearest = above("migrations").find(|path| path.is_dir());
    nearest.ok_or_else(|| MigrateError::NoFolder {
        path: here.join("migrations"),
    })
}

fn configured(config: &Path) -> Result<Option<PathBuf>, MigrateError> {
    let table = read(config)?;
    let dir = table
        .get("migrations_directory")
        .and_then(|section| section.get("dir"))
        .and_then(toml::Value::as_str);
    // A relative path counts from the file's folder; an absolute one replaces that.
    Ok(dir.map(|dir| config.with_file_name(dir)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_is_looked_for_where_the_diesel_cli_looks() {
        let root = env::temp_dir().join(format!("diesel-neon-folder-{}", std::process::id()));
        let here = root.join("app/src");
        fs::create_dir_all(&here).unwrap();
        let nothing = |_: &str| None;

        let missing = find(None, nothing, &here).unwrap_err();
        assert!(
            matches!(missing, MigrateError::NoFolder { path } if path == here.join("migrations"))
        );

        fs::create_dir_all(root.join("migrations")).unwrap();
        assert_eq!(find(None, nothing, &here).unwrap(), root.join("migrations"));

        let config = root.join("app/diesel.toml");
        fs::write(&config, "[print_schema]\nfile = 'a.rs'").unwrap();
        assert_eq!(find(None, nothing, &here).unwrap(), root.join("migrations"));
        fs::write(&config, "[migrations_directory]\ndir = 'sql/steps'").unwrap();
        assert_eq!(
            find(None, nothing, &here).unwrap(),
            root.join("app/sql/steps")
        );
        fs::write(&config, "[migrations_directory]\ndir = '/steps'").unwrap();
        assert_eq!(find(None, nothing, &here).unwrap(), Path::new("/steps"));
        fs::write(&config, "dir = ").unwrap();
        let unusable = find(None, nothing, &here).unwrap_err();
        assert!(matches!(unusable, MigrateError::Config { path, .. } if path == config));

        let other = root.join("other.toml");
        fs::write(&other, "[migrations_directory]\ndir = 'steps'").unwrap();
        let config = |name: &str| (name == "DIESEL_CONFIG_FILE").then(|| other.clone().into());
        assert_eq!(find(None, config, &here).unwrap(), root.join("steps"));

        let named = |name: &str| (name == "MIGRATION_DIRECTORY").then(|| "named".into());
        assert_eq!(find(None, named, &here).unwrap(), Path::new("named"));
        assert_eq!(
            find(Some(Path::new("given")), named, &here).unwrap(),
            Path::new("given")
        );
        fs::remove_dir_all(&root).unwrap();
    }
}
