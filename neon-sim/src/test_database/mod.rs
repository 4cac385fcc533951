//! Databases for tests: one for each, on servers that all tests of a process share.

pub(crate) mod builder;
pub(crate) mod database;
mod lease;
mod migrations;
mod part;
mod servers;
