//! The PostgreSQL protocol as data: messages, their tags, and SCRAM. Reads from streams, but opens none.

pub(crate) mod frames;
pub(crate) mod message;
pub(crate) mod scram;
pub(crate) mod startup;
pub(crate) mod tag;
