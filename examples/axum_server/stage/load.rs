//! The same load for two pools: a few clients each, who ask for a book again and again.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use diesel_neon::books;
use diesel_neon::{Connection, Pool, RetryError};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::stock::Stock;
use super::timeline::Clock;

/// The clients of each pool.
const CLIENTS: usize = 4;
/// How long a client thinks about an answer.
const THOUGHT: Duration = Duration::from_millis(25);
/// How long a client waits for an answer; then it has failed.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the load goes on at most, so that a compute may sleep whose page was forgotten.
const LIMIT: Duration = Duration::from_secs(180);
/// How often the totals are noted.
const PACE: Duration = Duration::from_millis(500);
/// The totals of two minutes.
const KEPT: usize = 240;

pub(super) struct Load {
    ours: Pool,
    stock: Stock,
    clock: Clock,
    /// Whether there is load; it may take a moment until that is so.
    on: watch::Sender<bool>,
    totals: [Total; 2],
    samples: Mutex<Samples>,
}

/// What one pool has done since the start of the server.
#[derive(Default)]
struct Total {
    answers: AtomicU64,
    failures: AtomicU64,
}

#[derive(Default)]
struct Samples {
    /// How many there have been.
    count: u64,
    /// A moment, and the totals then: answers and failures of our pool, and those of the stock one.
    kept: VecDeque<[u64; 5]>,
}

/// Whom a client asks.
#[derive(Clone, Copy)]
enum Side {
    Ours,
    Stock,
}

impl Load {
    pub(super) fn new(ours: Pool, stock: Stock, clock: Clock) -> Arc<Self> {
        let load = Arc::new(Self {
            ours,
            stock,
            clock,
            on: watch::Sender::new(false),
            totals: Default::default(),
            samples: Mutex::default(),
        });
        tokio::spawn(Arc::clone(&load).run());
        load
    }

    pub(super) fn switch(&self, on: bool) {
        self.on.send_replace(on);
    }

    pub(super) fn is_on(&self) -> bool {
        *self.on.borrow()
    }

    async fn run(self: Arc<Self>) {
        let mut on = self.on.subscribe();
        // The sender is `self`'s own.
        while on.wait_for(|on| *on).await.is_ok() {
            // All clients of this load end, though the next one may begin before the last of them has its answer.
            let (end, ending) = watch::channel(false);
            let mut clients = JoinSet::new();
            for _ in 0..CLIENTS {
                for side in [Side::Ours, Side::Stock] {
                    let client = Arc::clone(&self).ask_again_and_again(side, ending.clone());
                    clients.spawn(client);
                }
            }
            let mut is_ending = false;
            let until_end = async {
                tokio::select! {
                    () = sleep(LIMIT) => self.switch(false),
                    _ = on.wait_for(|on| !*on) => {}
                }
                end.send_replace(true);
            };
            tokio::pin!(until_end);
            let mut pace = interval(PACE);
            pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    () = &mut until_end, if !is_ending => is_ending = true,
                    client = clients.join_next() => if client.is_none() { break },
                    _ = pace.tick() => self.sample(),
                }
            }
            // The last one shows that there is no more.
            self.sample();
            sleep(PACE).await;
            self.sample();
        }
    }

    async fn ask_again_and_again(self: Arc<Self>, side: Side, ending: watch::Receiver<bool>) {
        let total = &self.totals[side as usize];
        while !*ending.borrow() {
            let asked = async {
                match side {
                    Side::Ours => ask(&self.ours).await.is_ok(),
                    Side::Stock => self.stock.ask().await.is_ok(),
                }
            };
            let answered = timeout(PATIENCE, asked).await.unwrap_or(false);
            let count = if answered {
                &total.answers
            } else {
                &total.failures
            };
            count.fetch_add(1, Ordering::Relaxed);
            sleep(THOUGHT).await;
        }
    }

    fn sample(&self) {
        let [ours, stock] = &self.totals;
        let counts = [
            &ours.answers,
            &ours.failures,
            &stock.answers,
            &stock.failures,
        ];
        let [a, b, c, d] = counts.map(|count| count.load(Ordering::Relaxed));
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        samples.count += 1;
        if samples.kept.len() == KEPT {
            samples.kept.pop_front();
        }
        samples.kept.push_back([self.clock.now(), a, b, c, d]);
    }

    /// Returns the samples that have not been seen.
    pub(super) fn news(&self, seen: &mut Option<u64>) -> Option<Value> {
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let before = seen.replace(samples.count);
        let unseen = samples.count - before.unwrap_or_default();
        if before.is_some() && unseen == 0 {
            return None;
        }
        let unseen = usize::try_from(unseen).unwrap_or(usize::MAX);
        let skipped = samples.kept.len().saturating_sub(unseen);
        let unseen: Vec<_> = samples.kept.iter().skip(skipped).collect();
        Some(json!({
            "now": self.clock.now(),
            "all": before.is_none(),
            "samples": unseen,
        }))
    }
}

/// Asks as the README has it: a read may be done twice, so it is done again if its connection is lost.
async fn ask(pool: &Pool) -> Result<(), RetryError> {
    let find = async |connection: &mut Connection| {
        let book = books::find(connection, 1).await;
        book.map(drop).map_err(RetryError::from)
    };
    pool.retry().idempotent().run(find).await
}
