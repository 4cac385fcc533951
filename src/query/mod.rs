//! What Diesel builds, as SQL and bytes; and the rows that come back.

mod bind;
mod row;

pub(crate) use self::bind::{Binds, TypeName, Types};
pub use self::row::{Field, Row};
