//! The migrations in a folder against those that the database has seen.

use std::path::Path;

use diesel_neon::DatabaseUrl;
use diesel_neon::migration::{Listed, MigrateError, Migrator, State, folder};

use super::report::{Check, Finding, Status};

/// Lists the migrations as `diesel-neon migrate list` does, over a session of its own.
pub(crate) async fn list(
    url: &DatabaseUrl,
    given: Option<&Path>,
) -> Result<Vec<Listed>, MigrateError> {
    Migrator::new(url, folder(given)?)?.list().await
}

pub(crate) fn check(listed: &[Listed]) -> Check {
    let names = |wanted: fn(&State) -> bool| -> Vec<&str> {
        let those = listed.iter().filter(|listed| wanted(&listed.state));
        those.map(|listed| listed.name.as_str()).collect()
    };
    let applied = names(|state| matches!(state, State::Applied { .. }));
    let pending = names(|state| matches!(state, State::Pending));
    let strange = names(|state| matches!(state, State::Unknown { .. }));
    let edited = names(|state| matches!(state, State::Applied { edited: true, .. }));

    let summary = format!("{} applied, {} pending", applied.len(), pending.len());
    let mut check = Check::ok("migrations", summary)
        .fact("applied", applied.len())
        .fact("pending", pending.clone())
        .fact("not_in_folder", strange.clone())
        .fact("edited", edited.clone());
    let pending_lines = pending.iter().map(|name| format!("pending: {name}"));
    let strange_lines = strange
        .iter()
        .map(|version| format!("applied, not in the folder: {version}"));
    let edited_lines = edited
        .iter()
        .map(|name| format!("edited after it was applied: {name}"));
    check.details = pending_lines
        .chain(strange_lines)
        .chain(edited_lines)
        .collect();
    if !pending.is_empty() {
        return check.found(
            Status::Warning,
            Finding::new(
                "migrations-pending",
                "the database is behind the code",
                "diesel-neon migrate run",
            ),
        );
    }
    if !strange.is_empty() {
        return check.found(
            Status::Warning,
            Finding::new(
                "migrations-unknown",
                "the database is ahead of this folder: another branch's migrations, or a newer release's",
                "update the checkout, or make sure that this is the database you mean",
            ),
        );
    }
    if !edited.is_empty() {
        return check.found(
            Status::Warning,
            Finding::new(
                "migrations-edited",
                "what these migrations do now was not done here: other databases would get another schema",
                "undo the edit, and put the change into a migration of its own",
            ),
        );
    }
    check
}

/// `error` has been looked through for secrets.
pub(crate) fn unreadable(error: String) -> Check {
    let finding = Finding::new(
        "migrations-unreadable",
        "what is pending cannot be told, and migrate run would stop here too",
        "mend what the error names",
    );
    Check::failure(
        "migrations",
        "they cannot be compared",
        finding.with_error(error),
    )
}
