//! One-shot SQL over HTTPS (feature `http`): single statements and batches, without a session.
//!
//! Neon's proxy takes SQL as `POST /sql` on port 443. [`HttpConnection`] is a connection of diesel-async's on top of it, for
//! functions that run a statement or two and end, and for networks that let nothing but HTTPS through. `docs/transports.md`
//! compares it with TCP and the WebSocket.
//!
//! ```no_run
//! use diesel::prelude::*;
//! use diesel_async::RunQueryDsl;
//! use diesel_neon::http::HttpConnection;
//!
//! diesel::table! {
//!     users (id) {
//!         id -> Integer,
//!         name -> Text,
//!     }
//! }
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let url = "postgresql://user:password@ep-cool-darkness-123456.eu-central-1.aws.neon.tech/neondb";
//! let mut connection = HttpConnection::new(url)?;
//! let names: Vec<String> = users::table
//!     .select(users::name)
//!     .load(&mut connection)
//!     .await?;
//!
//! // Several statements, one transaction.
//! let mut batch = connection.batch().serializable();
//! let inserted = batch.add_load::<i32, _>(
//!     diesel::insert_into(users::table)
//!         .values(users::name.eq("Ada"))
//!         .returning(users::id),
//! );
//! let deleted = batch.add_execute(diesel::delete(users::table.filter(users::name.eq("Bob"))));
//! let mut results = batch.send().await?;
//! let ids: Vec<i32> = results.take(inserted)?;
//! let count: usize = results.take(deleted)?;
//! # Ok(())
//! # }
//! ```
// In reading order:
//
// - `connection`, `builder`, `diesel_async`: `HttpConnection`, and the traits of diesel-async; `batch`: several statements as one transaction;
//   `transaction`, `unsupported`: what is refused.
// - `statement`: from a query to its result. `sent`, `parts`: its SQL as it is sent. `text`: its parameters; `customs`: the types
//   that only the database knows. `rows`, `answer`, `base64`: its rows.
// - `utc`: several statements as one transaction, and their time zone.
// - `shared`: a request, and when it is sent again; `failure`: what its errors say.
// - `client`: requests under way; `lines`, `line`, `route`: connections, and where they lead to.
// - `report`: what instrumentation is told.
// - `fuzzing`: hostile input.

mod answer;
mod base64;
mod batch;
mod builder;
mod client;
mod connection;
mod customs;
mod diesel_async;
mod failure;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod known;
mod line;
mod lines;
mod parts;
mod report;
mod route;
mod rows;
mod sent;
mod shared;
mod statement;
mod text;
mod transaction;
mod unsupported;
mod utc;

pub use self::batch::{Batch, BatchResults, Ticket};
pub use self::builder::{BuildError, HttpConnectionBuilder};
pub use self::connection::HttpConnection;
pub use self::rows::Rows;
pub use self::transaction::HttpTransactionManager;
pub use self::unsupported::{ParameterUnsupported, RowsUnsupported, TransactionUnsupported};
