//! The real servers behind the proxy: a PostgreSQL and a PgBouncer of this machine, started for one stand-in.

pub(crate) mod binaries;
pub(crate) mod cluster;
mod files;
mod guard;
mod identity;
pub(crate) mod names;
mod pgbouncer;
pub(crate) mod pooler;
mod postgres;
pub(crate) mod server;
mod template;
