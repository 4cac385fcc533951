//! Looks up the OIDs of types that only the database knows.

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
                None => sent.push(self.send_lookup(name, false).await?),
            }
        }
        let was_cached = !found.is_empty();
        found.extend(self.finish_lookups(sent).await?);
        binds.resolve(&found)?;
        Ok(was_cached)
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
        lock(&self.types).clear();
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
            sent.push(self.send_lookup(name, has_failed_transaction).await?);
        }
        let found = self.finish_lookups(sent).await?;
        let changed = binds.resolve(&found)?;
        if changed {
            self.statements.clear();
        }
        Ok(changed || has_failed_transaction)
    }

    /// Waits for the responses to look-ups, and caches their OIDs.
    async fn finish_lookups(&self, sent: Vec<Lookup<'_>>) -> QueryResult<Types> {
        let mut found = Types::new();
        for Lookup {
            name,
            schema,
            response,
        } in sent
        {
            let missing = || Error::SerializationError(format!("there is no type {name:?}").into());
            let row = only_row(response).await?.ok_or_else(missing)?;
            let oids = row
                .oids()
                .map_err(|malformed| self.session.set_lost(malformed))?;
            // Behind the look-up, the type may have been made anew.
            if let Some(schema) = schema.filter(|_| schema == self.schema()) {
                lock(&self.types).store(name, oids, schema);
            }
            found.insert(name.clone(), oids);
        }
        Ok(found)
    }

    fn known_type(&self, name: &TypeName) -> Option<(u32, u32)> {
        let schema = self.schema()?;
        lock(&self.types).find(name, schema)
    }

    /// Returns the version of the schema, if no change of it is open.
    fn schema(&self) -> Option<u64> {
        self.session.status().schema.version()
    }

    /// Sends the look-up of a type, `with_preamble` if the pending commands are to run first.
    async fn send_lookup<'a>(
        &'a self,
        name: &'a TypeName,
        with_preamble: bool,
    ) -> Result<Lookup<'a>, Failure> {
        let (schema_name, type_name) = name;
        let mut values = vec![Some(type_name.clone().into_bytes())];
        let sql = match schema_name {
            Some(schema_name) => {
                values.push(Some(schema_name.clone().into_bytes()));
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
        let request = Request::from(messages);
        let schema = self.schema();
        let response = match with_preamble {
            true => self.session.send(&request).await?,
            false => self.session.send_without_preamble(&request).await?,
        };
        Ok(Lookup {
            name,
            schema,
            response,
        })
    }
}

/// A look-up that was sent.
struct Lookup<'a> {
    name: &'a TypeName,
    /// The version of the schema before it was sent.
    schema: Option<u64>,
    response: Response<'a>,
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
