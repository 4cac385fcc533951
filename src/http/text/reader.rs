//! [`Reader`] takes binary values apart, and [`show`] writes text.

use std::fmt::Write;

/// A value cannot be told in text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum NoText {
    /// The type has no text form that is known here.
    Type(u32),
    /// The type is not known yet.
    Unknown(u32),
    /// The bytes are no value of the type.
    Value(u32),
}

/// Reads a value from its front.
pub(super) struct Reader<'a> {
    pub(super) rest: &'a [u8],
    /// The type, for errors.
    pub(super) oid: u32,
}

impl<'a> Reader<'a> {
    pub(super) fn new(oid: u32, value: &'a [u8]) -> Self {
        Self { rest: value, oid }
    }

    pub(super) fn bytes(&mut self, length: usize) -> Result<&'a [u8], NoText> {
        let malformed = NoText::Value(self.oid);
        let (now, later) = self.rest.split_at_checked(length).ok_or(malformed)?;
        self.rest = later;
        Ok(now)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], NoText> {
        let malformed = NoText::Value(self.oid);
        let (now, later) = self.rest.split_first_chunk().ok_or(malformed)?;
        self.rest = later;
        Ok(*now)
    }

    pub(super) fn i16(&mut self) -> Result<i16, NoText> {
        self.array().map(i16::from_be_bytes)
    }

    pub(super) fn i32(&mut self) -> Result<i32, NoText> {
        self.array().map(i32::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, NoText> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn i64(&mut self) -> Result<i64, NoText> {
        self.array().map(i64::from_be_bytes)
    }

    /// Reads a length and as many bytes; returns `None` for NULL.
    pub(super) fn field(&mut self) -> Result<Option<&'a [u8]>, NoText> {
        match self.i32()? {
            -1 => Ok(None),
            length => {
                let length = usize::try_from(length).map_err(|_| NoText::Value(self.oid))?;
                self.bytes(length).map(Some)
            }
        }
    }

    /// Returns the rest as text.
    pub(super) fn text(&mut self) -> Result<&'a str, NoText> {
        let rest = std::mem::take(&mut self.rest);
        std::str::from_utf8(rest).map_err(|_| NoText::Value(self.oid))
    }

    /// Checks that nothing is left.
    pub(super) fn end(self) -> Result<(), NoText> {
        match self.rest.is_empty() {
            true => Ok(()),
            false => Err(NoText::Value(self.oid)),
        }
    }
}

/// Appends what is shown as the server reads it.
pub(super) fn show(text: &mut String, value: impl std::fmt::Display) {
    // A String takes everything.
    let _ = write!(text, "{value}");
}
