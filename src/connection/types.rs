//! Looks up the types that only the database knows.

use std::sync::PoisonError;

use diesel::pg::{PgMetadataCache, PgMetadataCacheKey};
use diesel::result::{Error, QueryResult};

use super::Connection;
use super::response_head::{Refused, only_row};
use crate::protocol::{Fields, Malformed, Messages, Request};
use crate::query::Row;
use crate::query::{Binds, TypeName, Types};
use crate::session::{Failure, Response};

impl Connection {
    /// Looks the types up that only the database knows: once a connection, and all at once. Returns
    /// whether one of them was known from before.
    pub(super) async fn resolve(&self, binds: &mut Binds) -> QueryResult<bool> {
        let mut found = Types::new();
        let mut asked = Vec::new();
        for name in binds.named() {
            match self.known_type(name) {
                Some(oids) => drop(found.insert(name.clone(), oids)),
                None => asked.push((name, self.ask_for_type(name, true).await?)),
            }
        }
        let remembered = !found.is_empty();
        found.extend(self.take_in(asked).await?);
        binds.resolve(&found)?;
        Ok(remembered)
    }

    /// Looks the types up once more, where a statement has failed with what was known of them: a
    /// migration may have made them anew. Returns whether the statement is to run again.
    pub(super) async fn resolve_again(
        &self,
        refused: &mut Refused,
        binds: &mut Binds,
    ) -> QueryResult<bool> {
        let Some(doubt) = Doubt::of(&refused.failure) else {
            return Ok(false);
        };
        tracing::debug!(reason = ?refused.failure, "the types of bind parameters are looked up again");
        *self.types.lock().unwrap_or_else(PoisonError::into_inner) = PgMetadataCache::new();
        let begins = self.session.status().in_failed_transaction();
        if begins || doubt == Doubt::Certain {
            self.statements.clear();
        }
        if begins {
            // There is no way to find out without beginning anew, and so only for a good reason.
            let commands = std::mem::take(&mut refused.commands);
            if doubt == Doubt::MayBe || !self.session.restart_transaction(commands) {
                return Ok(false);
            }
        }
        let mut asked = Vec::new();
        for name in binds.named() {
            asked.push((name, self.ask_for_type(name, !begins).await?));
        }
        let found = self.take_in(asked).await?;
        let changed = binds.resolve(&found)?;
        if changed {
            self.statements.clear();
        }
        Ok(changed || begins)
    }

    async fn take_in(&self, asked: Vec<(&TypeName, Response<'_>)>) -> QueryResult<Types> {
        let mut found = Types::new();
        for (name, answer) in asked {
            let missing = || Error::SerializationError(format!("there is no type {name:?}").into());
            let row = only_row(answer).await?.ok_or_else(missing)?;
            let oids = row.oids().map_err(Failure::from)?;
            let mut types = self.types.lock().unwrap_or_else(PoisonError::into_inner);
            types.store_type(cache_key(name), oids);
            found.insert(name.clone(), oids);
        }
        Ok(found)
    }

    fn known_type(&self, name: &TypeName) -> Option<(u32, u32)> {
        let types = self.types.lock().unwrap_or_else(PoisonError::into_inner);
        let known = types.lookup_type(&cache_key(name))?;
        Some((known.oid().ok()?, known.array_oid().ok()?))
    }

    async fn ask_for_type(
        &self,
        (schema, name): &TypeName,
        ahead: bool,
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
        match ahead {
            true => self.session.send_ahead(request).await,
            false => self.session.send(request).await,
        }
    }
}

/// How sure it is that a statement has failed for what was known of its types.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Doubt {
    Certain,
    /// A type of that name is not the one that it was, or the statement is wrong.
    MayBe,
}

impl Doubt {
    fn of(failure: &Failure) -> Option<Self> {
        let Failure::Server(error) = failure else {
            return None;
        };
        match error.code.as_str() {
            // Never translated, and without a code of its own.
            "XX000" if error.message.starts_with("cache lookup failed for type") => {
                Some(Self::Certain)
            }
            // Datatype mismatch, undefined function (an operator is one), cannot coerce.
            "42804" | "42846" | "42883" => Some(Self::MayBe),
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
    /// Two OIDs.
    fn oids(&self) -> Result<(u32, u32), Malformed> {
        let oid = |index| {
            let bytes = self.value(index).ok_or(Malformed)?;
            let oid = Fields(bytes).i32()?;
            Ok(u32::from_be_bytes(oid.to_be_bytes()))
        };
        Ok((oid(0)?, oid(1)?))
    }
}

/// As diesel-async asks.
const IN_SCHEMA: &str = "SELECT pg_type.oid, pg_type.typarray FROM pg_type \
     INNER JOIN pg_namespace ON pg_type.typnamespace = pg_namespace.oid \
     WHERE pg_type.typname = $1 AND pg_namespace.nspname = $2 LIMIT 1";
const IN_PATH: &str = "SELECT pg_type.oid, pg_type.typarray FROM pg_type \
     WHERE pg_type.oid = quote_ident($1)::regtype::oid LIMIT 1";

/// The OID of `text`.
pub(super) const TEXT: u32 = 25;
