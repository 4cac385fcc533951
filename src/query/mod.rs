//! What Diesel builds, as SQL (`render`) and bytes (`bind`), the rows that Diesel reads (`row`), and its errors (`error`,
//! `dropped`).

mod bind;
mod dropped;
mod error;
mod render;
mod row;

pub(crate) use self::bind::{Binds, TypeName, Types};
pub(crate) use self::dropped::{dropped, is_dropped};
pub use self::error::DatabaseErrorExt;
pub(crate) use self::error::{lost, server_error, unsendable};
pub(crate) use self::render::render;
pub use self::row::{Field, Row};
