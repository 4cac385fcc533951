//! Transactions: BEGIN and SAVEPOINT ride in front of the first statement behind them.

use std::future::Future;
use std::num::NonZeroU32;

use diesel::connection::{
    InstrumentationEvent, TransactionDepthChange, TransactionManagerStatus,
    ValidTransactionManagerStatus,
};
use diesel::result::{Error, QueryResult};
use diesel_async::AsyncConnection as _;

use super::Connection;
use super::report::Report;
use crate::protocol::ServerError;
use crate::query::DatabaseErrorExt;
#[cfg(feature = "blocking")]
use crate::session::TransactionMonitor;
use crate::session::{Command, Failure};

mod builder;
mod scope;
mod state;

pub use self::builder::TransactionBuilder;
#[cfg(feature = "blocking")]
pub(crate) use self::scope::end;
pub(crate) use self::scope::{Callback, scoped};
pub use self::state::TransactionState;

/// Begins, commits and rolls back. BEGIN and SAVEPOINT wait for the first statement behind them and are sent in one group
/// with it, so that the statement cannot run if they fail.
#[derive(Debug)]
pub struct TransactionManager(());

impl TransactionManager {
    fn depth(connection: &mut Connection) -> QueryResult<Option<NonZeroU32>> {
        connection.transactions.status.transaction_depth()
    }

    /// Returns the depth of the transaction that is to end.
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

    /// Has a BEGIN or a SAVEPOINT ride in front of the next statement.
    fn enter(
        connection: &mut Connection,
        depth: Option<NonZeroU32>,
        command: Command,
    ) -> QueryResult<()> {
        let depth = depth.map_or(NonZeroU32::MIN, |depth| depth.saturating_add(1));
        let event = InstrumentationEvent::begin_transaction(depth);
        connection.instrumentation().on_connection_event(event);
        connection.record_command(&command, None);
        connection.session.push_preamble(command);
        Self::change(connection, TransactionDepthChange::IncreaseDepth)
    }

    /// Begins a transaction with a BEGIN of the caller.
    pub(crate) fn begin_with(connection: &mut Connection, begin: String) -> QueryResult<()> {
        refuse_abandoned(connection)?;
        if Self::depth(connection)?.is_some() {
            return Err(Error::AlreadyInTransaction);
        }
        Self::enter(connection, None, begin.into())
    }

    /// Ends a transaction or a savepoint, and returns the tag of the last command.
    async fn run(connection: &mut Connection, end: &End) -> QueryResult<String> {
        let guard = connection.session.monitor().begin();
        let done = connection.run_end(end).await;
        guard.end();
        if let Err(error) = &done {
            if error.is_connection_lost() {
                connection.transactions.status.set_in_error();
            }
        }
        done
    }

    /// Rolls the whole transaction back. Nobody need be told if the future is dropped: the transaction then ends in front
    /// of the next statement.
    async fn roll_back(connection: &mut Connection) -> QueryResult<()> {
        Self::leave(connection)?;
        let guard = connection.session.monitor().begin_rollback();
        let done = connection.run_end(&End::rollback(NonZeroU32::MIN)).await;
        guard.end();
        if done.is_err() {
            connection.transactions.status.set_in_error();
        }
        done.map(drop)
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
        if connection.session.status().in_failed_transaction()
            || connection.session.has_failed_begin()
        {
            let event = InstrumentationEvent::begin_transaction(outer.saturating_add(1));
            connection.instrumentation().on_connection_event(event);
            let error = aborted();
            connection.record_command(&savepoint, Some(&error));
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
            connection.record_command(&rollback.sql, None);
            return Self::leave(connection);
        }
        if connection.session.has_failed_begin() {
            connection.record_command(&rollback.sql, None);
            if depth == NonZeroU32::MIN {
                connection.session.clear_failed_begin();
            }
            return Self::leave(connection);
        }
        let rolled_back = match depth {
            NonZeroU32::MIN => Self::roll_back(connection).await.map(|()| String::new()),
            _ => Self::run(connection, &rollback).await,
        };
        match rolled_back {
            // The transaction has ended with the session; the caller's own error matters more.
            Err(error) if error.is_connection_lost() => Err(Error::BrokenTransactionManager),
            outermost if depth == NonZeroU32::MIN => outermost.map(drop),
            Ok(_) => Self::leave(connection),
            // The savepoint was never set: no statement ran behind it.
            Err(error) if error.sqlstate() == Some("3B001") => Self::leave(connection),
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
        // If the session has ended, its statements were not sent either.
        let has_ended = connection.session.status().has_ended();
        if !has_ended && connection.session.pop_preamble() {
            connection.record_command(&commit.sql, None);
            return Self::leave(connection);
        }
        let is_outermost = depth == NonZeroU32::MIN;
        if connection.session.has_failed_begin() {
            let error = rolled_back("it could not begin");
            connection.record_command(&commit.sql, Some(&error));
            if is_outermost {
                connection.session.clear_failed_begin();
            }
            Self::leave(connection)?;
            return Err(error);
        }
        match Self::run(connection, &commit).await {
            // The server answers a COMMIT so if a statement of the transaction has failed.
            Ok(tag) if is_outermost && tag == "ROLLBACK" => {
                Self::leave(connection)?;
                Err(rolled_back("a statement in it had failed"))
            }
            Ok(_) => Self::leave(connection),
            Err(error) if error.is_connection_lost() => Err(error),
            // The server has rolled the transaction back by itself.
            Err(error) if is_outermost && !connection.session.status().in_transaction() => {
                Self::leave(connection)?;
                Err(error)
            }
            Err(error) => {
                let event = InstrumentationEvent::rollback_transaction(depth);
                connection.instrumentation().on_connection_event(event);
                let rolled_back = match is_outermost {
                    true => Self::roll_back(connection).await,
                    false => match Self::run(connection, &End::rollback(depth)).await {
                        Ok(_) => Self::leave(connection),
                        Err(error) => Err(error),
                    },
                };
                match rolled_back {
                    Ok(()) => Err(error),
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
        let is_abandoned = connection.session.status().has_abandoned_transaction();
        let Ok(ValidTransactionManagerStatus { in_transaction, .. }) =
            connection.transactions.status.transaction_state()
        else {
            return true;
        };
        match in_transaction {
            None => is_abandoned,
            Some(open) if open.test_transaction => is_abandoned,
            // Nothing of the transaction was sent.
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
    /// Rolls back an [abandoned transaction](crate::AbandonedTransaction), so that the connection can be used again. Does
    /// nothing if there is none. If the future is dropped, the next statement rolls back first.
    ///
    /// This is for connections outside a pool: a [`Pool`](crate::Pool) replaces the connection.
    ///
    /// # Errors
    ///
    /// If the connection is lost: it is closed if a statement was dropped with the transaction and its response has not
    /// arrived within 100 ms.
    pub async fn roll_back_abandoned(&mut self) -> QueryResult<()> {
        let status = self.session.status();
        // Only the response of a dropped statement tells whether it ran in a transaction.
        let is_known = !self.session.is_abandoned();
        if is_known && !status.has_abandoned_transaction() && !status.owes_rollback() {
            return Ok(self.session.check_open()?);
        }
        let guard = self.session.monitor().begin_rollback();
        self.session.forget_transaction();
        self.transactions = TransactionState::default();
        let rolled_back = self.run_end(&End::rollback(NonZeroU32::MIN)).await;
        match &rolled_back {
            Err(error) if !error.is_connection_lost() => guard.abandon(),
            _ => guard.end(),
        }
        rolled_back.map(drop)
    }

    /// Returns what guards the transactions of the connection.
    #[cfg(feature = "blocking")]
    pub(crate) fn monitor(&self) -> TransactionMonitor {
        self.session.monitor()
    }

    /// Sends the end of a transaction or a savepoint.
    async fn run_end(&mut self, end: &End) -> QueryResult<String> {
        let this = &*self;
        this.record_start(&end.sql);
        let report = Report::of_started(this, &end.sql);
        let done = this
            .simple(format!("{}{}", end.sql, end.release), false)
            .await;
        report.finish(done.as_ref().err());
        done
    }

    /// Tells instrumentation of a command that has no flight of its own.
    fn record_command(&self, sql: &str, error: Option<&Error>) {
        self.record_start(sql);
        self.record_finish(sql, error);
    }
}

/// The end of a transaction or a savepoint.
struct End {
    /// The SQL of Diesel's own connections, of which instrumentation is told.
    sql: String,
    /// Releases the savepoint behind a rollback to it: else the savepoints of a loop would add up.
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

/// Returns the depth outside `depth`.
fn outer(depth: NonZeroU32) -> NonZeroU32 {
    NonZeroU32::new(depth.get() - 1).unwrap_or(NonZeroU32::MIN)
}

/// Returns the name that Diesel gives to a savepoint inside `depth`.
fn savepoint(depth: NonZeroU32) -> String {
    format!("diesel_savepoint_{depth}")
}

fn rolled_back(why: &str) -> Error {
    local(&format!("the transaction is rolled back: {why}"))
}

/// Returns the server's error for a statement in a transaction that has failed.
fn aborted() -> Error {
    local("current transaction is aborted, commands ignored until end of transaction block")
}

fn local(message: &str) -> Error {
    Failure::Server(Box::new(ServerError::local("25P02", message))).into()
}
