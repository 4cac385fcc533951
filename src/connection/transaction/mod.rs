//! Transactions whose BEGIN costs no flight of its own.

use std::future::Future;
use std::num::NonZeroU32;

use diesel::connection::{
    InstrumentationEvent, TransactionDepthChange, TransactionManagerStatus,
    ValidTransactionManagerStatus,
};
use diesel::result::{Error, QueryResult};
use diesel_async::AsyncConnection as _;

use super::Connection;
use super::error::{is_connection_lost, sqlstate};
use crate::protocol::ServerError;
use crate::session::{Command, Failure};

mod builder;
mod scope;
mod state;

pub use self::builder::TransactionBuilder;
pub(crate) use self::scope::{Callback, scoped};
pub use self::state::TransactionState;

/// Begins, commits and rolls back: BEGIN and SAVEPOINT wait for the first statement behind them and
/// leave in one group with it, so that it cannot run if they fail.
#[derive(Debug)]
pub struct TransactionManager(());

impl TransactionManager {
    fn depth(connection: &mut Connection) -> QueryResult<Option<NonZeroU32>> {
        connection.transactions.status.transaction_depth()
    }

    /// The depth of a transaction that is to end.
    fn open_depth(connection: &mut Connection) -> QueryResult<NonZeroU32> {
        Self::depth(connection)?.ok_or(Error::NotInTransaction)
    }

    fn change(connection: &mut Connection, change: TransactionDepthChange) -> QueryResult<()> {
        let state = connection.transactions.status.transaction_state()?;
        state.change_transaction_depth(change)
    }

    fn leave(connection: &mut Connection) -> QueryResult<()> {
        Self::change(connection, TransactionDepthChange::DecreaseDepth)
    }

    fn enter(
        connection: &mut Connection,
        depth: Option<NonZeroU32>,
        command: Command,
    ) -> QueryResult<()> {
        let depth = depth.map_or(NonZeroU32::MIN, |depth| depth.saturating_add(1));
        let event = InstrumentationEvent::begin_transaction(depth);
        connection.instrumentation().on_connection_event(event);
        connection.tell(&command, None);
        connection.session.open(command);
        Self::change(connection, TransactionDepthChange::IncreaseDepth)
    }

    pub(super) fn begin_with(connection: &mut Connection, begin: String) -> QueryResult<()> {
        refuse_abandoned(connection)?;
        if Self::depth(connection)?.is_some() {
            return Err(Error::AlreadyInTransaction);
        }
        Self::enter(connection, None, begin.into())
    }

    /// Runs what ends a transaction or a savepoint and returns the last command's tag.
    async fn run(connection: &mut Connection, end: &End) -> QueryResult<String> {
        let unfinished = connection.session.monitor().begin();
        let done = connection.run_end(end).await;
        unfinished.end();
        if let Err(error) = &done {
            if is_connection_lost(error) {
                connection.transactions.status.set_in_error();
            }
        }
        done
    }
}

impl diesel_async::TransactionManager<Connection> for TransactionManager {
    type TransactionStateData = TransactionState;

    #[expect(
        clippy::manual_async_fn,
        reason = "it promises to be Send, whatever the callback"
    )]
    fn transaction<'a, 'conn, F, R, E>(
        connection: &'conn mut Connection,
        callback: F,
    ) -> impl Future<Output = Result<R, E>> + Send + 'conn
    where
        for<'r> F: AsyncFnOnce(&'r mut Connection) -> Result<R, E>
            + Callback<&'r mut Connection, Result<R, E>, Future: Send>
            + Send
            + 'a,
        E: From<Error> + Send,
        R: Send,
        'a: 'conn,
    {
        async move {
            let monitor = connection.session.monitor();
            scoped(connection, monitor, callback).await
        }
    }

    async fn begin_transaction(connection: &mut Connection) -> QueryResult<()> {
        refuse_abandoned(connection)?;
        let depth = Self::depth(connection)?;
        let Some(outer) = depth else {
            return Self::enter(connection, None, "BEGIN".into());
        };
        let savepoint = format!("SAVEPOINT {}", savepoint(outer));
        if connection.session.status().in_failed_transaction() || connection.session.is_refused() {
            let event = InstrumentationEvent::begin_transaction(outer.saturating_add(1));
            connection.instrumentation().on_connection_event(event);
            let error = failed();
            connection.tell(&savepoint, Some(&error));
            return Err(error);
        }
        Self::enter(connection, depth, savepoint.into())
    }

    async fn rollback_transaction(connection: &mut Connection) -> QueryResult<()> {
        if connection.session.status().has_abandoned_transaction() {
            return Err(Error::BrokenTransactionManager);
        }
        let depth = Self::open_depth(connection)?;
        let event = InstrumentationEvent::rollback_transaction(depth);
        connection.instrumentation().on_connection_event(event);

        let rollback = End::rollback(depth);
        if connection.session.pop_preamble() {
            connection.tell(&rollback.sql, None);
            return Self::leave(connection);
        }
        if connection.session.is_refused() {
            connection.tell(&rollback.sql, None);
            if depth == NonZeroU32::MIN {
                connection.session.clear_failed_begin();
            }
            return Self::leave(connection);
        }
        match Self::run(connection, &rollback).await {
            Ok(_) => Self::leave(connection),
            // It is gone with the session; what the caller has to say matters more.
            Err(error) if is_connection_lost(&error) => Err(Error::BrokenTransactionManager),
            // The savepoint was never there: nothing ran behind it.
            Err(error) if sqlstate(&error) == Some("3B001") => Self::leave(connection),
            Err(error) if depth == NonZeroU32::MIN => {
                connection.transactions.status.set_in_error();
                Err(error)
            }
            Err(error) => {
                Self::leave(connection)?;
                Err(error)
            }
        }
    }

    async fn commit_transaction(connection: &mut Connection) -> QueryResult<()> {
        refuse_abandoned(connection)?;
        let depth = Self::open_depth(connection)?;
        let event = InstrumentationEvent::commit_transaction(depth);
        connection.instrumentation().on_connection_event(event);

        let commit = End::commit(depth);
        if connection.session.pop_preamble() {
            connection.tell(&commit.sql, None);
            return Self::leave(connection);
        }
        let top = depth == NonZeroU32::MIN;
        if connection.session.is_refused() {
            let error = rolled_back("it could not begin");
            connection.tell(&commit.sql, Some(&error));
            if top {
                connection.session.clear_failed_begin();
            }
            Self::leave(connection)?;
            return Err(error);
        }
        match Self::run(connection, &commit).await {
            // That is how the server answers a COMMIT where a statement has failed.
            Ok(tag) if top && tag == "ROLLBACK" => {
                Self::leave(connection)?;
                Err(rolled_back("a statement in it had failed"))
            }
            Ok(_) => Self::leave(connection),
            Err(error) if is_connection_lost(&error) => Err(error),
            // The server has rolled it back by itself.
            Err(error) if top && !connection.session.status().in_transaction() => {
                Self::leave(connection)?;
                Err(error)
            }
            Err(error) => {
                let event = InstrumentationEvent::rollback_transaction(depth);
                connection.instrumentation().on_connection_event(event);
                match Self::run(connection, &End::rollback(depth)).await {
                    Ok(_) => {
                        Self::leave(connection)?;
                        Err(error)
                    }
                    Err(rollback_error) => {
                        connection.transactions.status.set_in_error();
                        Err(Error::RollbackErrorOnCommit {
                            rollback_error: Box::new(rollback_error),
                            commit_error: Box::new(error),
                        })
                    }
                }
            }
        }
    }

    fn transaction_manager_status_mut(
        connection: &mut Connection,
    ) -> &mut TransactionManagerStatus {
        &mut connection.transactions.status
    }

    fn is_broken_transaction_manager(connection: &mut Connection) -> bool {
        let abandoned = connection.session.status().has_abandoned_transaction();
        let Ok(ValidTransactionManagerStatus { in_transaction, .. }) =
            connection.transactions.status.transaction_state()
        else {
            return true;
        };
        match in_transaction {
            None => abandoned,
            Some(open) if open.test_transaction => abandoned,
            // The server has not heard of it.
            Some(open)
                if connection.session.preamble_len() == open.transaction_depth.get() as usize =>
            {
                *in_transaction = None;
                connection.session.forget_transaction();
                false
            }
            Some(_) => true,
        }
    }
}

fn refuse_abandoned(connection: &Connection) -> QueryResult<()> {
    match connection.session.status().has_abandoned_transaction() {
        true => Err(Failure::Abandoned.into()),
        false => Ok(()),
    }
}

impl Connection {
    /// Rolls back what a transaction has left behind whose future was dropped, so that the connection can be
    /// used again. Does nothing where there is no such transaction.
    ///
    /// For connections outside of a pool: a [`Pool`](crate::Pool) replaces them.
    ///
    /// # Errors
    ///
    /// If the connection is lost, as it is where a statement was dropped with the transaction that did not
    /// come to its end at once.
    pub async fn roll_back_abandoned(&mut self) -> QueryResult<()> {
        if !self.session.status().has_abandoned_transaction() {
            return Ok(());
        }
        let unfinished = self.session.monitor().begin();
        self.session.forget_transaction();
        let rolled_back = self.run_end(&End::rollback(NonZeroU32::MIN)).await;
        match &rolled_back {
            // Dropped, it abandons the transaction again.
            Err(error) if !is_connection_lost(error) => drop(unfinished),
            _ => unfinished.end(),
        }
        rolled_back?;
        self.transactions = TransactionState::default();
        Ok(())
    }

    async fn run_end(&mut self, end: &End) -> QueryResult<String> {
        self.record_start(&end.sql);
        let done = self
            .simple(format!("{}{}", end.sql, end.release), false)
            .await;
        self.record_finish(&end.sql, done.as_ref().err());
        done
    }

    /// Tells instrumentation of a command that takes no flight of its own.
    fn tell(&self, sql: &str, error: Option<&Error>) {
        self.record_start(sql);
        self.record_finish(sql, error);
    }
}

/// What ends a transaction or a savepoint.
struct End {
    /// As Diesel's own connections have it, and tell instrumentation.
    sql: String,
    /// Behind a rollback to a savepoint: it would still be there, and they would add up.
    release: String,
}

impl End {
    fn commit(depth: NonZeroU32) -> Self {
        let sql = match depth {
            NonZeroU32::MIN => "COMMIT".to_owned(),
            _ => format!("RELEASE SAVEPOINT {}", savepoint(outer(depth))),
        };
        Self {
            sql,
            release: String::new(),
        }
    }

    fn rollback(depth: NonZeroU32) -> Self {
        if depth == NonZeroU32::MIN {
            return Self {
                sql: "ROLLBACK".to_owned(),
                release: String::new(),
            };
        }
        let savepoint = savepoint(outer(depth));
        Self {
            sql: format!("ROLLBACK TO SAVEPOINT {savepoint}"),
            release: format!("; RELEASE SAVEPOINT {savepoint}"),
        }
    }
}

fn outer(depth: NonZeroU32) -> NonZeroU32 {
    NonZeroU32::new(depth.get() - 1).unwrap_or(NonZeroU32::MIN)
}

/// The savepoint inside of `depth`, as Diesel names them.
fn savepoint(depth: NonZeroU32) -> String {
    format!("diesel_savepoint_{depth}")
}

fn rolled_back(why: &str) -> Error {
    local(&format!("the transaction is rolled back: {why}"))
}

/// What the server says to a statement in a transaction that has failed.
fn failed() -> Error {
    local("current transaction is aborted, commands ignored until end of transaction block")
}

fn local(message: &str) -> Error {
    Failure::Server(Box::new(ServerError::local("25P02", message))).into()
}
