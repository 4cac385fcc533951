//! Tasks that use a pool at the same time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::task::{JoinSet, yield_now};
use tokio::time::sleep;

use crate::pools::{Configuration, Opens, Pool, Settings};

/// So many tasks, each of which uses the pool so often.
#[derive(Clone, Copy, Debug)]
pub struct Crowd {
    pub tasks: u32,
    pub laps: u32,
}

impl Crowd {
    pub fn twice(self) -> Self {
        let laps = 2 * self.laps;
        Self { laps, ..self }
    }

    /// Returns how often the pool is used.
    pub fn uses(self) -> f64 {
        f64::from(self.tasks) * f64::from(self.laps)
    }

    /// Gets connections and gives them back. A task lets others run while it has one, unless it is alone.
    pub async fn hold<P: Pool>(self, pool: &P) {
        let Self { tasks, laps } = self;
        let task = move |pool: P, _| async move {
            for _ in 0..laps {
                let held = match tasks {
                    1 => pool.hold(async {}).await,
                    _ => pool.hold(yield_now()).await,
                };
                held.expect(OK);
            }
        };
        self.spawn(pool, task).await;
    }

    /// As [`hold`](Self::hold); returns how many seconds it took by use.
    pub async fn time<P: Pool>(self, pool: &P) -> f64 {
        let began = Instant::now();
        self.hold(pool).await;
        began.elapsed().as_secs_f64() / self.uses()
    }

    /// As [`hold`](Self::hold); returns how many seconds each use has waited for its connection.
    pub async fn waits<P: Pool>(self, pool: &P) -> Vec<f64> {
        let laps = self.laps;
        let task = move |pool: P, _| async move {
            let mut waits = Vec::new();
            for _ in 0..laps {
                let began = Instant::now();
                let mut waited = Duration::ZERO;
                let meanwhile = async {
                    waited = began.elapsed();
                    yield_now().await;
                };
                pool.hold(meanwhile).await.expect(OK);
                waits.push(waited.as_secs_f64());
            }
            waits
        };
        self.spawn(pool, task).await.concat()
    }

    /// Looks a book up each time.
    pub async fn look_up<P: Pool>(self, pool: &P) {
        let laps = self.laps;
        let task = move |pool: P, number: u32| async move {
            for lap in 0..laps {
                let id = 1 + (number * 211 + lap * 7) % 2000;
                let id = i32::try_from(id).expect("a small number");
                assert_eq!(pool.look_up(id).await.expect(OK), id);
            }
        };
        self.spawn(pool, task).await;
    }

    async fn spawn<P: Pool, F>(self, pool: &P, task: impl Fn(P, u32) -> F) -> Vec<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        let mut running = JoinSet::new();
        for number in 0..self.tasks {
            running.spawn(task(pool.clone(), number));
        }
        running.join_all().await
    }
}

/// Builds a pool of connections that have been used, and that it does not check.
pub async fn pool_of_used<P: Pool>(url: &str) -> P {
    let pool = P::build(url, SETTINGS).await;
    if P::OPENS == Opens::OneForEach {
        // It keeps none that could be used.
        return pool;
    }
    let held = Arc::new(AtomicU32::new(0));
    let all_at_once = |pool: P, _| {
        let held = Arc::clone(&held);
        async move {
            let until_all_are = async {
                held.fetch_add(1, Ordering::Relaxed);
                while held.load(Ordering::Relaxed) < SIZE {
                    sleep(Duration::from_millis(1)).await;
                }
            };
            pool.hold(until_all_are).await.expect(OK);
        }
    };
    let all = Crowd {
        tasks: SIZE,
        laps: 1,
    };
    all.spawn(&pool, all_at_once).await;
    // Each has answered, and has its statements.
    let looked_up = Crowd { laps: 3, ..all };
    looked_up.look_up(&pool).await;
    pool
}

pub const SIZE: u32 = 10;

pub const SETTINGS: Settings = Settings {
    configuration: Configuration::Unchecked,
    max_size: SIZE,
    // Nobody needs it; valgrind is slow.
    patience: Duration::from_secs(600),
};

const OK: &str = "the server answers";
