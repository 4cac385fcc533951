//! [`Custom`]: a type that only the database knows; the names of types.

use std::collections::HashMap;

use tokio_postgres::types::Type;

use super::reader::NoText;

/// The types that only the database knows, by their OIDs.
pub(in super::super) type Customs = HashMap<u32, Custom>;

/// A type that only the database knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Custom {
    /// The name as SQL writes it, with its schema.
    pub(in super::super) name: String,
    pub(in super::super) shape: Shape,
}

/// What the binary form of a type looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Shape {
    /// The same as its text: an enum, `citext`.
    Text,
    /// A byte of a version, then text: `ltree`.
    VersionedText,
    Composite,
    /// A domain over another type.
    Domain(u32),
    Array,
    /// A range of another type.
    Range(u32),
    /// A multirange of ranges of another type.
    Multirange(u32),
    /// Money with two decimals behind a point.
    Money,
    /// The embeddings of the extension `vector`.
    Vector,
    /// Not known here.
    Opaque,
}

/// Returns the name of a type as SQL writes it, for a parameter of this type.
pub(in super::super) fn sql_name(oid: u32, customs: &Customs) -> Result<String, NoText> {
    match Type::from_oid(oid) {
        Some(known) => Ok(format!("pg_catalog.\"{}\"", known.name())),
        None => Ok(customs.get(&oid).ok_or(NoText::Unknown(oid))?.name.clone()),
    }
}

/// Returns the name of a type as its users know it.
pub(in super::super) fn shown_name(oid: u32, customs: &Customs) -> String {
    match (Type::from_oid(oid), customs.get(&oid)) {
        (Some(known), _) => known.name().to_owned(),
        (None, Some(custom)) => custom.name.clone(),
        (None, None) => format!("with the OID {oid}"),
    }
}
