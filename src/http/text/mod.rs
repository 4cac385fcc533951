//! [`push_text`]: a value in Postgres's text, made from the binary form that Diesel writes.
//!
//! - `container`: [`push_text`]; arrays, ranges and composites, whose elements are values themselves.
//! - `scalar`: numbers, text, bytes, identifiers and network addresses.
//! - `numeric`, `time`: decimal numbers; dates, times and intervals.
//! - `custom`: the types that only the database knows.
//! - `reader`: takes binary values apart.
//!
//! The text reads back as the same value: the server's settings `DateStyle`, `IntervalStyle` and `bytea_output` do not matter.

mod container;
mod custom;
mod numeric;
mod reader;
mod scalar;
mod time;

pub(super) use self::container::push_text;
pub(super) use self::custom::{Custom, Customs, Shape, shown_name, sql_name};
pub(super) use self::reader::NoText;
