// The first definition of a link wins: the README's lead to files, those here to pages.
//! [architecture]: guide::architecture
//! [axum-app]: guide::axum
//! [benchmarks]: guide::benchmarks
//! [blocking]: guide::blocking
//! [ci]: guide::ci
//! [contributing]: guide::contributing
//! [differences]: guide::differences
//! [functions]: guide::functions
//! [moving]: guide::moving
//! [neon]: guide::neon
//! [neon-sim]: https://docs.rs/neon-sim
//! [sizing]: guide::sizing
//! [transports]: guide::transports
//! [troubleshooting]: guide::troubleshooting
//! [weight]: guide::weight
#![doc = ""]
#![doc = include_str!("../README.md")]
// The README's picture is a file of the repository, which this page cannot show.
#![doc = "<style>picture { display: none; }</style>"]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]

mod connect;
mod connection;
pub mod diagnose;
pub mod env;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(doc)]
pub mod guide;
#[cfg(feature = "http")]
pub mod http;
mod policy;
mod pool;
mod pooler;
mod protocol;
mod query;
mod session;
mod telemetry;
mod transport;
mod url;
mod util;

#[cfg(feature = "axum")]
pub mod axum;
#[cfg(feature = "blocking")]
pub mod blocking;
#[cfg(feature = "books")]
pub mod books;
#[cfg(feature = "migrations")]
pub mod migration;

/// The crates whose types and traits stand in this crate's signatures, in the versions that fit.
#[cfg(feature = "migrations")]
pub use diesel_migrations;
/// The crates whose types and traits stand in this crate's signatures, in the versions that fit.
pub use {bb8, bytes, diesel, diesel_async, futures_util, rustls, tokio_postgres};

pub use self::connect::{
    CancelToken, ConnectError, ConnectErrorKind, Diagnosis, Establish, EstablishedSession,
};
pub use self::connection::{
    AbandonedTransaction, Connection, CopyIn, CopyOut, ListenUnsupported, RowStream,
    TransactionBuilder, TransactionManager, TransactionState, UnreadRows,
};
pub use self::policy::{NamedStatements, Policy, PolicyBuilder, PolicyError};
pub use self::pool::{
    BuildError, Checks, CloseError, Closed, ConnectionManager, ConnectionMetadata, Connects,
    DatabaseFailure, EvictReason, ManagerError, Pool, PoolBuilder, PoolEntry, PoolError,
    PooledConnection, Retry, RetryError, Status, Work,
};
pub use self::query::{DatabaseErrorExt, Field, Row};
pub use self::telemetry::QueryTelemetry;
pub use self::transport::TlsError;
pub use self::url::{
    ChannelBinding, DatabaseUrl, Encryption, Endpoint, Host, HostName, RootCertificates,
    SslNegotiation, TransportMode, UrlError,
};
