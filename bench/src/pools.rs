//! The pools, each as an app would hold it, behind one interface.
//!
//! Each is there as it comes, and as good as its own settings make it for a compute that suspends after five minutes:
//! connections that are checked when they are handed out, with a limit on the check, which the pool has or its user can
//! write, and none that is idle for four minutes. What cannot be set by a pool's user is not set here.

/// `hold`, for a pool that is a tuple's first field.
macro_rules! hold {
    () => {
        async fn hold<F: Future<Output = ()> + Send>(&self, meanwhile: F) -> Result<(), String> {
            let _connection = self.0.get().await.map_err($crate::pools::words)?;
            meanwhile.await;
            Ok(())
        }
    };
}

/// `look_up` and `hold`, for such a pool of connections that Diesel runs on.
macro_rules! look_up_and_hold {
    () => {
        async fn look_up(&self, id: i32) -> Result<i32, String> {
            use $crate::schema::{Book, books};

            let mut connection = self.0.get().await.map_err($crate::pools::words)?;
            let find = diesel::QueryDsl::find(books::table, id);
            let book = diesel_async::RunQueryDsl::get_result(find, &mut connection).await;
            let book: Book = book.map_err($crate::pools::words)?;
            Ok(book.id)
        }

        $crate::pools::hold!();
    };
}

pub(crate) use {hold, look_up_and_hold};

mod diesel_async_manager;
mod with_bb8;
mod with_deadpool;
mod with_deadpool_postgres;
mod with_mobc;
mod with_ours;
mod with_python;
mod with_sqlx;

use std::time::Duration;

use tokio::sync::Barrier;

pub use self::diesel_async_manager::manager;
pub use self::with_bb8::Bb8;
pub use self::with_deadpool::Deadpool;
pub use self::with_deadpool_postgres::DeadpoolPostgres;
pub use self::with_mobc::Mobc;
pub use self::with_ours::Ours;
pub use self::with_python::{Asyncpg, SqlAlchemy, end_processes, versions as versions_of_python};
pub use self::with_sqlx::{Sqlx, connect_options};

/// How a pool is set up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Configuration {
    /// As its documentation's first example has it, with the size and the patience that are asked for.
    Default,
    /// With what it has for a server that goes away.
    Serverless,
    /// Without any check, to compare what is left.
    Unchecked,
}

/// What all pools of a measurement have in common.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub configuration: Configuration,
    pub max_size: u32,
    /// How long a caller waits for a connection.
    pub patience: Duration,
}

/// When a pool opens connections.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Opens {
    /// One for a caller for whom there is none.
    OneMore,
    /// All before it hands out the first. The one that came back last is handed out next.
    AllAtOnce,
    /// One for each caller, whose connection it then closes.
    OneForEach,
}

/// An app's pool.
pub trait Pool: Clone + Send + Sync + 'static {
    const OPENS: Opens = Opens::OneMore;
    /// Whether a URL may have several addresses of a host.
    const TAKES_ADDRESSES: bool = true;

    /// Builds a pool on a URL as Neon's console prints it, with TLS unless the URL is without.
    fn build(url: &str, settings: Settings) -> impl Future<Output = Self> + Send;

    /// Looks a book up on a connection of the pool, gives it back, and returns the row's ID.
    fn look_up(&self, id: i32) -> impl Future<Output = Result<i32, String>> + Send;

    /// Gets a connection, waits for `meanwhile`, and gives it back.
    fn hold<F: Future<Output = ()> + Send>(
        &self,
        meanwhile: F,
    ) -> impl Future<Output = Result<(), String>> + Send;
}

/// Of connections that are idle so long, in a [`Configuration::Serverless`].
pub const IDLE: Duration = Duration::from_secs(240);
/// For a check or a connect, where there can be a limit, in a [`Configuration::Serverless`].
const CHECK: Duration = Duration::from_secs(1);
const CONNECT: Duration = Duration::from_secs(10);

/// Opens this many connections of a pool, and uses them. Where a connection takes longer than a caller waits, others come for it.
pub async fn fill<P: Pool>(pool: &P, connections: usize) {
    let mut outcome = Ok(());
    for _ in 0..FILLS {
        outcome = fill_once(pool, connections).await;
        if outcome.is_ok() {
            return;
        }
    }
    outcome.expect("a pool that nothing disturbs is filled");
}

async fn fill_once<P: Pool>(pool: &P, connections: usize) -> Result<(), String> {
    let all = Barrier::new(connections);
    let held = (0..connections).map(|_| async {
        let held = pool.hold(async {
            all.wait().await;
        });
        let outcome = held.await;
        if outcome.is_err() {
            // The others let theirs go.
            all.wait().await;
        }
        outcome
    });
    let held = futures_util::future::join_all(held).await;
    held.into_iter().collect::<Result<(), String>>()?;
    let used = (0..connections).map(|id| pool.look_up(id as i32 + 1));
    let used = futures_util::future::join_all(used).await;
    used.into_iter().try_for_each(|id| id.map(drop))
}

/// For a machine that is so loaded that a pool's patience ends before a handshake does.
const FILLS: usize = 40;

pub const LOOK_UP: &str =
    "SELECT id, author_id, title, pages, rating, note FROM books WHERE id = $1";

/// Returns the error as `main` would print it: its own words and its causes'.
pub fn words(error: impl std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_words = cause.to_string();
        if !words.contains(&cause_words) {
            words += &format!(": {cause_words}");
        }
        source = cause.source();
    }
    words
}

/// Runs a block for the type of each pool, in the page's order, and collects what it returns.
#[macro_export]
macro_rules! each_pool {
    ($pool:ident => $run:expr) => {
        [
            {
                type $pool = $crate::pools::Ours;
                $run
            },
            {
                type $pool = $crate::pools::Bb8;
                $run
            },
            {
                type $pool = $crate::pools::Deadpool;
                $run
            },
            {
                type $pool = $crate::pools::Mobc;
                $run
            },
            {
                type $pool = $crate::pools::DeadpoolPostgres;
                $run
            },
            {
                type $pool = $crate::pools::Sqlx;
                $run
            },
        ]
    };
}

/// As [`each_pool`], with the pools of Python's behind them, where there are any. Returns a list.
#[macro_export]
macro_rules! each_pool_and_pythons {
    ($pool:ident => $run:expr) => {{
        let mut all = $crate::each_pool!($pool => $run).to_vec();
        if $crate::pools::versions_of_python().is_some() {
            type $pool = $crate::pools::Asyncpg;
            all.push($run);
        }
        if $crate::pools::versions_of_python().is_some() {
            type $pool = $crate::pools::SqlAlchemy;
            all.push($run);
        }
        all
    }};
}

/// The names of [`each_pool`]'s pools.
pub const NAMES: [&str; 6] = [
    "diesel-neon",
    "bb8, diesel-async",
    "deadpool, diesel-async",
    "mobc, diesel-async",
    "deadpool-postgres",
    "sqlx",
];

/// The names of [`each_pool_and_pythons`]'s pools.
pub fn names_with_pythons() -> Vec<&'static str> {
    let pythons: &[&str] = match versions_of_python() {
        Some(_) => &["asyncpg", "SQLAlchemy, asyncpg"],
        None => &[],
    };
    [&NAMES, pythons].concat()
}

#[cfg(test)]
mod tests {
    use neon_sim::{NeonSim, Suspension};
    use tokio::time::timeout;

    use super::*;
    use crate::stand_in::SCHEMA;

    /// Has one caller come after the connections have died without a word.
    async fn outlives_silence<P: Pool>() {
        let neon = NeonSim::builder().never_suspend().start().await.unwrap();
        neon.sql(SCHEMA).await.unwrap();
        let settings = Settings {
            configuration: Configuration::Serverless,
            max_size: 2,
            patience: Duration::from_secs(20),
        };
        let pool = P::build(&neon.url(), settings).await;
        fill(&pool, 2).await;
        neon.suspend(Suspension::Silent).await;
        let found = timeout(Duration::from_secs(30), pool.look_up(7)).await;
        assert_eq!(found.expect("it gives up its check"), Ok(7));
    }

    #[tokio::test]
    async fn a_pool_is_filled_also_where_connecting_takes_longer_than_its_callers_wait() {
        let neon = NeonSim::builder()
            .never_suspend()
            .cold_start(Duration::from_secs(2));
        let neon = neon.start().await.unwrap();
        neon.sql(SCHEMA).await.unwrap();
        neon.suspend(Suspension::Normal).await;
        let settings = Settings {
            configuration: Configuration::Default,
            max_size: 3,
            patience: Duration::from_millis(300),
        };
        let pool = Bb8::build(&neon.url(), settings).await;
        let filled = timeout(Duration::from_secs(120), fill(&pool, 3)).await;
        filled.expect("callers come again");
        assert_eq!(pool.0.state().connections, 3);
    }

    #[tokio::test]
    #[should_panic(expected = "is filled: \"Timed out")]
    async fn a_pool_that_serves_too_few_is_not_waited_for() {
        let neon = NeonSim::builder().never_suspend().start().await.unwrap();
        let settings = Settings {
            configuration: Configuration::Default,
            max_size: 2,
            patience: Duration::from_millis(100),
        };
        let pool = Bb8::build(&neon.url(), settings).await;
        let filled = timeout(Duration::from_secs(120), fill(&pool, 3)).await;
        filled.expect("it fails sooner");
    }

    #[tokio::test]
    async fn bb8_outlives_silence() {
        outlives_silence::<Bb8>().await;
    }

    #[tokio::test]
    async fn deadpool_outlives_silence() {
        outlives_silence::<Deadpool>().await;
    }

    #[tokio::test]
    async fn deadpool_postgres_outlives_silence() {
        outlives_silence::<DeadpoolPostgres>().await;
    }
}
