//! [`Db`]: a connection for one request.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use axum::extract::{FromRef, FromRequestParts};
use axum::http::request::Parts;
use axum::response::IntoResponse;
use diesel::result::Error;

use super::unavailable::Unavailable;
use crate::connection::transaction::Callback;
use crate::pool::{Pool, PoolError, PooledConnection};

/// Extracts a connection of the [`Pool`] in the state, and gives it back when it is dropped.
///
/// Where there is none, the request is answered with `R`, which is made of the [`PoolError`]: by default [`Unavailable`], a
/// problem document. For answers of your own, name your error type:
///
/// ```no_run
/// use axum::http::StatusCode;
/// use axum::response::{IntoResponse, Response};
/// use diesel_neon::PoolError;
///
/// struct AppError(StatusCode);
///
/// impl From<PoolError> for AppError {
///     fn from(error: PoolError) -> Self {
///         match error.is_transient() {
///             true => Self(StatusCode::SERVICE_UNAVAILABLE),
///             false => Self(StatusCode::INTERNAL_SERVER_ERROR),
///         }
///     }
/// }
///
/// impl IntoResponse for AppError {
///     fn into_response(self) -> Response {
///         self.0.into_response()
///     }
/// }
///
/// type Db = diesel_neon::axum::Db<AppError>;
///
/// async fn list(mut db: Db) -> Result<String, AppError> {
///     # let _ = &mut db;
///     Ok("…".to_owned())
/// }
/// ```
///
/// The connection is checked out before a body is read. A handler that reads one extracts `State<Pool>` instead, and calls
/// [`Pool::get`] once the request is whole and valid: a client that sends slowly then holds no connection.
///
/// A request that is dropped takes its statement with it; see [`Pool`].
pub struct Db<R = Unavailable> {
    connection: PooledConnection<'static>,
    rejection: PhantomData<fn() -> R>,
}

impl<R> Db<R> {
    /// Returns the connection, which may outlive the request.
    pub fn into_inner(self) -> PooledConnection<'static> {
        self.connection
    }

    /// Runs `callback` in a transaction; see [`PooledConnection::transaction`].
    ///
    /// # Errors
    ///
    /// The error of `callback`, or the reason why the transaction could not begin, commit or roll back.
    pub fn transaction<T, E, F>(&mut self, callback: F) -> impl Future<Output = Result<T, E>> + Send
    where
        for<'r> F: Callback<&'r mut PooledConnection<'static>, Result<T, E>, Future: Send> + Send,
        E: From<Error> + Send,
        T: Send,
    {
        self.connection.transaction(callback)
    }
}

impl<S, R> FromRequestParts<S> for Db<R>
where
    S: Send + Sync,
    Pool: FromRef<S>,
    R: From<PoolError> + IntoResponse,
{
    type Rejection = R;

    async fn from_request_parts(_: &mut Parts, state: &S) -> Result<Self, R> {
        let connection = Pool::from_ref(state).get_owned().await?;
        Ok(Self {
            connection,
            rejection: PhantomData,
        })
    }
}

impl<R> Deref for Db<R> {
    type Target = PooledConnection<'static>;

    fn deref(&self) -> &Self::Target {
        &self.connection
    }
}

impl<R> DerefMut for Db<R> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.connection
    }
}

impl<R> fmt::Debug for Db<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Db").field(&self.connection).finish()
    }
}
