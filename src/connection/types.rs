//! Looks up the types that only the database knows.

use std::collections::HashMap;
use std::sync::PoisonError;

use diesel::pg::PgMetadataCacheKey;
use diesel::result::{Error, QueryResult};

use super::begun::only_row;
use super::bind::{Binds, TypeName};
use super::{Connection, Row};
use crate::wire::{Answer, Failure, Fields, Malformed, Messages, Request};

impl Connection {
    /// Looks the types up that only the database knows: once a connection, and all at once.
    pub(super) async fn resolve(&self, binds: &mut Binds) -> QueryResult<()> {
        if binds.unresolved().next().is_none() {
            return Ok(());
        }
        let mut found = HashMap::new();
        let mut asked = Vec::new();
        for name in binds.unresolved() {
            match self.known_type(name) {
                Some(oids) => drop(found.insert(name.clone(), oids)),
                None => asked.push((name, self.ask_for_type(name).await?)),
            }
        }
        for (name, answer) in asked {
            let missing = || Error::SerializationError(format!("there is no type {name:?}").into());
            let row = only_row(answer).await?.ok_or_else(missing)?;
            let oids = row.oids().map_err(Failure::from)?;
            let mut types = self.types.lock().unwrap_or_else(PoisonError::into_inner);
            types.store_type(cache_key(name), oids);
            found.insert(name.clone(), oids);
        }
        binds.resolve(&found)
    }

    fn known_type(&self, name: &TypeName) -> Option<(u32, u32)> {
        let types = self.types.lock().unwrap_or_else(PoisonError::into_inner);
        let known = types.lookup_type(&cache_key(name))?;
        Some((known.oid().ok()?, known.array_oid().ok()?))
    }

    async fn ask_for_type(&self, (schema, name): &TypeName) -> Result<Answer<'_>, Failure> {
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
        self.link.send_ahead(Request::Extended(messages)).await
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
