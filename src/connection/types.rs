//! Looks up the types that only the database knows.

use std::collections::HashMap;
use std::sync::PoisonError;

use diesel::pg::PgMetadataCacheKey;
use diesel::result::{Error, QueryResult};
use futures_util::future::try_join_all;

use super::begun::only_row;
use super::bind::{Binds, TypeName};
use super::{Connection, Row};
use crate::wire::{Failure, Fields, Malformed, Messages, Request};

impl Connection {
    /// Looks the types up that only the database knows: once a connection, and all at once.
    pub(super) async fn resolve(&self, binds: &mut Binds) -> QueryResult<()> {
        if binds.unresolved().next().is_none() {
            return Ok(());
        }
        let look_ups = binds.unresolved().map(|name| self.look_up(name));
        let found: HashMap<_, _> = try_join_all(look_ups).await?.into_iter().collect();
        binds.resolve(&found)
    }

    async fn look_up(&self, name: &TypeName) -> QueryResult<(TypeName, (u32, u32))> {
        let (schema, type_name) = name;
        let key = PgMetadataCacheKey::new(
            schema.as_deref().map(|schema| schema.to_owned().into()),
            type_name.clone().into(),
        );
        let known = {
            let types = self.types.lock().unwrap_or_else(PoisonError::into_inner);
            types.lookup_type(&key)
        };
        if let Some(known) = known {
            if let (Ok(oid), Ok(array_oid)) = (known.oid(), known.array_oid()) {
                return Ok((name.clone(), (oid, array_oid)));
            }
        }

        let mut values = vec![Some(type_name.clone().into_bytes())];
        let sql = match schema {
            Some(schema) => {
                values.push(Some(schema.clone().into_bytes()));
                IN_SCHEMA
            }
            None => IN_PATH,
        };
        let mut messages = Messages::default();
        let send = || {
            messages.parse("", sql, &vec![TEXT; values.len()])?;
            messages.bind("", &values)?;
            messages.describe();
            messages.execute();
            messages.sync();
            Ok(Request::Extended(messages))
        };
        let request = send().map_err(Failure::Unsendable)?;
        let answer = self.link.send_ahead(request).await?;
        let missing = || Error::SerializationError(format!("there is no type {name:?}").into());
        let row = only_row(answer).await?.ok_or_else(missing)?;
        let oids = row.oids().map_err(Failure::from)?;
        let mut types = self.types.lock().unwrap_or_else(PoisonError::into_inner);
        types.store_type(key, oids);
        Ok((name.clone(), oids))
    }
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
