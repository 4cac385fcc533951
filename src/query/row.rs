//! [`Row`]: one row, as Diesel reads it.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use diesel::backend::Backend;
use diesel::pg::{Pg, PgValue};
use diesel::row::{PartialRow, RowIndex, RowSealed};

use crate::protocol::{Columns, Fields, Malformed};

/// A row of a result of [`Connection`](crate::Connection).
pub struct Row {
    columns: Arc<Columns>,
    body: Bytes,
    cursor: Cell<Cursor>,
}

impl Row {
    /// Checks the body of a DataRow against its columns.
    pub(crate) fn new(columns: Arc<Columns>, body: Bytes) -> Result<Self, Malformed> {
        let mut fields = Fields(&body);
        if usize::from(fields.u16()?) != columns.len() {
            return Err(Malformed);
        }
        for _ in 0..columns.len() {
            if let Ok(len) = usize::try_from(fields.i32()?) {
                fields.bytes(len)?;
            }
        }
        if !fields.0.is_empty() {
            return Err(Malformed);
        }
        Ok(Self {
            columns,
            body,
            cursor: Cell::new(Cursor {
                field: 0,
                start: COUNT,
                before: COUNT,
            }),
        })
    }

    /// Returns the bytes of a field; None if it is NULL or does not exist.
    pub(crate) fn value(&self, index: usize) -> Option<&[u8]> {
        let Cursor {
            mut field,
            mut start,
            before,
        } = self.cursor.get();
        if index < field {
            // A field may be read twice.
            (field, start) = match index + 1 == field {
                true => (index, before),
                false => (0, COUNT),
            };
        }
        loop {
            let (value, end) = self.field(start)?;
            field += 1;
            if field > index {
                self.cursor.set(Cursor {
                    field,
                    start: end,
                    before: start,
                });
                return value;
            }
            start = end;
        }
    }

    /// Returns the bytes of the field that starts at an offset, unless it is NULL, and the offset behind it.
    fn field(&self, start: usize) -> Option<(Option<&[u8]>, usize)> {
        let (len, bytes) = self.body.get(start..)?.split_first_chunk()?;
        let Ok(len) = usize::try_from(i32::from_be_bytes(*len)) else {
            return Some((None, start + LENGTH));
        };
        Some((Some(bytes.get(..len)?), start + LENGTH + len))
    }
}

/// Where the next field starts: rows are read from left to right.
#[derive(Clone, Copy)]
struct Cursor {
    field: usize,
    start: usize,
    /// Where the field before it starts, which was read last.
    before: usize,
}

/// The offset of the first field, behind the count of fields.
const COUNT: usize = 2;
/// How many bytes the length of a field takes.
const LENGTH: usize = 4;

impl RowSealed for Row {}

impl<'a> diesel::row::Row<'a, Pg> for Row {
    type InnerPartialRow = Self;
    type Field<'b>
        = Field<'b>
    where
        Self: 'b,
        'a: 'b;

    fn field_count(&self) -> usize {
        self.columns.len()
    }

    fn get<'b, I>(&'b self, index: I) -> Option<Field<'b>>
    where
        'a: 'b,
        Self: RowIndex<I>,
    {
        let index = self.idx(index)?;
        Some(Field { row: self, index })
    }

    fn partial_row(&self, range: std::ops::Range<usize>) -> PartialRow<'_, Self> {
        PartialRow::new(self, range)
    }
}

impl RowIndex<usize> for Row {
    fn idx(&self, index: usize) -> Option<usize> {
        (index < self.columns.len()).then_some(index)
    }
}

impl<'a> RowIndex<&'a str> for Row {
    fn idx(&self, name: &'a str) -> Option<usize> {
        self.columns.iter().position(|column| *column.name == *name)
    }
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Row")
            .field("columns", &self.columns)
            .finish_non_exhaustive()
    }
}

/// A field of a [`Row`].
#[derive(Debug)]
pub struct Field<'a> {
    row: &'a Row,
    index: usize,
}

impl<'a> diesel::row::Field<'a, Pg> for Field<'a> {
    fn field_name(&self) -> Option<&str> {
        let name = &*self.row.columns[self.index].name;
        // A column has no empty name: one that was not asked for is none.
        (!name.is_empty()).then_some(name)
    }

    fn value(&self) -> Option<<Pg as Backend>::RawValue<'_>> {
        let bytes = self.row.value(self.index)?;
        Some(PgValue::new(bytes, &self.row.columns[self.index].oid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use diesel::row::{Field as _, Row as _};

    fn row(fields: &[Option<&[u8]>]) -> Row {
        let mut body = (fields.len() as u16).to_be_bytes().to_vec();
        let mut described = body.clone();
        for index in 0..fields.len() {
            described.extend(format!("c{index}\0").into_bytes());
            described.extend(b"\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\x01");
        }
        for field in fields {
            let len = field.map_or(-1, |bytes| bytes.len() as i32);
            body.extend(len.to_be_bytes());
            body.extend(field.unwrap_or_default());
        }
        let columns = Columns::read(&described).unwrap();
        Row::new(Arc::new(columns), body.into()).unwrap()
    }

    #[test]
    fn fields_are_found_in_any_order() {
        let row = row(&[Some(b"a"), None, Some(b""), Some(b"dd")]);
        let value = |index: usize| {
            row.get(index)
                .unwrap()
                .value()
                .map(|v| v.as_bytes().to_vec())
        };
        for _ in 0..2 {
            assert_eq!(value(3), Some(b"dd".to_vec()));
            assert_eq!(value(0), Some(b"a".to_vec()));
            assert_eq!(value(1), None);
            assert_eq!(value(2), Some(Vec::new()));
            assert_eq!(value(2), Some(Vec::new()));
        }
        assert!(row.get(4).is_none());
        assert_eq!(row.get("c3").unwrap().field_name(), Some("c3"));
    }

    #[test]
    fn a_row_that_lies_about_itself_is_malformed() {
        let columns = row(&[Some(b"abc")]).columns;
        for body in [
            &b""[..],
            b"\0\x02\0\0\0\x01a\0\0\0\x01b",
            b"\0\x01\0\0\0\x04abc",
            b"\0\x01\x7f\xff\xff\xffabc",
            b"\0\x01\0\0\0\x03abc\0\0\0\x01d",
        ] {
            let read = Row::new(Arc::clone(&columns), Bytes::from_static(body));
            assert!(read.is_err());
        }
    }
}
