//! Looks up the types that only the database knows: once for an [`HttpConnection`](super::HttpConnection) and its clones.

use std::sync::Arc;

use diesel::result::{Error, QueryResult};
use tokio_postgres::types::Type;

use super::known::Known;
use super::shared::Shared;
use super::text::{Custom, Customs, Shape};
use crate::query::{TypeName, Types};
use crate::util::lock;

impl Shared {
    /// Returns the OIDs of types by their names.
    pub(super) async fn oids_of(&self, names: Vec<&TypeName>) -> QueryResult<Types> {
        // What is known may be forgotten during the look-up.
        let mut types = lock(&self.known).names.clone();
        let missing: Vec<_> = names
            .iter()
            .filter(|name| !types.contains_key(**name))
            .collect();
        if !missing.is_empty() {
            let schemas = missing.iter().map(|(schema, _)| schema.as_deref());
            let only_names = missing.iter().map(|(_, name)| Some(name.as_str()));
            let parameters = [list(schemas), list(only_names), list([])];
            let found = self.look_up(parameters.map(Some).into()).await?;
            for (index, name) in missing.iter().enumerate() {
                let is_this = |row: &&Found| row.asked.contains(&(index + 1));
                let row = found.iter().find(is_this).ok_or_else(|| {
                    Error::SerializationError(format!("there is no type {name:?}").into())
                })?;
                let oids = (row.oid, row.array_oid);
                types.insert((**name).clone(), oids);
                lock(&self.known).names.insert((**name).clone(), oids);
            }
        }
        Ok(types)
    }

    /// Looks up a type by its OID; returns it with those that its values contain.
    pub(super) async fn look_up_oid(&self, oid: u32) -> QueryResult<Customs> {
        if oid == Type::MONEY.oid() {
            return self.look_up_money().await;
        }
        let parameters = [list([]), list([]), list([Some(&*oid.to_string())])];
        let found = self.look_up(parameters.map(Some).into()).await?;
        Ok(found.into_iter().map(|row| (row.oid, row.custom)).collect())
    }

    /// Finds out whether money has two decimals behind a point, which depends on the server's `lc_monetary`.
    async fn look_up_money(&self) -> QueryResult<Customs> {
        let rows = self.texts(MONEY, Vec::new()).await?;
        let is_plain = rows.first().and_then(|row| row.first()?.as_deref()) == Some("t");
        let custom = Custom {
            name: "pg_catalog.\"money\"".to_owned(),
            shape: if is_plain {
                Shape::Money
            } else {
                Shape::Opaque
            },
        };
        let found = Customs::from([(Type::MONEY.oid(), custom)]);
        let mut known = lock(&self.known);
        Arc::make_mut(&mut known.customs).extend(found.clone());
        Ok(found)
    }

    /// Returns the types that are known.
    pub(super) fn customs(&self) -> Arc<Customs> {
        Arc::clone(&lock(&self.known).customs)
    }

    /// Forgets all types, which may have been made anew.
    pub(super) fn forget_types(&self) {
        let mut known = lock(&self.known);
        *known = Known {
            is_utc: known.is_utc,
            ..Known::default()
        };
    }

    async fn look_up(&self, parameters: Vec<Option<String>>) -> QueryResult<Vec<Found>> {
        let rows = self.texts(TYPES, parameters).await?;
        let found: Option<Vec<_>> = rows.iter().map(|row| Found::read(row)).collect();
        let found = found.ok_or_else(|| super::failure::malformed("a row of pg_type"))?;
        let mut known = lock(&self.known);
        let customs = Arc::make_mut(&mut known.customs);
        customs.extend(found.iter().map(|row| (row.oid, row.custom.clone())));
        Ok(found)
    }
}

/// A row of [`TYPES`].
#[derive(Debug)]
struct Found {
    oid: u32,
    array_oid: u32,
    custom: Custom,
    /// The places in the list of names where this type is asked for, from 1.
    asked: Vec<usize>,
}

impl Found {
    fn read(row: &[Option<String>]) -> Option<Self> {
        let text = |index: usize| row.get(index)?.as_deref();
        let oid = |index| text(index)?.parse::<u32>().ok();
        let shape = match (text(3)?, text(7)?) {
            ("e", _) => Shape::Text,
            ("c", _) => Shape::Composite,
            ("d", _) => Shape::Domain(oid(4)?),
            ("r", _) => Shape::Range(oid(6)?),
            ("m", _) => Shape::Multirange(oid(6)?),
            (_, "array_recv") => Shape::Array,
            (_, "citextrecv" | "textrecv" | "varcharrecv" | "bpcharrecv") => Shape::Text,
            (_, "ltree_recv" | "lquery_recv" | "ltxtq_recv") => Shape::VersionedText,
            (_, "vector_recv") => Shape::Vector,
            _ => Shape::Opaque,
        };
        let asked = text(8).unwrap_or_default().split(',');
        Some(Self {
            oid: oid(0)?,
            array_oid: oid(1)?,
            custom: Custom {
                name: text(2)?.to_owned(),
                shape,
            },
            asked: asked.filter_map(|number| number.parse().ok()).collect(),
        })
    }
}

/// Returns an array in Postgres's text.
fn list<'a>(elements: impl IntoIterator<Item = Option<&'a str>>) -> String {
    let quoted = elements.into_iter().map(|element| match element {
        Some(text) => {
            let text = text.replace('\\', "\\\\").replace('"', "\\\"");
            format!("\"{text}\"")
        }
        None => "NULL".to_owned(),
    });
    format!("{{{}}}", quoted.collect::<Vec<_>>().join(","))
}

/// The types of names (a list of schemas, and one of names) and of OIDs, and those that values of them contain.
const TYPES: &str = "\
WITH RECURSIVE asked AS (
    SELECT a.number, CASE
        WHEN a.schema IS NULL THEN pg_catalog.to_regtype(pg_catalog.quote_ident(a.name))::pg_catalog.oid
        ELSE (SELECT t.oid FROM pg_catalog.pg_type t
            JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
            WHERE t.typname = a.name AND n.nspname = a.schema)
    END AS oid
    FROM ROWS FROM (
        pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[])
    ) WITH ORDINALITY AS a (schema, name, number)
), found AS (
    SELECT oid FROM (
        SELECT oid FROM asked UNION SELECT pg_catalog.unnest($3::pg_catalog.oid[])
    ) AS given WHERE oid IS NOT NULL
    UNION
    SELECT inner_type.oid FROM found
    JOIN pg_catalog.pg_type t ON t.oid = found.oid
    CROSS JOIN LATERAL (
        SELECT pg_catalog.unnest(ARRAY[t.typarray, t.typelem, t.typbasetype,
            (SELECT r.rngsubtype FROM pg_catalog.pg_range r WHERE t.oid IN (r.rngtypid, r.rngmultitypid))])
        UNION ALL
        SELECT a.atttypid FROM pg_catalog.pg_attribute a
        WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
    ) AS inner_type (oid)
    WHERE inner_type.oid >= 16384
)
SELECT t.oid, t.typarray,
    pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(t.typname), t.typtype, t.typbasetype, t.typelem,
    (SELECT r.rngsubtype FROM pg_catalog.pg_range r WHERE t.oid IN (r.rngtypid, r.rngmultitypid)),
    (SELECT p.proname FROM pg_catalog.pg_proc p WHERE p.oid = t.typreceive::pg_catalog.oid),
    (SELECT pg_catalog.string_agg(a.number::pg_catalog.text, ',') FROM asked a WHERE a.oid = t.oid)
FROM found
JOIN pg_catalog.pg_type t ON t.oid = found.oid
JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace";

const MONEY: &str = "\
SELECT '-1.23'::pg_catalog.money = '-1.23'::pg_catalog.numeric::pg_catalog.money
    AND 0.01::pg_catalog.numeric::pg_catalog.money <> 0::pg_catalog.numeric::pg_catalog.money
    AND 0.001::pg_catalog.numeric::pg_catalog.money = 0::pg_catalog.numeric::pg_catalog.money";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_quoted() {
        assert_eq!(list([]), "{}");
        assert_eq!(list([Some("a\"b\\"), None]), r#"{"a\"b\\",NULL}"#);
    }
}
