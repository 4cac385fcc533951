//! A stand-in for Neon on the local machine.
//!
//! It speaks like Neon's proxy, over a real PostgreSQL and a real PgBouncer that it starts from
//! the machine's own binaries: endpoints told apart by host name, TLS with a certificate
//! authority of its own, SCRAM with channel binding, a pooled endpoint in transaction mode, scale
//! to zero with cold starts, and every error of the connection phase as `ERROR` `XX000`. On a
//! second port, as Neon on 443, it speaks the same in WebSockets, and answers `POST /sql`. It counts what clients do, and
//! brings faults on request. [`HttpProxy`] stands between the two, as in a company's network.
//!
//! ```no_run
//! # async fn demo() -> Result<(), neon_sim::Error> {
//! use neon_sim::{NeonSim, Suspension};
//!
//! let neon = NeonSim::builder().never_suspend().start().await?;
//! println!("DATABASE_URL={}", neon.pooled_url());
//! neon.suspend(Suspension::Normal).await;
//! // The next connection waits for a cold start.
//! assert!(neon.is_suspended());
//! # Ok(())
//! # }
//! ```
//!
//! A test of an app takes a [`TestDatabase`]: the same in front of a database of its own, with the app's migrations, in a few
//! hundredths of a second, on servers that all tests of the process share.
//!
//! Suspending does not stop PostgreSQL: sessions that came through the proxy end on both sides,
//! so that temporary tables, locks and prepared statements are gone, while [`NeonSim::sql`],
//! [`NeonSim::postgres_url`] and [`NeonSim::pgbouncer_url`] keep working.
//!
//! Everything stops when the [`NeonSim`] is dropped, and also when the process is killed.

// The rooms, from the lowest: error, sync, protocol, servers, control, proxy, sql, https, http_proxy, remote, sim, test_database.
// `tests/layers.rs` says which may import which.
mod control;
mod error;
mod http_proxy;
mod https;
mod protocol;
mod proxy;
mod remote;
mod servers;
mod sim;
mod sql;
mod sync;
mod test_database;

pub use crate::control::counters::{Counters, EndpointCounters};
pub use crate::control::event::{Event, Suspension};
pub use crate::control::websocket_fault::WebSocketFault;
pub use crate::error::Error;
pub use crate::http_proxy::proxy::HttpProxy;
pub use crate::http_proxy::state::ProxyRequest;
pub use crate::proxy::tls::Certificate;
pub use crate::servers::pooler::Pooler;
pub use crate::sim::block_on::block_on;
pub use crate::sim::builder::Builder;
pub use crate::sim::neon_sim::NeonSim;
pub use crate::test_database::builder::TestDatabaseBuilder;
pub use crate::test_database::database::TestDatabase;
