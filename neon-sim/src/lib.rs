//! A stand-in for Neon on the local machine.
//!
//! It speaks like Neon's proxy, over a real PostgreSQL and a real PgBouncer that it starts from
//! the machine's own binaries: endpoints told apart by host name, TLS with a certificate
//! authority of its own, SCRAM with channel binding, a pooled endpoint in transaction mode, scale
//! to zero with cold starts, and every error of the connection phase as `ERROR` `XX000`. It
//! counts what clients do and makes go wrong what it is asked to.
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
//! Suspending does not stop PostgreSQL: sessions that came through the proxy end on both sides,
//! so that temporary tables, locks and prepared statements are gone, while [`NeonSim::sql`],
//! [`NeonSim::postgres_url`] and [`NeonSim::pgbouncer_url`] keep working.
//!
//! Everything stops when the [`NeonSim`] is dropped, and also when the process is killed.

mod assembly;
mod attempt;
mod backend;
mod backoff;
mod binaries;
mod builder;
mod catalog;
mod cluster;
mod compute;
mod counters;
mod error;
mod event;
mod faults;
mod frames;
mod guard;
mod link;
mod pgbouncer;
mod proxy;
mod relay;
mod route;
mod scram;
mod servers;
mod session;
mod sim;
mod template;
mod times;
mod tls;
mod wire;

pub use crate::builder::Builder;
pub use crate::counters::{Counters, EndpointCounters};
pub use crate::error::Error;
pub use crate::event::{Event, Suspension};
pub use crate::sim::NeonSim;
pub use crate::tls::Certificate;
