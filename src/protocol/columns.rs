//! [`Columns`]: the columns of a result, as a RowDescription tells them.

use std::num::NonZeroU32;
use std::ops::Deref;

use super::backend::{Fields, Malformed};

/// The columns of a result.
#[derive(Debug, Default)]
pub(crate) struct Columns {
    all: Box<[Column]>,
    /// The body of the RowDescription.
    description: Box<[u8]>,
}

/// A column of a result: its name, and the OID of its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) name: Box<str>,
    pub(crate) oid: NonZeroU32,
}

impl Columns {
    /// Reads the body of a RowDescription.
    pub(crate) fn read(description: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Fields(description);
        let count = fields.u16()?;
        let column = |_| {
            let name = fields.text()?.into();
            let _table_and_column = fields.bytes(4 + 2)?;
            let oid = u32::from_be_bytes(fields.i32()?.to_be_bytes());
            let _length_modifier_and_format = fields.bytes(2 + 4 + 2)?;
            Ok(Column {
                name,
                oid: NonZeroU32::new(oid).unwrap_or(UNKNOWN),
            })
        };
        Ok(Self {
            all: (0..count).map(column).collect::<Result<_, _>>()?,
            description: description.into(),
        })
    }

    /// Returns the columns of a result that no RowDescription tells of.
    #[cfg(feature = "http")]
    pub(crate) fn new(all: impl IntoIterator<Item = (Box<str>, u32)>) -> Self {
        let all = all.into_iter().map(|(name, oid)| Column {
            name,
            oid: NonZeroU32::new(oid).unwrap_or(UNKNOWN),
        });
        Self {
            all: all.collect(),
            description: Box::default(),
        }
    }

    /// Returns whether the body of a RowDescription tells the same columns.
    pub(crate) fn are_described_by(&self, description: &[u8]) -> bool {
        *self.description == *description
    }
}

impl Deref for Columns {
    type Target = [Column];

    fn deref(&self) -> &[Column] {
        &self.all
    }
}

/// The OID of the type `unknown`.
const UNKNOWN: NonZeroU32 = match NonZeroU32::new(705) {
    Some(oid) => oid,
    None => unreachable!(),
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_off_row_description_is_malformed() {
        let whole = b"\0\x01id\0\0\0\0\0\0\0\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0";
        let read = Columns::read(whole).unwrap();
        assert_eq!((&*read[0].name, read[0].oid.get()), ("id", 23));
        assert!(read.are_described_by(whole));
        for len in 0..whole.len() {
            assert_eq!(Columns::read(&whole[..len]).unwrap_err(), Malformed);
            assert!(!read.are_described_by(&whole[..len]));
        }
    }
}
