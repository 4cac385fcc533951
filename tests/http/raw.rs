//! Values as their bytes, and types by their OIDs and names.

use std::io::Write;

use diesel::deserialize::{self, FromSql, QueryableByName};
use diesel::pg::{Pg, PgTypeMetadata, PgValue};
use diesel::query_builder::QueryId;
use diesel::row::NamedRow;
use diesel::serialize::{self, IsNull, Output, ToSql};
use diesel::sql_types::{HasSqlType, Nullable, SingleValue, SqlType, is_nullable};

/// The type of an OID.
pub struct Of<const OID: u32>;

impl<const OID: u32> SqlType for Of<OID> {
    type IsNull = is_nullable::NotNull;
}

impl<const OID: u32> SingleValue for Of<OID> {}

impl<const OID: u32> QueryId for Of<OID> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<const OID: u32> HasSqlType<Of<OID>> for Pg {
    fn metadata(_: &mut Self::MetadataLookup) -> PgTypeMetadata {
        PgTypeMetadata::new(OID, 0)
    }
}

/// The types of the test's own schema.
pub const NAMES: [&str; 9] = [
    "mood",
    "_mood",
    "person",
    "_person",
    "positive",
    "floats",
    "floats_multi",
    "house",
    "line",
];

/// The type of a name.
pub struct Called<const NAME: usize>;

impl<const NAME: usize> SqlType for Called<NAME> {
    type IsNull = is_nullable::NotNull;
}

impl<const NAME: usize> SingleValue for Called<NAME> {}

impl<const NAME: usize> QueryId for Called<NAME> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<const NAME: usize> HasSqlType<Called<NAME>> for Pg {
    fn metadata(lookup: &mut Self::MetadataLookup) -> PgTypeMetadata {
        lookup.lookup_type(NAMES[NAME], Some("own"))
    }
}

/// A value as its bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Raw(pub Vec<u8>);

impl<T> ToSql<T, Pg> for Raw
where
    Pg: HasSqlType<T>,
{
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        out.write_all(&self.0)?;
        Ok(IsNull::No)
    }
}

impl<T> FromSql<T, Pg> for Raw {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        Ok(Self(value.as_bytes().to_vec()))
    }
}

#[derive(Debug)]
pub struct Back(pub Option<Raw>);

impl QueryableByName<Pg> for Back {
    fn build<'a>(row: &impl NamedRow<'a, Pg>) -> deserialize::Result<Self> {
        let value = NamedRow::get::<Nullable<Of<25>>, Option<Raw>>(row, "v");
        value.map(Back)
    }
}
