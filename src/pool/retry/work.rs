//! [`Work`]: what the pool does, maybe more than once. [`DatabaseFailure`]: the errors that it understands.

use diesel::result::Error as DieselError;

use crate::pool::error::PoolError;

/// An async closure whose future is named, so that it can be required to be `Send`: `AsyncFn` alone cannot say so yet.
///
/// Implemented for every async closure that only borrows its captures; [`Retry`](crate::Retry) shows how closures are
/// written.
pub trait Work<A, R>: AsyncFn(A) -> R + Fn(A) -> <Self as Work<A, R>>::Future {
    /// The future that the closure returns.
    type Future: Future<Output = R>;
}

impl<F, A, R, Fut> Work<A, R> for F
where
    F: AsyncFn(A) -> R + Fn(A) -> Fut,
    Fut: Future<Output = R>,
{
    type Future = Fut;
}

/// An error in which a [`Retry`](crate::Retry) finds the database's.
pub trait DatabaseFailure {
    /// Returns the database's error, if `self` is one.
    fn database_error(&self) -> Option<&DieselError>;
}

impl DatabaseFailure for DieselError {
    fn database_error(&self) -> Option<&DieselError> {
        Some(self)
    }
}

impl DatabaseFailure for RetryError {
    fn database_error(&self) -> Option<&DieselError> {
        match self {
            Self::Pool(_) => None,
            Self::Query(error) => Some(error),
        }
    }
}

/// An error for a [`Retry`](crate::Retry) and for [`Pool::transaction`](crate::Pool::transaction), if you have no type of
/// your own.
///
/// Your own implements `From<PoolError>`, for transactions also `From<diesel::result::Error>`, and for a `Retry`
/// [`DatabaseFailure`].
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum RetryError {
    /// There is no connection.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// A statement failed.
    #[error(transparent)]
    Query(#[from] DieselError),
}

crate::util::debug_is_chain!(RetryError);
