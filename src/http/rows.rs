//! [`Rows`]: the rows of an answer.

use std::fmt;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use diesel::result::QueryResult;
use futures_util::Stream;
use tokio_postgres::types::Type;

use super::answer::{Answer, FieldName, Records, Texts};
use crate::protocol::Columns;
use crate::query::{Row, lost};

/// The rows of a statement of an [`HttpConnection`](super::HttpConnection), which have all arrived.
#[must_use = "rows are handed out as the stream is polled"]
pub struct Rows {
    columns: Arc<Columns>,
    bytes: Bytes,
    ends: std::vec::IntoIter<usize>,
    /// Where the next row begins.
    start: usize,
}

impl Rows {
    /// Takes rows in binary, whose columns have the names and types of the fields behind the first, if there are any. The rows
    /// themselves have a domain's own type in place of the one below it.
    pub(super) fn of_records(answer: Answer<Records>) -> Self {
        let Answer { fields, rows, .. } = answer;
        let mut names = fields.into_iter().skip(1);
        let mut column = |oid| {
            let named = names.next().map(|field| (field.name, field.oid));
            named.unwrap_or_else(|| (Box::default(), oid))
        };
        let columns = match &rows.oids {
            Some(oids) => Columns::new(oids.iter().map(|oid| column(*oid))),
            None => Columns::new(names.map(|field| (field.name, field.oid))),
        };
        Self::new(columns, rows.bytes, rows.ends)
    }

    /// Takes rows of text, whose values are turned into the binary form of their types.
    pub(super) fn of_texts(answer: Answer<Texts>) -> Result<Self, NotBinary> {
        let Answer { fields, rows, .. } = answer;
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for row in rows {
            let count = u16::try_from(row.len()).ok();
            let count = count.filter(|_| row.len() == fields.len());
            bytes.extend(count.ok_or(NotBinary::Malformed)?.to_be_bytes());
            for (value, FieldName { oid, .. }) in row.into_iter().zip(&fields) {
                let value = value.map(|text| binary(*oid, text)).transpose()?;
                let length = value
                    .as_ref()
                    .map_or(Ok(-1), |value| i32::try_from(value.len()));
                bytes.extend(length.map_err(|_| NotBinary::Malformed)?.to_be_bytes());
                bytes.extend(value.unwrap_or_default());
            }
            ends.push(bytes.len());
        }
        let columns = fields.into_iter().map(|field| (field.name, field.oid));
        Ok(Self::new(Columns::new(columns), bytes, ends))
    }

    fn new(columns: Columns, bytes: Vec<u8>, ends: Vec<usize>) -> Self {
        Self {
            columns: Arc::new(columns),
            bytes: bytes.into(),
            ends: ends.into_iter(),
            start: 0,
        }
    }
}

impl Rows {
    /// Returns the next row.
    fn next_row(&mut self) -> Option<QueryResult<Row>> {
        let end = self.ends.next()?;
        let start = std::mem::replace(&mut self.start, end);
        let row = Row::new(Arc::clone(&self.columns), self.bytes.slice(start..end));
        Some(row.map_err(|malformed| lost(Box::new(malformed.into()))))
    }

    /// Returns all rows that are left.
    pub(super) fn all(mut self) -> impl Iterator<Item = QueryResult<Row>> {
        std::iter::from_fn(move || self.next_row())
    }
}

impl Stream for Rows {
    type Item = QueryResult<Row>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(self.next_row())
    }
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rows")
            .field("left", &self.ends.len())
            .finish_non_exhaustive()
    }
}

/// A value of text cannot be turned into binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotBinary {
    /// The type has no binary form that is known here.
    Type(u32),
    Malformed,
}

/// Returns the binary form of a value in Postgres's text, for the types that EXPLAIN, SHOW and CALL return.
fn binary(oid: u32, text: String) -> Result<Vec<u8>, NotBinary> {
    fn number<T: FromStr, const N: usize>(
        text: &str,
        bytes: impl Fn(T) -> [u8; N],
    ) -> Result<Vec<u8>, NotBinary> {
        let number = text.parse().map_err(|_| NotBinary::Malformed)?;
        Ok(bytes(number).to_vec())
    }

    match Type::from_oid(oid).ok_or(NotBinary::Type(oid))? {
        Type::TEXT
        | Type::VARCHAR
        | Type::BPCHAR
        | Type::NAME
        | Type::JSON
        | Type::XML
        | Type::UNKNOWN => Ok(text.into_bytes()),
        Type::JSONB => Ok([&b"\x01"[..], text.as_bytes()].concat()),
        Type::BOOL => match text.as_str() {
            "t" => Ok(vec![1]),
            "f" => Ok(vec![0]),
            _ => Err(NotBinary::Malformed),
        },
        Type::INT2 => number(&text, i16::to_be_bytes),
        Type::INT4 => number(&text, i32::to_be_bytes),
        Type::INT8 => number(&text, i64::to_be_bytes),
        Type::OID => number(&text, u32::to_be_bytes),
        Type::FLOAT4 => number(&text, f32::to_be_bytes),
        Type::FLOAT8 => number(&text, f64::to_be_bytes),
        _ => Err(NotBinary::Type(oid)),
    }
}
