//! The server's answers: JSON, read as rows.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeOwned, DeserializeSeed, Error, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::base64;
use crate::protocol::ServerError;

/// The result of a statement.
#[derive(Debug, Deserialize)]
pub(super) struct Answer<R> {
    #[serde(default)]
    pub(super) fields: Vec<FieldName>,
    pub(super) rows: R,
    /// How many rows the statement has returned or changed.
    #[serde(rename = "rowCount", default)]
    pub(super) count: Option<u64>,
}

/// The name of a column, and the OID of its type.
#[derive(Debug, Deserialize)]
pub(super) struct FieldName {
    pub(super) name: Box<str>,
    #[serde(rename = "dataTypeID")]
    pub(super) oid: u32,
}

/// The results of a batch, not read yet.
#[derive(Debug, Deserialize)]
pub(super) struct Results<'a> {
    #[serde(borrow)]
    pub(super) results: Vec<&'a RawValue>,
}

/// An error that the server, or its proxy, has sent.
#[derive(Deserialize)]
pub(super) struct ErrorAnswer<'a> {
    #[serde(borrow)]
    message: Cow<'a, str>,
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    severity: Option<String>,
    #[serde(default)]
    detail: Option<String>,
    #[serde(default)]
    hint: Option<String>,
    #[serde(default)]
    position: Value,
    #[serde(default, rename = "internalPosition")]
    internal_position: Value,
    #[serde(default, rename = "internalQuery")]
    internal_query: Option<String>,
    #[serde(default)]
    table: Option<String>,
    #[serde(default)]
    column: Option<String>,
    #[serde(default)]
    constraint: Option<String>,
    #[serde(default)]
    routine: Option<String>,
}

impl From<ErrorAnswer<'_>> for ServerError {
    fn from(answer: ErrorAnswer<'_>) -> Self {
        let number = |value: Value| match value {
            Value::String(text) => text.parse().ok(),
            Value::Number(number) => i32::try_from(number.as_i64()?).ok(),
            _ => None,
        };
        Self {
            severity: answer.severity.unwrap_or_default(),
            code: answer.code.unwrap_or_default(),
            message: answer.message.into_owned(),
            detail: answer.detail,
            hint: answer.hint,
            position: number(answer.position),
            internal_position: number(answer.internal_position),
            internal_query: answer.internal_query,
            table: answer.table,
            column: answer.column,
            constraint: answer.constraint,
            routine: answer.routine,
            cause: None,
        }
    }
}

/// Rows of text.
pub(super) type Texts = Vec<Vec<Option<String>>>;

/// Reads an answer, or a piece of one.
pub(super) fn parse<R: DeserializeOwned>(json: &[u8]) -> serde_json::Result<Answer<R>> {
    serde_json::from_slice(json)
}

/// Rows in binary, each as the body of a DataRow.
#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) bytes: Vec<u8>,
    /// Where each row ends.
    pub(super) ends: Vec<usize>,
    /// The types of the columns; `None` if there are no rows.
    pub(super) oids: Option<Vec<u32>>,
}

impl<'de> Deserialize<'de> for Records {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;

        impl<'de> Visitor<'de> for All {
            type Value = Records;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("rows")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<Records, A::Error> {
                let mut records = Records::default();
                let mut scratch = Vec::new();
                while rows
                    .next_element_seed(OneRow(&mut records, &mut scratch))?
                    .is_some()
                {}
                Ok(records)
            }
        }

        deserializer.deserialize_seq(All)
    }
}

/// Reads a row, whose first value has the record, and whose others are there for the names of their columns.
struct OneRow<'a>(&'a mut Records, &'a mut Vec<u8>);

impl<'de> DeserializeSeed<'de> for OneRow<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for OneRow<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a row")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<(), A::Error> {
        let first = values.next_element_seed(OneRecord(self.0, self.1))?;
        first.ok_or_else(|| A::Error::custom("a row is empty"))?;
        while values.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }
}

/// Reads a record in base64.
struct OneRecord<'a>(&'a mut Records, &'a mut Vec<u8>);

impl<'de> DeserializeSeed<'de> for OneRecord<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for OneRecord<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a record in base64")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        let Self(records, scratch) = self;
        scratch.clear();
        let read = base64::decode(text, scratch).and_then(|()| records.push(scratch));
        read.ok_or_else(|| E::custom("a row is no record in base64, or not one like the others"))
    }
}

impl Records {
    /// Appends a record, which has a count of columns, and for each an OID, a length and a value.
    fn push(&mut self, record: &[u8]) -> Option<()> {
        let (count, mut rest) = record.split_first_chunk()?;
        let count = u16::try_from(i32::from_be_bytes(*count)).ok()?;
        let is_first = self.oids.is_none();
        let oids = self.oids.get_or_insert_default();
        if !is_first && oids.len() != usize::from(count) {
            return None;
        }
        self.bytes.extend(count.to_be_bytes());
        for column in 0..usize::from(count) {
            let (oid, behind) = rest.split_first_chunk()?;
            let oid = u32::from_be_bytes(*oid);
            match is_first {
                true => oids.push(oid),
                false if oids[column] == oid => {}
                false => return None,
            }
            let (length, _) = behind.split_first_chunk()?;
            let size = match i32::from_be_bytes(*length) {
                -1 => 0,
                length => usize::try_from(length).ok()?,
            };
            let (value, behind) = behind.split_at_checked(size.checked_add(4)?)?;
            self.bytes.extend(value);
            rest = behind;
        }
        self.ends.push(self.bytes.len());
        rest.is_empty().then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `(7, NULL)` and `(8, '')`, of the types int4 and text.
    const ROWS: &str =
        r#"[["AAAAAgAAABcAAAAEAAAABwAAABn/////", null], ["AAAAAgAAABcAAAAEAAAACAAA\nABkAAAAA"]]"#;

    #[test]
    fn records_become_rows() {
        let json = format!(
            r#"{{"command":"SELECT","rowCount":2,"rows":{ROWS},"fields":[{{"name":"encode","dataTypeID":25,"format":"text"}}]}}"#
        );
        let answer: Answer<Records> = parse(json.as_bytes()).unwrap();
        assert_eq!((answer.count, answer.fields[0].oid), (Some(2), 25));
        let records = answer.rows;
        assert_eq!(records.oids, Some(vec![23, 25]));
        assert_eq!(
            records.bytes[..records.ends[0]],
            *b"\0\x02\0\0\0\x04\0\0\0\x07\xff\xff\xff\xff"
        );
        assert_eq!(
            records.bytes[records.ends[0]..],
            *b"\0\x02\0\0\0\x04\0\0\0\x08\0\0\0\0"
        );
    }

    #[test]
    fn malformed_rows_are_refused() {
        for rows in [
            "{}",
            "[[]]",
            "[null]",
            "[[null]]",
            r#"[["A"]]"#,
            r#"[["AAAA!AAA"]]"#,
            // One column too few, one byte too many, a negative count, and other types.
            r#"[["AAAAAg=="]]"#,
            r#"[["AAAAAAA="]]"#,
            r#"[["//////8="]]"#,
            r#"[["AAAAAQAAABcAAAAEAAAABw=="],["AAAAAQAAABkAAAAEAAAABw=="]]"#,
            r#"[["AAAAAQAAABd/////AAAABw=="]]"#,
            r#"[["AAAAAQAAABf////+AAAABw=="]]"#,
        ] {
            let json = format!(r#"{{"rows":{rows}}}"#);
            assert!(parse::<Records>(json.as_bytes()).is_err(), "{rows}");
        }
        let deep = format!(r#"{{"rows":[["AAAAAA==",{}]]}}"#, "[".repeat(100_000));
        assert!(parse::<Records>(deep.as_bytes()).is_err());
        let long = format!(r#"{{"rows":[["AAAAAA=="{}]]}}"#, ",null".repeat(1000));
        assert_eq!(parse::<Records>(long.as_bytes()).unwrap().rows.ends, [2]);
    }
}
