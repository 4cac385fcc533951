// The first definition of a link wins: the README's lead to files, those here to pages.
//! [architecture]: guide::architecture
//! [benchmarks]: guide::benchmarks
//! [differences]: guide::differences
//! [sizing]: guide::sizing
//! [troubleshooting]: guide::troubleshooting
#![doc = ""]
#![doc = include_str!("../README.md")]
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
mod policy;
mod pool;
mod pooler;
mod protocol;
mod query;
mod session;
mod transport;
mod url;
mod util;

#[cfg(feature = "books")]
pub mod books;
#[cfg(feature = "migrations")]
pub mod migration;

pub use self::connect::{
    CancelToken, ConnectError, ConnectErrorKind, Diagnosis, Establish, EstablishedSession,
};
pub use self::connection::{
    AbandonedTransaction, Connection, CopyIn, CopyOut, ListenUnsupported, RowStream,
    TransactionBuilder, TransactionManager, TransactionState, UnreadRows, internal_query,
    is_connection_lost, is_response_timeout, is_transient, sqlstate,
};
pub use self::policy::{NamedStatements, Policy, PolicyBuilder, PolicyError};
pub use self::pool::{
    BuildError, Checks, Closed, ConnectionManager, Connects, DatabaseFailure, EvictReason,
    Idempotent, ManagerError, Pool, PoolBuilder, PoolEntry, PoolError, PooledConnection,
    RetryError, Status, Work,
};
pub use self::query::{Field, Row};
pub use self::transport::TlsError;
pub use self::url::{
    ChannelBinding, DatabaseUrl, Encryption, Endpoint, Host, HostName, RootCertificates,
    SslNegotiation, UrlError,
};
