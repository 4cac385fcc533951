//! What Diesel builds, as SQL (`render`) and bytes (`bind`), the rows that Diesel reads (`row`), its errors (`error`,
//! `dropped`), and `save_changes` (`save`). `mark` tells statements apart for instrumentation.

mod bind;
mod dropped;
mod error;
mod mark;
mod render;
mod row;
mod save;

pub(crate) use self::bind::{Binds, TypeName, Types};
pub(crate) use self::dropped::{dropped, is_dropped};
pub use self::error::DatabaseErrorExt;
pub(crate) use self::error::{lost, server_error, unsendable};
pub(crate) use self::mark::Mark;
pub(crate) use self::render::render;
pub use self::row::{Field, Row};
pub(crate) use self::save::impl_save_changes;
