// The first definition of a link wins: the README's lead to files, those here to pages.
//! [benchmarks]: guide::benchmarks
//! [differences]: guide::differences
//! [sizing]: guide::sizing
//! [troubleshooting]: guide::troubleshooting
#![doc = ""]
#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]

mod backoff;
mod clock;
mod comment;
mod connect;
mod connection;
pub mod diagnose;
pub mod env;
mod error_debug;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod gate;
#[cfg(doc)]
pub mod guide;
mod held;
mod lease;
mod manager;
mod meter;
mod policy;
mod pool;
mod retry;
mod stats;
mod tls;
mod transport;
mod url;
mod wire;

#[cfg(feature = "books")]
pub mod books;
#[cfg(feature = "migrations")]
pub mod migration;

pub use self::connect::{CancelToken, ConnectError, ConnectErrorKind, Diagnosis, Handshake};
pub use self::connection::{
    AbandonedTransaction, Connection, CopyIn, CopyOut, Field, PooledEndpoint, Row, RowStream,
    TransactionBuilder, TransactionManager, TransactionState, UnreadRows, internal_query,
    is_connection_lost, is_transient, sqlstate,
};
pub use self::lease::Lease;
pub use self::manager::{ConnectionManager, Establish, ManagerError, Retired};
pub use self::policy::{Policy, PolicyBuilder, PolicyError, StatementNames};
pub use self::pool::{BuildError, Pool, PoolBuilder, PoolError, PooledConnection, Status};
pub use self::retry::{DatabaseFailure, Idempotent, RunError, Work};
pub use self::stats::{Checks, Closed, Connects};
pub use self::tls::TlsError;
pub use self::url::{
    ChannelBinding, DatabaseUrl, Encryption, Endpoint, Host, HostName, Negotiation, Roots, UrlError,
};
