//! [`Script`]: one migration's SQL in one direction.

use sha2::{Digest, Sha256};

use super::report::Direction;

/// One migration's SQL in one direction, as [`Migrator::dry_run`](super::Migrator::dry_run) shows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Script {
    /// The migration's name, that is its folder's.
    pub name: String,
    /// The migration's version: its name up to the first `_`, without dashes.
    pub version: String,
    /// Whether the script applies the migration or reverts it.
    pub direction: Direction,
    /// Whether the script runs in a transaction, as the migration's `metadata.toml` says. Default: `true`.
    pub in_transaction: bool,
    /// The SQL: the whole of `up.sql` or `down.sql`; a migration that is written in Rust may have
    /// several batches.
    pub batches: Vec<String>,
}

impl Script {
    /// Returns a checksum of the SQL. Line endings do not count: they differ between checkouts.
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
