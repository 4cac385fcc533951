//! The loops that do work until it succeeds, or must not be done again.

use std::sync::Arc;

use diesel::result::Error as DieselError;
use diesel_async::TransactionManager;

use super::outcome::{Attempt, Failed, Pauses};
use super::work::{DatabaseFailure, Work};
use crate::connect::Establish;
use crate::pool::Pool;
use crate::pool::checkout::PooledConnection;
use crate::pool::error::PoolError;
use crate::session::TransactionMonitor;

pub(super) async fn run<C, T, E, F>(pool: &Pool<C>, idempotent: bool, work: F) -> Result<T, E>
where
    C: Establish,
    for<'c> F: Work<&'c mut C, Result<T, E>, Future: Send> + Send + Sync,
    T: Send,
    E: From<PoolError> + DatabaseFailure + Send,
{
    let mut pauses = Pauses::new(pool.policy());
    loop {
        let mut connection = pool.get().await?;
        let Failed { error, may_repeat } = match run_once(&mut connection, idempotent, &work).await
        {
            Ok(done) => return Ok(done),
            Err(failed) => failed,
        };
        drop(connection);
        if !may_repeat || !pauses.pause().await {
            return Err(error);
        }
    }
}

pub(super) async fn transaction<C, T, E, F>(
    pool: &Pool<C>,
    idempotent: bool,
    work: F,
) -> Result<T, E>
where
    C: Establish,
    for<'c> F: Work<&'c mut C, Result<T, E>, Future: Send> + Send + Sync,
    T: Send,
    E: From<PoolError> + From<DieselError> + DatabaseFailure + Send,
{
    let mut pauses = Pauses::new(pool.policy());
    loop {
        let mut connection = pool.get().await?;
        // Guarded, so that the work may abandon a statement and go on.
        let guard = TransactionMonitor::new(&connection.entry().session().status).begin();
        let attempted = transact_once(&mut connection, idempotent, &work).await;
        guard.end();
        let Failed { error, may_repeat } = match attempted {
            Ok(done) => return Ok(done),
            Err(failed) => failed,
        };
        drop(connection);
        if !may_repeat || !pauses.pause().await {
            return Err(error);
        }
    }
}

async fn run_once<C, T, E, F>(
    connection: &mut PooledConnection<'_, C>,
    idempotent: bool,
    work: &F,
) -> Result<T, Failed<E>>
where
    C: Establish,
    for<'c> F: Work<&'c mut C, Result<T, E>, Future: Send> + Send + Sync,
    T: Send,
    E: DatabaseFailure + Send,
{
    let attempt = begin(connection, idempotent);
    let worked = work(&mut **connection).await;
    worked.map_err(|error| attempt.failed(error))
}

async fn transact_once<C, T, E, F>(
    connection: &mut PooledConnection<'_, C>,
    idempotent: bool,
    work: &F,
) -> Result<T, Failed<E>>
where
    C: Establish,
    for<'c> F: Work<&'c mut C, Result<T, E>, Future: Send> + Send + Sync,
    T: Send,
    E: From<DieselError> + DatabaseFailure + Send,
{
    if let Err(error) = C::TransactionManager::begin_transaction(&mut **connection).await {
        return Err(Failed::to_begin(error, idempotent));
    }
    let attempt = begin(connection, idempotent);
    let worked = work(&mut **connection).await;
    let transaction = attempt.worked_in_transaction();
    match worked {
        Ok(done) => match C::TransactionManager::commit_transaction(&mut **connection).await {
            Ok(()) => Ok(done),
            Err(error) => Err(transaction.failed_to_commit(error)),
        },
        Err(error) => {
            // If this fails, the pool closes the connection, and the server rolls back.
            let _ = C::TransactionManager::rollback_transaction(&mut **connection).await;
            Err(transaction.failed(error))
        }
    }
}

fn begin<C: Establish>(connection: &PooledConnection<'_, C>, idempotent: bool) -> Attempt {
    Attempt::begin(Arc::clone(&connection.entry().session().status), idempotent)
}
