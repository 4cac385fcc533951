//! What a request over HTTPS cannot do, as errors.

use super::text::{Customs, NoText, shown_name};

/// A transaction that goes over several requests was to begin, or to end: each request over HTTPS is a transaction of its
/// own.
///
/// Diesel carries it as [`QueryBuilderError`](diesel::result::Error::QueryBuilderError).
#[derive(Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[error(
    "each request over HTTPS is a transaction of its own: send several statements as one with HttpConnection::batch, or \
     use a Connection with transport=websocket for a transaction whose statements depend on one another"
)]
pub struct TransactionUnsupported(pub(super) ());

/// A bind parameter has a type whose text form is not known to this crate. Nothing was sent.
///
/// Diesel carries it as [`SerializationError`](diesel::result::Error::SerializationError).
#[derive(Clone, PartialEq, Eq, Hash, thiserror::Error)]
#[error(
    "a bind parameter of the type {name} {}: {}; nothing was sent",
    match is_malformed {
        true => "has bytes that are no value of it",
        false => "has no text form that is known here, which HTTPS needs",
    },
    match is_malformed {
        true => "correct the ToSql that wrote them",
        false => "bind text and cast it in SQL, or use a Connection over TCP or a WebSocket",
    },
)]
pub struct ParameterUnsupported {
    name: String,
    is_malformed: bool,
}

impl ParameterUnsupported {
    pub(super) fn new(reason: NoText, customs: &Customs) -> Self {
        let (oid, is_malformed) = match reason {
            NoText::Type(oid) | NoText::Unknown(oid) => (oid, false),
            NoText::Value(oid) => (oid, true),
        };
        Self {
            name: shown_name(oid, customs),
            is_malformed,
        }
    }

    /// Returns the name of the type, with its schema unless every database has it.
    pub fn type_name(&self) -> &str {
        &self.name
    }
}

/// The rows of a statement that is no query, such as CALL, have a column whose type is not read from text.
///
/// Diesel carries it as [`DeserializationError`](diesel::result::Error::DeserializationError). The statement has run.
#[derive(Clone, PartialEq, Eq, Hash, thiserror::Error)]
#[error(
    "the rows of a statement that is no query come as text over HTTPS, and a column of the type {name} is not read from \
     it; the statement has run: use a Connection over TCP or a WebSocket for its rows"
)]
pub struct RowsUnsupported {
    name: String,
}

impl RowsUnsupported {
    pub(super) fn new(oid: u32) -> Self {
        Self {
            name: shown_name(oid, &Customs::new()),
        }
    }
}

crate::util::debug_is_chain!(
    TransactionUnsupported,
    ParameterUnsupported,
    RowsUnsupported
);
