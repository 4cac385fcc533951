//! Drops each operation at each of its awaits, in each situation: nothing is left of it, and the next caller is
//! served.
#![allow(missing_debug_implementations, missing_docs, unreachable_pub)]

mod common;

use std::cell::Cell;
use std::future::Future;
use std::ops::AsyncFn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bb8::ManageConnection;
use common::{HANG, neon_with, pool};
use diesel::prelude::*;
use diesel::result::Error;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Integer};
use diesel_async::TransactionManager as _;
use diesel_async::{AsyncConnection, RunQueryDsl, SimpleAsyncConnection};
use diesel_neon::{
    AbandonedTransaction, Connection, ConnectionManager, DatabaseErrorExt, DatabaseUrl, Pool,
    PooledConnection,
};
use futures_util::future::join;
use futures_util::{TryFutureExt, TryStreamExt};
use neon_sim::{NeonSim, Suspension};
use tokio::sync::{Mutex, Notify};
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};

/// The situation that an operation meets.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Ok,
    Err,
    Slow,
    Never,
}
use Fate::{Err as Fails, Never, Ok as Works, Slow};

const FATES: [Fate; 4] = [Works, Fails, Slow, Never];

/// The end of an operation that is not dropped.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Done,
    Failed,
    /// The operation hangs: nothing wakes it any more.
    Stuck,
}

impl Fate {
    fn end(self) -> End {
        match self {
            Works | Slow => End::Done,
            Fails => End::Failed,
            Never => End::Stuck,
        }
    }
}

/// Polls `run` up to the await of that step and drops it there: on odd steps before anything wakes it, on
/// even ones after something has. Returns `None` if it was dropped before its end.
async fn drop_at(
    step: usize,
    patience: Duration,
    run: impl Future<Output = Result<(), String>>,
) -> Option<(End, String)> {
    let bell = Arc::new(Bell::default());
    let waker = Waker::from(Arc::clone(&bell));
    let mut run = pin!(run);
    for poll in 1..=step.div_ceil(2) {
        match run.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(Ok(())) => return Some((End::Done, String::new())),
            Poll::Ready(Err(error)) => return Some((End::Failed, error)),
            Poll::Pending if 2 * poll > step => return None,
            Poll::Pending => {}
        }
        if timeout(patience, bell.0.notified()).await.is_err() {
            return Some((End::Stuck, String::new()));
        }
    }
    None
}

#[derive(Default)]
struct Bell(Notify);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }
}

/// The endpoint, pool and connection of a test.
struct Stage {
    neon: NeonSim,
    url: String,
    /// A client of the server itself, past the endpoint.
    watcher: Mutex<Connection>,
    /// Whether logins are refused.
    locked_out: Cell<bool>,
    drops: Cell<usize>,
}

const SCHEMA: &str = "CREATE TABLE guarded AS SELECT 0 AS uses; \
     CREATE TABLE marks (note TEXT UNIQUE DEFERRABLE INITIALLY DEFERRED, seconds FLOAT8 NOT NULL CHECK (seconds >= 0)); \
     CREATE FUNCTION take() RETURNS TRIGGER LANGUAGE plpgsql AS \
         'BEGIN PERFORM pg_sleep(NEW.seconds); RETURN NULL; END'; \
     CREATE CONSTRAINT TRIGGER take AFTER INSERT ON marks DEFERRABLE INITIALLY DEFERRED \
         FOR EACH ROW EXECUTE FUNCTION take(); \
     GRANT ALL ON guarded, marks TO PUBLIC";

/// Lists the sessions of clients, their state, and the locks that they hold.
const SEEN: &str = "SELECT count(DISTINCT activity.pid) AS sessions, \
         count(DISTINCT activity.pid) FILTER (WHERE state <> 'idle') AS busy, \
         count(locktype) AS locks \
     FROM pg_stat_activity AS activity LEFT JOIN pg_locks AS locks USING (pid) \
     WHERE usename = 'neondb_owner' AND pid <> pg_backend_pid()";

#[derive(Debug, QueryableByName)]
struct Seen {
    #[diesel(sql_type = BigInt)]
    sessions: i64,
    #[diesel(sql_type = BigInt)]
    busy: i64,
    #[diesel(sql_type = BigInt)]
    locks: i64,
}

/// Longer than a check may take by the policies here, and shorter than a connect.
const QUIET: Duration = Duration::from_millis(400);

/// Far more awaits than any operation here has.
const STEPS: usize = 400;

impl Stage {
    async fn new(url: impl Fn(&NeonSim) -> String) -> Self {
        let neon = neon_with(|neon| {
            neon.cold_start(Duration::from_millis(10))
                .access_control_cache_ttl(Duration::ZERO)
        });
        let neon = neon.await;
        neon.sql(SCHEMA).await.unwrap();
        Self {
            url: url(&neon),
            watcher: Mutex::new(common::connect(&neon.postgres_url()).await),
            neon,
            locked_out: Cell::new(false),
            drops: Cell::new(0),
        }
    }

    /// Bounds the steps of one drop.
    fn pool(&self, cell: &Expected) -> Pool {
        pool(&self.url, |policy| {
            let policy = policy.max_size(1).checkout_timeout(cell.patience);
            let policy = match cell.fate {
                Never => policy
                    .validation_timeout(Duration::from_millis(300))
                    .connect_timeout(Duration::from_millis(600)),
                _ => policy,
            };
            match cell.checks {
                true => policy.validation_bypass(Duration::ZERO),
                // An unfit connection that is handed on fails this.
                false => policy.validation_bypass(Duration::from_secs(100)),
            }
        })
    }

    /// Runs the operation behind `prepare` again and again, each time up to another of its awaits.
    async fn cell(
        &self,
        cell: Expected,
        prepare: impl AsyncFn(&Pool) -> Option<Held>,
        run: impl AsyncFn(&Pool, &mut Option<Held>) -> Result<(), String>,
    ) {
        let patience = match cell.end {
            End::Stuck => QUIET,
            _ => HANG,
        };
        let uses: &[bool] = if cell.goes_on {
            &[false, true]
        } else {
            &[false]
        };
        for goes_on in uses {
            let mut steps = 0..STEPS;
            loop {
                let step = steps.next();
                let step = step.unwrap_or_else(|| panic!("{cell:?} does not end"));
                let what = format!("{cell:?}, step {step}, goes on: {goes_on}, {}", self.url);
                let pool = self.pool(&cell);
                let mut held = prepare(&pool).await;
                let ended = drop_at(step, patience, run(&pool, &mut held)).await;
                self.drops.set(self.drops.get() + 1);
                self.neon.set_latency(Duration::ZERO);
                self.neon.clear_faults();
                if *goes_on {
                    go_on(theirs(&mut held), &what).await;
                }
                drop(held);
                self.aftermath(&pool, &what).await;
                let marks = self.marks().await;
                let Some((end, error)) = ended else {
                    assert!(marks == 0 || marks == cell.marks, "{what}: {marks} rows");
                    continue;
                };
                // On a slow machine a connect may time out before it has been quiet for long enough.
                let end = match end {
                    End::Failed if cell.fate == Never && error.contains("within 600ms") => {
                        End::Stuck
                    }
                    end => end,
                };
                assert_eq!(end, cell.end, "{what}: {error}");
                let committed = end == End::Done;
                assert_eq!(marks, if committed { cell.marks } else { 0 }, "{what}");
                break;
            }
        }
    }

    /// The next caller also waits for an attempt that the pool began while it was locked out.
    async fn let_it_fail(&self, pool: &Pool) {
        let served = async {
            while let Err(error) = pool.get().await {
                assert!(error.to_string().contains("password authentication failed"));
            }
        };
        timeout(HANG, served).await.expect("no hang");
    }

    /// The next caller is served, and nothing is left running.
    async fn aftermath(&self, pool: &Pool, what: &str) {
        if self.locked_out.replace(false) {
            self.change_password(self.neon.password()).await;
            self.let_it_fail(pool).await;
        }
        let mut connection = timeout(HANG, pool.get())
            .await
            .unwrap_or_else(|_| panic!("{what}: nobody is served"))
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        let update = sql_query("UPDATE guarded SET uses = uses + 1");
        let updated = timeout(HANG, update.execute(&mut connection)).await;
        let updated = updated.unwrap_or_else(|_| panic!("{what}: the row is locked"));
        assert_eq!(updated, Ok(1), "{what}");
        let status = pool.status();
        assert_eq!(status.size - status.suspect, 1, "{what}: {status}");
        assert!(status.suspect <= 1, "{what}: {status}");
        drop(connection);
        let calm = async {
            loop {
                let seen: Seen = {
                    let mut watcher = self.watcher.lock().await;
                    sql_query(SEEN).get_result(&mut *watcher).await.unwrap()
                };
                let clients = match self.url.contains("-pooler") {
                    true => self.clients().await,
                    false => seen.sessions,
                };
                if seen.busy == 0 && seen.locks == 0 && clients <= 1 {
                    break;
                }
                sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(HANG, calm)
            .await
            .unwrap_or_else(|_| panic!("{what}: something goes on"));
        let closed = pool.close(HANG).await;
        closed.unwrap_or_else(|error| panic!("{what}: a socket stays open: {error}"));
    }

    /// Returns the number of the pooler's clients.
    async fn clients(&self) -> i64 {
        let clients = self.neon.pgbouncer_command("SHOW CLIENTS").await.unwrap();
        let ours = |row: &&Vec<_>| row.contains(&Some("neondb_owner".to_owned()));
        clients.iter().filter(ours).count() as i64
    }

    /// Returns the rows that were written, and deletes them.
    async fn marks(&self) -> usize {
        let mut watcher = self.watcher.lock().await;
        diesel::delete(marks::table)
            .execute(&mut *watcher)
            .await
            .unwrap()
    }

    /// Adds latency to everything from here on.
    fn slow_down(&self, fate: Fate) {
        if fate == Slow {
            self.neon.set_latency(Duration::from_millis(2));
        }
    }

    async fn change_password(&self, password: &str) {
        let change = format!("ALTER ROLE neondb_owner PASSWORD '{password}'");
        self.neon.sql(&change).await.unwrap();
    }

    /// Sets the situation that connecting meets.
    async fn beset(&self, fate: Fate) {
        self.slow_down(fate);
        match fate {
            Fails => {
                self.locked_out.set(true);
                self.change_password("another").await;
            }
            Never => self.neon.hang_connections(1000),
            Works | Slow => {}
        }
    }
}

/// A cell of the matrix of operations and situations.
#[derive(Clone, Copy)]
struct Expected {
    operation: &'static str,
    fate: Fate,
    end: End,
    /// The number of rows that the operation writes, all or none.
    marks: usize,
    /// Whether connections are checked whenever they are handed out.
    checks: bool,
    /// The pool's `checkout_timeout`.
    patience: Duration,
    /// Whether the connection of the dropped operation can be used further.
    goes_on: bool,
}

impl Expected {
    fn new(operation: &'static str, fate: Fate) -> Self {
        Self {
            operation,
            fate,
            end: fate.end(),
            marks: 0,
            checks: false,
            patience: Duration::from_secs(30),
            goes_on: false,
        }
    }
}

impl std::fmt::Debug for Expected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} x {:?}", self.operation, self.fate)
    }
}

type Held = PooledConnection<'static>;

/// A caller that keeps the connection gets the response of its own statement, or an error that the connection is
/// lost: never the response of the statement before.
async fn go_on(connection: &mut Held, what: &str) {
    let answer = diesel::select(7.into_sql::<Integer>());
    let answer = timeout(HANG, answer.get_result::<i32>(connection)).await;
    match answer.unwrap_or_else(|_| panic!("{what}: no answer")) {
        Ok(n) => assert_eq!(n, 7, "{what}"),
        Err(error) if error.is_connection_lost() => {}
        Err(Error::QueryBuilderError(error)) if error.is::<AbandonedTransaction>() => {}
        // The dropped operation has left its transaction open, and failed.
        Err(error) => assert_eq!(error.sqlstate(), Some("25P02"), "{what}: {error}"),
    }
}

fn text(error: impl ToString) -> String {
    error.to_string()
}

fn theirs(held: &mut Option<Held>) -> &mut Held {
    held.as_mut().expect("a connection")
}

async fn hold(pool: &Pool) -> Held {
    let held = timeout(HANG, pool.get_owned()).await;
    held.expect("no hang").unwrap()
}

/// Waits for a checkout, with the one connection idle or in use.
async fn get(stage: &Stage) {
    for fate in FATES {
        let cell = Expected {
            patience: Duration::from_millis(if fate == Fails { 3_000 } else { 30_000 }),
            ..Expected::new("get", fate)
        };
        let held = async |pool: &Pool| {
            let connection = hold(pool).await;
            match fate {
                Works => None,
                Slow => {
                    tokio::spawn(async move {
                        sleep(Duration::from_millis(10)).await;
                        drop(connection);
                    });
                    None
                }
                Fails | Never => Some(connection),
            }
        };
        let run = async |pool: &Pool, _: &mut _| pool.get().await.map(drop).map_err(text);
        stage.cell(cell, held, run).await;
    }
}

/// Connects through the pool, where bb8 goes on connecting, and without one.
async fn connect(stage: &Stage) {
    for fate in FATES {
        let cell = Expected::new("connect for the pool", fate);
        let run = async |pool: &Pool, _: &mut _| pool.get().await.map(drop).map_err(text);
        let alone = async |_: &Pool| {
            stage.beset(fate).await;
            None
        };
        stage.cell(cell, alone, run).await;

        let cell = Expected::new("connect", fate);
        let run = async |pool: &Pool, _: &mut _| {
            let url = DatabaseUrl::parse(&stage.url).unwrap();
            let manager = ConnectionManager::<Connection>::new(&url, *pool.policy()).unwrap();
            manager.connect().await.map(drop).map_err(text)
        };
        let alone = async |_: &Pool| {
            stage.beset(fate).await;
            None
        };
        stage.cell(cell, alone, run).await;
    }
}

async fn validate(stage: &Stage) {
    for (fate, end) in [
        (Works, End::Done),
        // The connection is replaced.
        (Fails, End::Done),
        (Slow, End::Done),
        (Never, End::Stuck),
    ] {
        let cell = Expected {
            checks: true,
            end,
            ..Expected::new("validate", fate)
        };
        let held = async |pool: &Pool| {
            drop(hold(pool).await);
            stage.slow_down(fate);
            match fate {
                Fails => {
                    // The session ends while the check is under way.
                    stage.neon.set_latency(Duration::from_millis(30));
                    stage.neon.suspend(Suspension::Normal).await;
                    stage.neon.set_latency(Duration::ZERO);
                }
                Never => {
                    stage.neon.suspend(Suspension::Silent).await;
                    stage.neon.hang_connections(1000);
                }
                Works | Slow => {}
            }
            None
        };
        let run = async |pool: &Pool, _: &mut _| pool.get().await.map(drop).map_err(text);
        stage.cell(cell, held, run).await;
    }

    let cell = Expected {
        checks: true,
        end: End::Done,
        ..Expected::new("validate until it is replaced", Never)
    };
    let held = async |pool: &Pool| {
        drop(hold(pool).await);
        stage.neon.suspend(Suspension::Silent).await;
        None
    };
    let run = async |pool: &Pool, _: &mut _| pool.get().await.map(drop).map_err(text);
    stage.cell(cell, held, run).await;
}

diesel::table! {
    marks (note) {
        note -> Text,
        seconds -> Double,
    }
}

/// Writes two rows; their commit takes `seconds`.
async fn mark(connection: &mut Connection, notes: [&str; 2], seconds: f64) -> QueryResult<()> {
    for note in notes {
        diesel::insert_into(marks::table)
            .values((marks::note.eq(note), marks::seconds.eq(seconds)))
            .execute(connection)
            .await?;
    }
    Ok(())
}

/// Runs a statement before it is known whether statements may have names, and once they have them.
async fn statement(stage: &Stage) {
    for (operation, before) in [("statement", 0), ("statement that is known", 3)] {
        for fate in FATES {
            let cell = Expected {
                marks: 1,
                goes_on: true,
                ..Expected::new(operation, fate)
            };
            let write = async |connection: &mut PooledConnection<'_>, note: &str, seconds| {
                diesel::insert_into(marks::table)
                    .values((marks::note.eq(note), marks::seconds.eq(seconds)))
                    .execute(connection)
                    .await
            };
            let held = async |pool: &Pool| {
                let mut connection = hold(pool).await;
                for _ in 0..before {
                    write(&mut connection, "a", 0.0).await.unwrap();
                    stage.marks().await;
                }
                stage.slow_down(fate);
                Some(connection)
            };
            let seconds = match fate {
                Works => 0.0,
                Fails => -1.0,
                Slow => 0.01,
                Never => 1000.0,
            };
            let run = async |_: &Pool, held: &mut Option<Held>| {
                write(theirs(held), "a", seconds)
                    .await
                    .map(drop)
                    .map_err(text)
            };
            stage.cell(cell, held, run).await;
        }
    }
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

async fn row_stream(stage: &Stage) {
    for fate in FATES {
        let held = async |pool: &Pool| {
            let connection = hold(pool).await;
            stage.slow_down(fate);
            Some(connection)
        };
        let late = match fate {
            Works => "n",
            Fails => "n / (5 - n)",
            Slow => "n + length(pg_sleep(0.002)::text)",
            Never => "n + CASE n WHEN 5 THEN length(pg_sleep(1000)::text) ELSE 0 END",
        };
        // Each row is so wide that the server sends it by itself.
        let query = format!(
            "SELECT {late} AS n, repeat('x', 9000) AS filling FROM generate_series(1::bigint, 8) AS n"
        );
        let run = async |_: &Pool, held: &mut Option<Held>| {
            let connection = theirs(held);
            let rows = sql_query(&query).load_stream::<Number>(connection).await;
            let mut rows = pin!(rows.map_err(text)?);
            let mut read = 0;
            while let Some(row) = rows.try_next().await.map_err(text)? {
                read += 1;
                assert!(fate == Fails || row.n == read);
                yield_now().await;
            }
            assert_eq!(read, 8);
            Ok(())
        };
        let cell = Expected {
            goes_on: true,
            ..Expected::new("row stream", fate)
        };
        stage.cell(cell, held, run).await;
    }
}

type Transactions = <Connection as AsyncConnection>::TransactionManager;

/// Begins a transaction: BEGIN rides in front of the first statement.
async fn begin(stage: &Stage) {
    for fate in FATES {
        let held = async |pool: &Pool| {
            let mut connection = hold(pool).await;
            match fate {
                // BEGIN is refused in a transaction that has failed already.
                Fails => {
                    let failed = connection.batch_execute("BEGIN; SELECT 1 / 0").await;
                    failed.unwrap_err();
                }
                Never => stage.neon.suspend(Suspension::Silent).await,
                Works | Slow => stage.slow_down(fate),
            }
            Some(connection)
        };
        let run = async |_: &Pool, held: &mut Option<Held>| {
            let connection = &mut **theirs(held);
            Transactions::begin_transaction(connection)
                .await
                .map_err(text)?;
            mark(connection, ["a", "b"], 0.0).await.map_err(text)
        };
        let cell = Expected {
            // If the BEGIN was dropped before it was sent, the connection has sent nothing.
            checks: fate == Never,
            goes_on: fate != Never,
            ..Expected::new("BEGIN", fate)
        };
        stage.cell(cell, held, run).await;
    }
}

/// Commits two rows, all or none.
async fn commit(stage: &Stage) {
    for fate in FATES {
        let cell = Expected {
            marks: 2,
            goes_on: true,
            ..Expected::new("COMMIT", fate)
        };
        let held = async |pool: &Pool| {
            let mut connection = hold(pool).await;
            Transactions::begin_transaction(&mut connection)
                .await
                .unwrap();
            let (notes, seconds) = match fate {
                Works => (["a", "b"], 0.0),
                // The constraint is deferred, so that COMMIT fails.
                Fails => (["a", "a"], 0.0),
                Slow => (["a", "b"], 0.005),
                Never => (["a", "b"], 1000.0),
            };
            mark(&mut connection, notes, seconds).await.unwrap();
            stage.slow_down(fate);
            Some(connection)
        };
        let run = async |_: &Pool, held: &mut Option<Held>| {
            let connection = theirs(held);
            let commit = Transactions::commit_transaction(&mut **connection);
            commit.await.map_err(text)
        };
        stage.cell(cell, held, run).await;
    }
}

/// Runs a whole transaction as callers write it.
async fn transaction(stage: &Stage) {
    for fate in FATES {
        let cell = Expected {
            marks: 2,
            goes_on: true,
            ..Expected::new("transaction", fate)
        };
        let held = async |pool: &Pool| {
            let connection = hold(pool).await;
            stage.slow_down(fate);
            Some(connection)
        };
        let run = async |_: &Pool, held: &mut Option<Held>| {
            let connection = theirs(held);
            let done = connection.transaction(async |connection| {
                sql_query("UPDATE guarded SET uses = uses + 1")
                    .execute(connection)
                    .await?;
                mark(connection, ["a", "b"], 0.0).await?;
                let last = match fate {
                    Works => "SELECT 1",
                    Fails => "SELECT 1 / 0",
                    Slow => "SELECT pg_sleep(0.005)",
                    Never => "SELECT pg_sleep(1000)",
                };
                connection
                    .transaction(async |connection| connection.batch_execute(last).await)
                    .await
            });
            done.await.map_err(text)
        };
        stage.cell(cell, held, run).await;
    }
}

async fn coming_by_a_connection(url: impl Fn(&NeonSim) -> String) {
    let stage = Stage::new(url).await;
    get(&stage).await;
    connect(&stage).await;
    validate(&stage).await;
    println!("{} futures were dropped", stage.drops.get());
}

async fn using_a_connection(url: impl Fn(&NeonSim) -> String) {
    let stage = Stage::new(url).await;
    statement(&stage).await;
    row_stream(&stage).await;
    begin(&stage).await;
    commit(&stage).await;
    transaction(&stage).await;
    println!("{} futures were dropped", stage.drops.get());
}

#[tokio::test]
async fn checkouts_dropped_anywhere_leave_nothing_behind() {
    join(
        coming_by_a_connection(NeonSim::url),
        coming_by_a_connection(NeonSim::pooled_url),
    )
    .await;
}

#[tokio::test]
async fn statements_dropped_anywhere_leave_nothing_behind() {
    join(
        using_a_connection(NeonSim::url),
        using_a_connection(NeonSim::pooled_url),
    )
    .await;
}

/// The ends of transactions and savepoints on a connection outside of a pool.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ending {
    Commit,
    CommitThatFails,
    Rollback,
    RollbackOfAFailure,
    /// The ROLLBACK waits for the response of a statement that was dropped.
    RollbackBehindAStatement,
    /// The closure of a transaction has failed.
    Transaction,
    RollBackAbandoned,
    Release,
    RollbackTo,
    /// A SAVEPOINT, with the statement that it rides with.
    Savepoint,
}

const ENDINGS: [Ending; 10] = [
    Ending::Commit,
    Ending::CommitThatFails,
    Ending::Rollback,
    Ending::RollbackOfAFailure,
    Ending::RollbackBehindAStatement,
    Ending::Transaction,
    Ending::RollBackAbandoned,
    Ending::Release,
    Ending::RollbackTo,
    Ending::Savepoint,
];

impl Ending {
    /// Returns whether the transaction is to be rolled back whatever happens, so that nobody need be told.
    fn rolls_back(self) -> bool {
        matches!(
            self,
            Self::Rollback
                | Self::RollbackOfAFailure
                | Self::RollbackBehindAStatement
                | Self::Transaction
                | Self::RollBackAbandoned
        )
    }

    async fn prepare(self, connection: &mut Connection) {
        if self == Self::Transaction {
            return;
        }
        Transactions::begin_transaction(connection).await.unwrap();
        let notes = match self {
            // The constraint is deferred, so that COMMIT fails.
            Self::CommitThatFails => ["a", "a"],
            _ => ["a", "b"],
        };
        mark(connection, notes, 0.0).await.unwrap();
        match self {
            Self::RollbackOfAFailure => {
                connection.batch_execute("SELECT 1 / 0").await.unwrap_err();
            }
            Self::RollbackBehindAStatement => {
                let slow = connection.batch_execute("SELECT pg_sleep(0.01)");
                assert!(drop_at(1, HANG, slow.map_err(text)).await.is_none());
            }
            Self::RollBackAbandoned => {
                let commit = Transactions::commit_transaction(connection).map_err(text);
                assert!(drop_at(1, HANG, commit).await.is_none());
            }
            Self::Release | Self::RollbackTo => {
                Transactions::begin_transaction(connection).await.unwrap();
                mark(connection, ["c", "d"], 0.0).await.unwrap();
            }
            _ => {}
        }
    }

    /// Sets `has_begun` once what follows is the end itself.
    async fn run(self, connection: &mut Connection, has_begun: &AtomicBool) -> Result<(), String> {
        has_begun.store(self != Self::Transaction, Ordering::Relaxed);
        let ended = match self {
            Self::Commit | Self::CommitThatFails | Self::Release => {
                Transactions::commit_transaction(connection).await
            }
            Self::Rollback
            | Self::RollbackOfAFailure
            | Self::RollbackBehindAStatement
            | Self::RollbackTo => Transactions::rollback_transaction(connection).await,
            Self::RollBackAbandoned => connection.roll_back_abandoned().await,
            Self::Transaction => {
                let failed = connection.transaction(async |connection| {
                    mark(connection, ["a", "b"], 0.0).await?;
                    has_begun.store(true, Ordering::Relaxed);
                    Err::<(), _>(Error::RollbackTransaction)
                });
                failed.await
            }
            Self::Savepoint => {
                Transactions::begin_transaction(connection).await.unwrap();
                mark(connection, ["c", "d"], 0.0).await
            }
        };
        ended.map_err(text)
    }
}

/// Drops `ending` at each await. The connection then runs its next statement outside of any transaction, or says why not.
async fn dropped_outside_of_a_pool(stage: &Stage, ending: Ending, latency: Duration) {
    for step in 1.. {
        assert!(step < STEPS, "{ending:?} does not end");
        let what = format!("{ending:?} x {latency:?}, step {step}, {}", stage.url);
        let mut connection = common::connect(&stage.url).await;
        ending.prepare(&mut connection).await;
        stage.neon.set_latency(latency);
        let has_begun = AtomicBool::new(false);
        let ended = drop_at(step, HANG, ending.run(&mut connection, &has_begun)).await;
        stage.neon.set_latency(Duration::ZERO);
        stage.drops.set(stage.drops.get() + 1);
        let is_whole = ended.is_some();
        if !is_whole {
            let rolls_back = ending.rolls_back() && has_begun.into_inner();
            next_is_outside(stage, &mut connection, rolls_back, &what).await;
        }
        drop(connection);
        stage.marks().await;
        if is_whole {
            break;
        }
    }
}

async fn next_is_outside(stage: &Stage, connection: &mut Connection, rolls_back: bool, what: &str) {
    let next = async |connection: &mut Connection| {
        let next = diesel::insert_into(marks::table)
            .values((marks::note.eq("next"), marks::seconds.eq(0.0)));
        let done = timeout(HANG, next.execute(connection)).await;
        done.unwrap_or_else(|_| panic!("{what}: no answer"))
    };
    let done = match next(connection).await {
        // A transaction that has failed refuses all but its end.
        Err(error) if !rolls_back && error.sqlstate() == Some("25P02") => return,
        Err(Error::QueryBuilderError(error)) if error.is::<AbandonedTransaction>() => {
            assert!(!rolls_back, "{what}: {error}");
            match connection.roll_back_abandoned().await {
                Ok(()) => next(connection).await,
                Err(error) => Err(error),
            }
        }
        done => done,
    };
    match done {
        Ok(rows) => assert_eq!(rows, 1, "{what}"),
        Err(error) => {
            assert!(error.is_connection_lost(), "{what}: {error}");
            return;
        }
    }
    let mut watcher = stage.watcher.lock().await;
    let seen = marks::table.filter(marks::note.eq("next")).count();
    let seen: i64 = seen.get_result(&mut *watcher).await.unwrap();
    assert_eq!(
        seen, 1,
        "{what}: the statement ran inside of the transaction"
    );
    drop(watcher);
    // Diesel's own record of the depth agrees.
    let depth = connection.transaction(async |connection| mark(connection, ["e", "f"], 0.0).await);
    depth
        .await
        .unwrap_or_else(|error| panic!("{what}: {error}"));
}

async fn without_a_pool(url: impl Fn(&NeonSim) -> String) {
    let stage = Stage::new(url).await;
    for ending in ENDINGS {
        for latency in [Duration::ZERO, Duration::from_millis(2)] {
            dropped_outside_of_a_pool(&stage, ending, latency).await;
        }
    }
    println!("{} futures were dropped", stage.drops.get());
}

#[tokio::test]
async fn ends_of_transactions_dropped_anywhere_leave_a_connection_that_is_outside_or_says_why_not()
{
    join(
        without_a_pool(NeonSim::url),
        without_a_pool(NeonSim::pooled_url),
    )
    .await;
}
