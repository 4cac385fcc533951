//! Workers that write, each in the ways in which an application does.

// Atomics are loaded by the type's name: `load` alone is a query's.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use diesel::sql_types::{Bool, Integer, Text};
use diesel::{QueryResult, sql_query};
use diesel_async::{RunQueryDsl, SimpleAsyncConnection};
use diesel_neon::{Connection, DatabaseErrorExt, Pool, RetryError};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

/// Far more than any request takes.
pub(crate) const HANG: Duration = Duration::from_secs(120);

/// Sends requests, one after the other.
pub(crate) struct Worker {
    name: String,
    pool: Pool,
    random: fastrand::Rng,
}

impl Worker {
    pub(crate) fn new(name: String, pool: Pool, random: fastrand::Rng) -> Self {
        Self { name, pool, random }
    }

    /// Sends requests until `stop` is set. Gives up requests that began before the last silence, as an application's
    /// own timeout does: nothing tells a client that the server never answers.
    pub(crate) async fn run(
        mut self,
        stop: Arc<AtomicBool>,
        mut silence: watch::Receiver<Instant>,
    ) -> Vec<Request> {
        let mut done = Vec::new();
        while !AtomicBool::load(&stop, Ordering::Relaxed) {
            let key = format!("{}-{}", self.name, done.len());
            let mut request = Request::draw(key, &mut self.random);
            let patience = match self.random.u8(0..10) {
                0 => Duration::from_millis(self.random.u64(0..40)),
                _ => HANG,
            };
            let began = Instant::now();
            let outcome = tokio::select! {
                outcome = timeout(patience, request.send(&self.pool)) => {
                    outcome.unwrap_or_else(|_| match patience {
                        HANG => Outcome::Failed("it hangs".into()),
                        _ => Outcome::Cancelled,
                    })
                }
                Ok(_) = silence.wait_for(|silence| began < *silence) => Outcome::Cancelled,
            };
            request.took = began.elapsed();
            request.outcome = outcome;
            done.push(request);
            if self.random.u8(0..4) == 0 {
                sleep(Duration::from_millis(self.random.u64(0..150))).await;
            }
        }
        done
    }
}

/// One write, under a key of its own.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) key: String,
    pub(crate) kind: Kind,
    pub(crate) outcome: Outcome,
    pub(crate) took: Duration,
    pub(crate) attempts: AtomicU32,
    /// Whether the transaction was complete except for its COMMIT.
    committing: AtomicBool,
    /// How long the server takes.
    pause: Duration,
    accounts: [i32; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A connection out of the pool.
    Get,
    /// [`Retry::run`].
    Run,
    /// [`Retry::transaction`].
    Transaction,
    IdempotentRun,
    IdempotentTransaction,
    /// A connection returned inside a transaction that the pool does not know of.
    Forgotten,
}

impl Kind {
    const ALL: [Self; 6] = [
        Self::Get,
        Self::Run,
        Self::Transaction,
        Self::IdempotentRun,
        Self::IdempotentTransaction,
        Self::Forgotten,
    ];

    /// How many rows it writes.
    pub(crate) fn parts(self) -> u32 {
        match self {
            Self::Transaction | Self::IdempotentTransaction => 2,
            _ => 1,
        }
    }
}

#[derive(Debug)]
pub(crate) enum Outcome {
    Acknowledged,
    /// The connection was lost with the answer outstanding.
    Ambiguous,
    /// The caller gave up before the answer.
    Cancelled,
    RolledBack,
    /// It had time to succeed.
    Failed(String),
}

impl Request {
    fn draw(key: String, random: &mut fastrand::Rng) -> Self {
        let first = random.i32(0..4);
        Self {
            key,
            kind: Kind::ALL[random.usize(..Kind::ALL.len())],
            outcome: Outcome::Cancelled,
            took: Duration::ZERO,
            attempts: AtomicU32::new(0),
            committing: AtomicBool::new(false),
            pause: match random.u8(0..4) {
                0 => Duration::from_millis(random.u64(1..80)),
                _ => Duration::ZERO,
            },
            accounts: [first, (first + random.i32(1..4)) % 4],
        }
    }

    async fn send(&self, pool: &Pool) -> Outcome {
        let result = match self.kind {
            Kind::Get => self.get(pool).await,
            Kind::Run => pool.retry().run(async |c| self.statement(c).await).await,
            Kind::Transaction => {
                pool.retry()
                    .transaction(async |c| self.statements(c).await)
                    .await
            }
            Kind::IdempotentRun => {
                let pool = pool.retry().idempotent();
                pool.run(async |c| self.statement(c).await).await
            }
            Kind::IdempotentTransaction => {
                let pool = pool.retry().idempotent();
                pool.transaction(async |c| self.statements(c).await).await
            }
            Kind::Forgotten => self.forget(pool).await,
        };
        match (result, self.kind) {
            (Err(RetryError::Query(error)), Kind::Forgotten) if error.is_transient() => {
                Outcome::RolledBack
            }
            (Err(error), _) if self.may_fail_with(&error) => Outcome::Ambiguous,
            (Err(error), _) => Outcome::Failed(format!("{error:?}")),
            (Ok(()), Kind::Forgotten) => Outcome::RolledBack,
            (Ok(()), _) => Outcome::Acknowledged,
        }
    }

    /// The statement may have been run, so the pool must not run it again.
    fn may_fail_with(&self, error: &RetryError) -> bool {
        let RetryError::Query(error) = error else {
            return false;
        };
        error.is_transient()
            && match self.kind {
                Kind::Get | Kind::Run => true,
                Kind::Transaction => AtomicBool::load(&self.committing, Ordering::Relaxed),
                _ => false,
            }
    }

    async fn get(&self, pool: &Pool) -> Result<(), RetryError> {
        let mut connection = pool.get().await?;
        self.statement(&mut connection).await
    }

    async fn forget(&self, pool: &Pool) -> Result<(), RetryError> {
        let mut connection = pool.get().await?;
        connection.batch_execute("BEGIN").await?;
        self.statement(&mut connection).await
    }

    async fn statement(&self, connection: &mut Connection) -> Result<(), RetryError> {
        self.attempts.fetch_add(1, Ordering::Relaxed);
        self.write(connection, 0).await?;
        Ok(())
    }

    /// Two rows, and a transfer between two accounts in between: all or nothing.
    async fn statements(&self, connection: &mut Connection) -> Result<(), RetryError> {
        self.attempts.fetch_add(1, Ordering::Relaxed);
        self.committing.store(false, Ordering::Relaxed);
        self.write(connection, 0).await?;
        for (account, amount) in self.accounts.into_iter().zip([-1, 1]) {
            sql_query("UPDATE accounts SET balance = balance + $1 WHERE id = $2")
                .bind::<Integer, _>(amount)
                .bind::<Integer, _>(account)
                .execute(connection)
                .await?;
        }
        self.write(connection, 1).await?;
        self.committing.store(true, Ordering::Relaxed);
        Ok(())
    }

    async fn write(&self, connection: &mut Connection, part: i32) -> QueryResult<()> {
        let once = matches!(self.kind, Kind::IdempotentRun | Kind::IdempotentTransaction);
        let pause = self.pause.as_secs_f64();
        sql_query(format!(
            "INSERT INTO writes SELECT $1, $2, $3 FROM (SELECT pg_sleep({pause})) AS slept \
             ON CONFLICT DO NOTHING"
        ))
        .bind::<Text, _>(&self.key)
        .bind::<Integer, _>(part)
        .bind::<Bool, _>(once)
        .execute(connection)
        .await?;
        Ok(())
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let attempts = AtomicU32::load(&self.attempts, Ordering::Relaxed);
        write!(
            f,
            "{} ({:?}, {attempts} attempts, {:.1?})",
            self.key, self.kind, self.took
        )
    }
}

/// Gets a connection, and an answer from the server.
pub(crate) async fn hello(pool: Pool) -> Result<(), String> {
    let mut connection = pool
        .get()
        .await
        .map_err(|error| format!("burst: {error:?}"))?;
    let answer = connection.batch_execute("SELECT 1").await;
    answer.map_err(|error| format!("burst: {error:?}"))?;
    sleep(Duration::from_millis(1)).await;
    Ok(())
}
