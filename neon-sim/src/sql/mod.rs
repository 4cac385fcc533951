//! One-shot SQL over HTTPS: `POST /sql`, as Neon's proxy answers it.

mod access;
pub(crate) mod answer;
mod array;
pub(crate) mod caller;
mod database;
mod failure;
mod headers;
mod output;
mod payload;
mod scalar;
pub(crate) mod service;
mod statement;
