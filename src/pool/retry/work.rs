//! [`Work`]: what the pool does, maybe more than once. [`DatabaseFailure`]: the errors that it understands.

use diesel::result::Error as DieselError;

use crate::pool::error::PoolError;

/// An async closure whose future is named, so that it can be required to be `Send`: `AsyncFn` alone cannot say so yet.
///
/// Implemented for every async closure that only borrows its captures. If the compiler says that a closure does not
/// implement `Fn`, clone inside of it what was moved into it. diesel-async does the same for its transactions.
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

/// An error in which [`Pool::run`](crate::Pool::run) and [`Pool::transaction`](crate::Pool::transaction) find the
/// database's.
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

/// An error for [`Pool::run`](crate::Pool::run) and [`Pool::transaction`](crate::Pool::transaction), if you have no type of
/// your own.
///
/// Your own implements [`DatabaseFailure`] and `From<PoolError>`, for transactions also `From<diesel::result::Error>`.
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

crate::util::debug_is_display!(RetryError);
