//! What Diesel builds, as bytes (`bind`), and the rows that Diesel reads (`row`).

mod bind;
mod row;

pub(crate) use self::bind::{Binds, TypeName, Types};
pub use self::row::{Field, Row};
