//! The pool in a web server of axum 0.8 (feature `axum`): [`Db`] checks a connection out for a handler, [`Unavailable`]
//! answers where there is none, and [`health`] has probes that let the compute sleep.
//!
//! ```no_run
//! use axum::{Json, Router, routing::get};
//! use diesel::prelude::*;
//! use diesel_async::RunQueryDsl;
//! use diesel_neon::Pool;
//! use diesel_neon::axum::{Db, health};
//!
//! diesel::table! { books { id -> Integer, title -> Text } }
//!
//! async fn titles(mut db: Db) -> Result<String, String> {
//!     let titles = books::table.select(books::title).load::<String>(&mut db).await;
//!     titles.map(|titles| titles.join("\n")).map_err(|_| "sorry".to_owned())
//! }
//!
//! # fn example() -> Result<Router, Box<dyn std::error::Error>> {
//! let app = Router::new()
//!     .route("/books", get(titles))
//!     .merge(health())
//!     .with_state(Pool::from_env()?);
//! # Ok(app)
//! # }
//! ```
//!
//! The pool is the state, or a part of it (`axum::extract::FromRef`).

mod db;
mod health;
mod unavailable;

pub use self::db::Db;
pub use self::health::health;
pub use self::unavailable::Unavailable;
