//! The pool for synchronous Diesel: the same policies, TLS, errors and wire, without libpq (feature `blocking`).
//!
//! [`Pool::get`] returns a [`Connection`], which is what code for `diesel::PgConnection` takes: `RunQueryDsl`,
//! `transaction`, `save_changes`, `test_transaction`, instrumentation, and the `MigrationHarness`.
//!
//! ```no_run
//! use diesel::prelude::*;
//! use diesel_neon::{RetryError, blocking};
//!
//! diesel::table! { books { id -> Integer, title -> Text } }
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let pool = blocking::Pool::from_env()?;
//!     let mut connection = pool.get()?;
//!     let titles: Vec<String> = books::table.select(books::title).load(&mut connection)?;
//!     println!("{titles:?}");
//!
//!     pool.retry().transaction(|connection| {
//!         diesel::insert_into(books::table).values(books::title.eq("Dune")).execute(connection)?;
//!         Ok::<_, RetryError>(())
//!     })?;
//!     Ok(())
//! }
//! ```
//!
//! # Threads and runtimes
//!
//! All pools and connections of this module share one small tokio runtime with one thread, which is made on first use
//! and stays until the process ends. It waits for sockets and timers; statements run on the threads that call them. So
//! these call from anywhere: plain threads, `spawn_blocking`, the workers of any runtime, several runtimes.
//!
//! A call blocks its thread, as Diesel's own connections do. In async code, call from `spawn_blocking` or actix's
//! `web::block`, so that other tasks can go on; a task that waits for a connection which another task of the same
//! thread holds gets [`PoolError::Exhausted`](crate::PoolError::Exhausted).
//!
//! An async [`Pool`](crate::Pool) cannot be shared with synchronous code: its connections live on the runtimes of their
//! callers, which do not run while their thread is blocked. An application that is both has one pool of each kind.

// In reading order:
// - `runtime`: the runtime, and how a thread waits.
// - `connection`: a connection; `diesel`: Diesel's traits for it; `transaction`: transactions.
// - `pool`: the pool; `retry`: work that is done again.
// - `r2d2`: the same policies for a pool of r2d2's.

mod connection;
mod diesel;
mod pool;
#[cfg(feature = "r2d2")]
mod r2d2;
mod retry;
mod runtime;
mod transaction;

pub use self::connection::{Connection, PgConnection};
pub use self::diesel::Cursor;
pub use self::pool::Pool;
#[cfg(feature = "r2d2")]
pub use self::r2d2::ConnectionManager;
pub use self::retry::Retry;
pub use self::runtime::block_on;
pub use self::transaction::TransactionManager;
