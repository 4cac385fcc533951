//! [`Retry`]: work that is done again if that is safe.

use std::sync::Arc;

use diesel::connection::TransactionManager as _;
use diesel::result::Error;

use super::connection::Connection;
use super::pool::Pool;
use super::transaction::TransactionManager;
use crate::pool::{Attempt, DatabaseFailure, Failed, Pauses, PoolError};
use crate::session::{SessionStatus, TransactionMonitor};

impl Pool {
    /// Returns a [`Retry`], whose methods do work again after a failure if that is safe.
    ///
    /// [`transaction`](Self::transaction) and connections of [`get`](Self::get) do everything once.
    pub fn retry(&self) -> Retry<'_> {
        Retry {
            pool: self,
            idempotent: false,
        }
    }
}

/// Does work on a [`Pool`]'s connections, and again if that is safe, by the rules of
/// [`diesel_neon::Retry`](crate::Retry). The policy's `retry_attempts` and `retry_budget` bound the attempts.
///
/// ```no_run
/// # use diesel::prelude::*;
/// # use diesel_neon::{RetryError, blocking};
/// # diesel::table! { accounts { id -> Integer, balance -> Integer } }
/// # fn transfer(pool: &blocking::Pool) -> Result<(), RetryError> {
/// pool.retry().transaction(|connection| {
///     for (account, amount) in [(1, -10), (2, 10)] {
///         diesel::update(accounts::table.find(account))
///             .set(accounts::balance.eq(accounts::balance + amount))
///             .execute(connection)?;
///     }
///     Ok::<_, RetryError>(())
/// })
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use = "nothing is done before run() or transaction() is called"]
pub struct Retry<'a> {
    pool: &'a Pool,
    idempotent: bool,
}

impl Retry<'_> {
    /// Declares that work may be done twice without harm, so that it is also done again if nobody knows whether the
    /// first time counted.
    pub fn idempotent(mut self) -> Self {
        self.idempotent = true;
        self
    }

    /// Gets a connection and does `work` with it; again on another connection if the first one turns out dead before
    /// anything was sent on it. See [`diesel_neon::Retry::run`](crate::Retry::run).
    ///
    /// # Errors
    ///
    /// The error of the last attempt.
    #[track_caller]
    pub fn run<T, E, F>(self, mut work: F) -> Result<T, E>
    where
        F: FnMut(&mut Connection) -> Result<T, E>,
        E: From<PoolError> + DatabaseFailure,
    {
        self.repeat(|connection, status| {
            let attempt = Attempt::begin(status, self.idempotent);
            work(connection).map_err(|error| attempt.failed(error))
        })
    }

    /// Does `work` in a transaction; all of it again, on another connection, after a failure that left nothing behind: a
    /// serialization failure, a deadlock, a connection that was lost before COMMIT was sent. See
    /// [`diesel_neon::Retry::transaction`](crate::Retry::transaction).
    ///
    /// # Errors
    ///
    /// The error of the last attempt.
    #[track_caller]
    pub fn transaction<T, E, F>(self, mut work: F) -> Result<T, E>
    where
        F: FnMut(&mut Connection) -> Result<T, E>,
        E: From<PoolError> + From<Error> + DatabaseFailure,
    {
        self.repeat(|connection, status| {
            // Guarded, so that the work may abandon a statement and go on.
            let guard = TransactionMonitor::new(&status).begin();
            let attempted = self.transact_once(connection, status, &mut work);
            guard.end();
            attempted
        })
    }

    fn transact_once<T, E>(
        self,
        connection: &mut Connection,
        status: Arc<SessionStatus>,
        work: impl FnOnce(&mut Connection) -> Result<T, E>,
    ) -> Result<T, Failed<E>>
    where
        E: From<Error> + DatabaseFailure,
    {
        TransactionManager::begin_transaction(connection)
            .map_err(|error| Failed::to_begin(error, self.idempotent))?;
        let attempt = Attempt::begin(status, self.idempotent);
        let worked = work(connection);
        let transaction = attempt.worked_in_transaction();
        match worked {
            Ok(done) => TransactionManager::commit_transaction(connection)
                .map(|()| done)
                .map_err(|error| transaction.failed_to_commit(error)),
            Err(error) => {
                // If this fails, the pool closes the connection, and the server rolls back.
                let _ = TransactionManager::rollback_transaction(connection);
                Err(transaction.failed(error))
            }
        }
    }

    #[track_caller]
    fn repeat<T, E>(
        self,
        mut work: impl FnMut(&mut Connection, Arc<SessionStatus>) -> Result<T, Failed<E>>,
    ) -> Result<T, E>
    where
        E: From<PoolError>,
    {
        let Pool { inner, runtime } = self.pool;
        let mut pauses = Pauses::new(inner.policy());
        loop {
            let checkout = inner.get_owned();
            let connection = runtime.block_on(checkout)?;
            let status = Arc::clone(&connection.entry().session().status);
            let mut connection = self.pool.wrap(connection);
            let Failed { error, may_repeat } = match work(&mut connection, status) {
                Ok(done) => return Ok(done),
                Err(failed) => failed,
            };
            drop(connection);
            if !may_repeat || !runtime.block_on(pauses.pause()) {
                return Err(error);
            }
        }
    }
}
