//! Looks up the OIDs of types that only the database knows.

use std::num::NonZeroU32;

use diesel::pg::{PgMetadataCache, PgMetadataCacheKey};
use diesel::result::{Error, QueryResult};

use super::Connection;
use super::response_head::{StartError, only_row};
use crate::protocol::{Fields, Malformed, Messages, Request};
use crate::query::{Binds, Row, TypeName, Types};
use crate::session::{Failure, Response};
use crate::util::lock;

impl Connection {
    /// Looks up the types of the binds that only the database knows: once for each connection, and all in one flight.
    /// Returns whether one of them was cached.
    pub(super) async fn resolve(&self, binds: &mut Binds) -> QueryResult<bool> {
        let mut found = Types::new();
        let mut sent = Vec::new();
        for name in binds.named() {
            match self.known_type(name) {
                Some(oids) => drop(found.insert(name.clone(), oids)),
                None => sent.push((name, self.send_lookup(name, false).await?)),
            }
        }
        let was_cached = !found.is_empty();
        found.extend(self.finish_lookups(sent).await?);
        binds.resolve(&found)?;
        Ok(was_cached)
    }

    /// Notes a command that is complete: statements may have to be prepared anew behind it, and types looked up.
    pub(super) fn note_command(&self, tag: &str) {
        let status = self.session.status();
        let (ends, undos) = (status.transaction_ends(), status.undos());
        if self.statements.note_command(tag, ends, undos) {
            *lock(&self.types) = PgMetadataCache::new();
        }
    }

    /// As [`note_command`](Self::note_command), where changes of tables or types were undone, also by a COMMIT that has failed
    /// or a ROLLBACK that nobody waited for.
    pub(super) fn note_undos(&self) {
        if !self.statements.may_be_undone() {
            return;
        }
        let status = self.session.status();
        let is_over = !status.is_busy() && !status.in_transaction();
        if self.statements.note_undos(status.undos(), is_over) {
            *lock(&self.types) = PgMetadataCache::new();
        }
    }

    /// Notes what has changed before a transaction of this depth.
    pub(super) fn mark_changes(&mut self, depth: NonZeroU32) {
        self.note_undos();
        self.transactions.mark(depth, self.statements.changes());
    }

    /// Keeps statements and types behind the rollback to a savepoint of this depth, unless something was changed inside.
    pub(super) fn keep_unless_changed(&self, depth: NonZeroU32) {
        if self.transactions.changes_before(depth) == Some(self.statements.changes()) {
            let undos = self.session.status().undos();
            self.statements.forgive_undos(undos);
        }
    }

    /// Looks up the types again if a statement has failed with the cached ones: a migration may have made them anew.
    /// Returns whether the statement is to run again.
    pub(super) async fn resolve_again(
        &self,
        error: &mut StartError,
        binds: &mut Binds,
    ) -> QueryResult<bool> {
        let Some(suspicion) = Suspicion::of(&error.failure) else {
            return Ok(false);
        };
        tracing::debug!(reason = ?error.failure, "the types of bind parameters are looked up again");
        *lock(&self.types) = PgMetadataCache::new();
        let has_failed_transaction = error.has_failed_transaction;
        if has_failed_transaction || suspicion == Suspicion::Certain {
            self.statements.clear();
        }
        if has_failed_transaction {
            // A look-up needs the transaction to begin anew, which needs a certain reason.
            let preamble = std::mem::take(&mut error.preamble);
            let restart = suspicion == Suspicion::Certain;
            if !restart || !self.session.restart_transaction(preamble) {
                return Ok(false);
            }
        }
        let mut sent = Vec::new();
        for name in binds.named() {
            sent.push((name, self.send_lookup(name, has_failed_transaction).await?));
        }
        let found = self.finish_lookups(sent).await?;
        let changed = binds.resolve(&found)?;
        if changed {
            self.statements.clear();
        }
        Ok(changed || has_failed_transaction)
    }

    /// Waits for the responses to look-ups, and caches their OIDs.
    async fn finish_lookups(&self, sent: Vec<(&TypeName, Response<'_>)>) -> QueryResult<Types> {
        let mut found = Types::new();
        for (name, response) in sent {
            let missing = || Error::SerializationError(format!("there is no type {name:?}").into());
            let row = only_row(response).await?.ok_or_else(missing)?;
            let oids = row
                .oids()
                .map_err(|malformed| self.session.set_lost(malformed))?;
            let mut types = lock(&self.types);
            types.store_type(cache_key(name), oids);
            found.insert(name.clone(), oids);
        }
        Ok(found)
    }

    fn known_type(&self, name: &TypeName) -> Option<(u32, u32)> {
        let types = lock(&self.types);
        let known = types.lookup_type(&cache_key(name))?;
        Some((known.oid().ok()?, known.array_oid().ok()?))
    }

    /// Sends the look-up of a type, `with_preamble` if the pending commands are to run first.
    async fn send_lookup(
        &self,
        (schema, name): &TypeName,
        with_preamble: bool,
    ) -> Result<Response<'_>, Failure> {
        let mut values = vec![Some(name.clone().into_bytes())];
        let sql = match schema {
            Some(schema) => {
                values.push(Some(schema.clone().into_bytes()));
                IN_SCHEMA
            }
            None => IN_PATH,
        };
        let mut messages = Messages::default();
        let encoded = messages
            .parse("", sql, &vec![TEXT; values.len()])
            .and_then(|()| messages.bind("", &values));
        encoded.map_err(Failure::Unsendable)?;
        messages.describe();
        messages.execute();
        messages.sync();
        let request = Request::Extended(messages);
        match with_preamble {
            true => self.session.send(request).await,
            false => self.session.send_without_preamble(request).await,
        }
    }
}

/// How likely a statement has failed because of a cached type.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Suspicion {
    Certain,
    /// The type of that name has changed, or the statement is wrong.
    Possible,
}

impl Suspicion {
    fn of(failure: &Failure) -> Option<Self> {
        let Failure::Server(error) = failure else {
            return None;
        };
        match error.code.as_str() {
            // This error is never translated, and has no code of its own.
            "XX000" if error.message.starts_with("cache lookup failed for type") => {
                Some(Self::Certain)
            }
            // Datatype mismatch, undefined function (an operator is one), cannot coerce.
            "42804" | "42846" | "42883" => Some(Self::Possible),
            _ => None,
        }
    }
}

fn cache_key((schema, name): &TypeName) -> PgMetadataCacheKey<'static> {
    PgMetadataCacheKey::new(
        schema.as_ref().map(|schema| schema.clone().into()),
        name.clone().into(),
    )
}

impl Row {
    /// Reads a row of two OIDs.
    fn oids(&self) -> Result<(u32, u32), Malformed> {
        let oid = |index| {
            let bytes = self.value(index).ok_or(Malformed)?;
            let oid = Fields(bytes).i32()?;
            Ok(u32::from_be_bytes(oid.to_be_bytes()))
        };
        Ok((oid(0)?, oid(1)?))
    }
}

/// The queries of diesel-async.
const IN_SCHEMA: &str = "SELECT pg_type.oid, pg_type.typarray FROM pg_type \
     INNER JOIN pg_namespace ON pg_type.typnamespace = pg_namespace.oid \
     WHERE pg_type.typname = $1 AND pg_namespace.nspname = $2 LIMIT 1";
const IN_PATH: &str = "SELECT pg_type.oid, pg_type.typarray FROM pg_type \
     WHERE pg_type.oid = quote_ident($1)::regtype::oid LIMIT 1";

/// The OID of `text`.
pub(super) const TEXT: u32 = 25;
