//! The pools that rest, with all their times shortened.

use std::any::Any;
use std::time::Duration;

use diesel_async::pooled_connection::{bb8, mobc};
use sqlx::postgres::PgPoolOptions;

use super::{SCALE, WINDOW};
use crate::pools::{
    Asyncpg, Bb8, Configuration, Deadpool, DeadpoolPostgres, IDLE, Mobc, Ours, Pool, Settings,
    SqlAlchemy, Sqlx, connect_options, fill, manager,
};

/// How a pool is set up to rest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    AsItComes,
    SetUp,
    KeepsOne,
    KeepsOneSetUp,
}

impl Kind {
    pub const ALL: [Self; 4] = [
        Self::AsItComes,
        Self::SetUp,
        Self::KeepsOne,
        Self::KeepsOneSetUp,
    ];

    pub fn words(self) -> &'static str {
        match self {
            Self::AsItComes => "as it comes",
            Self::SetUp => "set up",
            Self::KeepsOne => "keeps one",
            Self::KeepsOneSetUp => "keeps one, set up",
        }
    }

    /// Returns whether the pool with this place among the names can be set up so.
    pub fn is_of(self, pool: usize) -> bool {
        !self.keeps_one() || matches!(pool, 0 | 1 | 5)
    }

    fn keeps_one(self) -> bool {
        matches!(self, Self::KeepsOne | Self::KeepsOneSetUp)
    }

    fn is_set_up(self) -> bool {
        matches!(self, Self::SetUp | Self::KeepsOneSetUp)
    }

    fn settings(self) -> Settings {
        Settings {
            configuration: match self.is_set_up() {
                true => Configuration::Serverless,
                false => Configuration::Default,
            },
            max_size: SIZE,
            patience: Duration::from_secs(5),
        }
    }
}

const SIZE: u32 = 3;
/// The default of bb8 and sqlx.
const IDLE_BY_DEFAULT: Duration = Duration::from_secs(600);
/// The default of bb8 and sqlx.
const LIFETIME: Duration = Duration::from_secs(1800);
/// The default of bb8.
const REAPER: Duration = Duration::from_secs(30);

/// Builds the pool with this place among the names, uses it once, and returns what keeps it alive.
pub async fn start(kind: Kind, pool: usize, url: &str) -> Result<Box<dyn Any + Send>, String> {
    let settings = kind.settings();
    Ok(match pool {
        0 => used(ours(kind, url)?).await,
        1 => used(with_bb8(kind, url).await).await,
        // It does nothing by itself, and has no times to shorten.
        2 => used(Deadpool::build(url, settings).await).await,
        3 => used(with_mobc(kind, url)).await,
        // Nor has this.
        4 => used(DeadpoolPostgres::build(url, settings).await).await,
        5 => used(with_sqlx(kind, url)).await,
        6 => used(Asyncpg::build_shortened(url, settings, SCALE).await).await,
        7 => used(SqlAlchemy::build_shortened(url, settings, SCALE).await).await,
        _ => panic!("no pool has the place {pool}"),
    })
}

async fn used<P: Pool>(pool: P) -> Box<dyn Any + Send> {
    fill(&pool, SIZE as usize).await;
    Box::new(pool)
}

fn ours(kind: Kind, url: &str) -> Result<Ours, String> {
    let mut builder = diesel_neon::Pool::builder(url)
        .suspend_after(WINDOW)
        .max_size(SIZE);
    if kind.keeps_one() {
        builder = builder.min_idle(1);
    }
    builder.build().map(Ours).map_err(|error| error.to_string())
}

async fn with_bb8(kind: Kind, url: &str) -> Bb8 {
    let builder = bb8::Pool::builder()
        .max_size(SIZE)
        .min_idle(kind.keeps_one().then_some(1))
        .idle_timeout(Some(idle(kind)))
        .max_lifetime(Some(LIFETIME / SCALE))
        .reaper_rate(REAPER / SCALE);
    let pool = builder.build(manager(url, kind.settings())).await;
    Bb8(pool.expect("a pool"))
}

fn with_mobc(kind: Kind, url: &str) -> Mobc {
    let mut builder = mobc::Pool::builder()
        .max_open(SIZE.into())
        .max_idle(SIZE.into());
    if kind.is_set_up() {
        builder = builder.max_idle_lifetime(Some(idle(kind)));
    }
    Mobc(builder.build(manager(url, kind.settings())))
}

fn with_sqlx(kind: Kind, url: &str) -> Sqlx {
    let options = PgPoolOptions::new()
        .max_connections(SIZE)
        .min_connections(kind.keeps_one().into())
        .idle_timeout(idle(kind))
        .max_lifetime(LIFETIME / SCALE);
    Sqlx(options.connect_lazy_with(connect_options(url)))
}

fn idle(kind: Kind) -> Duration {
    match kind.is_set_up() {
        true => IDLE / SCALE,
        false => IDLE_BY_DEFAULT / SCALE,
    }
}
