//! Rounds of load and faults, each with its reckoning.

mod faults;
mod load;
mod tally;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use diesel_neon::Pool;
use neon_sim::NeonSim;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use self::faults::Fault;
use self::load::{Outcome, Request, Worker};
pub(crate) use self::tally::Tally;

/// A stand-in for Neon, a pool on each of its endpoints, and the tally so far.
pub(crate) struct Soak {
    neon: Arc<NeonSim>,
    pools: Vec<Pool>,
    random: fastrand::Rng,
    tally: Tally,
}

impl Soak {
    pub(crate) async fn start(seed: u64) -> Self {
        let neon = NeonSim::builder()
            .never_suspend()
            .cold_start(Duration::from_millis(50))
            // Seven would take longer than the pools' time to connect.
            .wake_retries(1)
            // The accounts below are locked in any order.
            .postgres_settings([("deadlock_timeout", "50ms")])
            .start()
            .await
            .expect("the stand-in for Neon starts");
        neon.sql(TABLES).await.expect("the tables are made");
        let pools = [("direct", neon.url()), ("pooled", neon.pooled_url())];
        let pools = pools.map(|(name, url)| pool(&format!("{url}&application_name=soak-{name}")));
        Self {
            neon: Arc::new(neon),
            pools: pools.into(),
            random: fastrand::Rng::with_seed(seed),
            tally: Tally::default(),
        }
    }

    /// Returns the tally so far.
    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Brings some faults under load, then returns everything that is wrong afterwards.
    pub(crate) async fn round(&mut self) -> Vec<String> {
        self.tally.rounds += 1;
        let requests = self.load_and_faults().await;
        let mut complaints = Vec::new();
        for request in &requests {
            self.tally.request(request);
            if let Outcome::Failed(why) = &request.outcome {
                complaints.push(format!("{request}: {why}"));
            }
        }
        complaints.extend(self.left_behind().await);
        // The last thing to go wrong, with nobody there to notice.
        if let Some(fault) = Fault::draw_suspension(&mut self.random) {
            fault.bring(&self.neon, &self.pools).await;
            self.tally.fault(&fault);
        }
        sleep(BYPASS).await;
        complaints.extend(self.burst().await);
        complaints.extend(self.lost_or_doubled(&requests).await);
        self.tally.pools(self.pools.iter().map(Pool::status));
        complaints
    }

    async fn load_and_faults(&mut self) -> Vec<Request> {
        let stop = Arc::new(AtomicBool::new(false));
        let silence = watch::Sender::new(Instant::now());
        let mut workers = JoinSet::new();
        for (endpoint, pool) in self.pools.iter().enumerate() {
            for number in 0..WORKERS {
                let name = format!("{}-{endpoint}-{number}", self.tally.rounds);
                let worker = Worker::new(name, pool.clone(), self.random.fork());
                workers.spawn(worker.run(Arc::clone(&stop), silence.subscribe()));
            }
        }
        let widest = Arc::new(AtomicU32::new(0));
        let watcher = tokio::spawn(watch(self.pools.clone(), Arc::clone(&widest)));
        for _ in 0..self.random.usize(2..=6) {
            sleep(Duration::from_millis(self.random.u64(0..250))).await;
            let fault = Fault::draw(&mut self.random);
            fault.bring(&self.neon, &self.pools).await;
            self.tally.fault(&fault);
            if fault.is_silent() {
                // So long may a connection be handed out that has just been heard from.
                sleep(BYPASS).await;
                let since = Instant::now();
                sleep(REQUEST_TIMEOUT).await;
                silence.send_replace(since);
            }
        }
        sleep(Duration::from_millis(self.random.u64(0..250))).await;
        stop.store(true, Ordering::Relaxed);
        let requests = workers.join_all().await.into_iter().flatten().collect();
        watcher.abort();
        self.tally.widest = self.tally.widest.max(widest.load(Ordering::Relaxed));
        requests
    }

    /// Returns complaints about transactions, queries and sessions that nobody waits for and that do not end.
    async fn left_behind(&self) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let at_work = self
                .count("state <> 'idle' OR xact_start IS NOT NULL")
                .await;
            let sessions = self.count("application_name = 'soak-direct'").await;
            let known = self.pools[0].status().size;
            let held: u32 = self.pools.iter().map(|pool| pool.status().in_use).sum();
            let waiting: usize = self.pools.iter().map(|pool| pool.status().waiting).sum();
            let too_wide = self.tally.widest > MAX_SIZE;
            let complaints: Vec<_> = [
                (
                    at_work > 0,
                    format!("{at_work} transactions or queries are left behind"),
                ),
                (
                    sessions > known,
                    format!("{sessions} sessions, but {known} connections"),
                ),
                (
                    held > 0,
                    format!("{held} connections are still taken for held"),
                ),
                (
                    waiting > 0,
                    format!("{waiting} callers are still taken for waiting"),
                ),
                (
                    too_wide,
                    format!("{} of {MAX_SIZE} connections", self.tally.widest),
                ),
            ]
            .into_iter()
            .filter_map(|(is_so, complaint)| is_so.then_some(complaint))
            .collect();
            if complaints.is_empty() || Instant::now() >= deadline {
                return complaints;
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    async fn count(&self, what: &str) -> u32 {
        let sessions = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE usename = 'neondb_owner' AND ({what})"
        );
        number(&self.neon, &sessions).await
    }

    /// Returns the errors of many callers at once, each of whom must get a connection that works.
    async fn burst(&mut self) -> Vec<String> {
        let mut callers = JoinSet::new();
        for pool in &self.pools {
            for _ in 0..5 * MAX_SIZE {
                callers.spawn(load::hello(pool.clone()));
            }
        }
        self.tally.burst += callers.len() as u64;
        let answers = timeout(load::HANG, callers.join_all()).await;
        let answers = answers.unwrap_or_else(|_| vec![Err("a burst hangs".into())]);
        answers.into_iter().filter_map(Result::err).collect()
    }

    /// Returns complaints about writes that are missing or doubled in the database.
    async fn lost_or_doubled(&mut self, requests: &[Request]) -> Vec<String> {
        let rows = self
            .neon
            .sql("SELECT key, count(*) FROM writes GROUP BY key")
            .await;
        let mut kept: HashMap<String, u32> = rows
            .expect("the table can be read")
            .into_iter()
            .map(|row| (text(&row[0]), text(&row[1]).parse().expect("a number")))
            .collect();
        let mut complaints = Vec::new();
        for request in requests {
            let (found, parts) = (kept.remove(&request.key).unwrap_or(0), request.kind.parts());
            let may_be: &[u32] = match request.outcome {
                Outcome::Acknowledged => &[parts],
                Outcome::RolledBack => &[0],
                Outcome::Ambiguous | Outcome::Cancelled | Outcome::Failed(_) => &[0, parts],
            };
            if !may_be.contains(&found) {
                complaints.push(format!("{request}: {found} rows, not one of {may_be:?}"));
            }
            self.tally.found(request, found > 0);
        }
        complaints.extend(
            kept.keys()
                .map(|key| format!("{key}: written, but not in this round")),
        );
        let balance = number(&self.neon, "SELECT abs(sum(balance)) FROM accounts").await;
        if balance != 0 {
            complaints.push(format!(
                "half a transfer: the accounts are off by {balance}"
            ));
        }
        self.neon
            .sql("TRUNCATE writes")
            .await
            .expect("the table can be emptied");
        complaints
    }
}

fn pool(url: &str) -> Pool {
    let pool = Pool::builder(url)
        .max_size(MAX_SIZE)
        .never_suspends()
        // Short, so that a round meets all of them.
        .max_lifetime(Duration::from_secs(1))
        .idle_timeout(Duration::from_millis(500))
        .connect_timeout(Duration::from_secs(3))
        .validation_timeout(Duration::from_secs(1))
        .validation_bypass(BYPASS)
        // Time to succeed.
        .checkout_timeout(load::HANG / 2)
        .retry_budget(load::HANG / 2)
        .retry_attempts(100);
    pool.build().expect("the policy holds")
}

async fn watch(pools: Vec<Pool>, widest: Arc<AtomicU32>) {
    loop {
        for pool in &pools {
            let status = pool.status();
            // Others take the place of those that are most likely dead, up to twice as many in all.
            let width = (status.size - status.suspect).max(status.size.div_ceil(2));
            widest.fetch_max(width, Ordering::Relaxed);
        }
        sleep(Duration::from_millis(1)).await;
    }
}

async fn number(neon: &NeonSim, query: &str) -> u32 {
    let rows = neon.sql(query).await.expect("the server counts");
    text(&rows[0][0]).parse().expect("a number")
}

fn text(value: &Option<String>) -> String {
    value.clone().unwrap_or_default()
}

/// `writes` has no unique key for requests that may not be repeated, so that a doubled write shows.
const TABLES: &str = "
    SET ROLE neondb_owner;
    CREATE TABLE writes (key TEXT NOT NULL, part INT NOT NULL, once BOOLEAN NOT NULL);
    CREATE UNIQUE INDEX ON writes (key, part) WHERE once;
    CREATE TABLE accounts (id INT PRIMARY KEY, balance BIGINT NOT NULL);
    INSERT INTO accounts SELECT id, 0 FROM generate_series(0, 3) AS id";

const MAX_SIZE: u32 = 5;
/// Per endpoint.
const WORKERS: usize = 8;
const BYPASS: Duration = Duration::from_millis(50);
/// The application's own timeout.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(1);
/// The bound on what must end by itself.
const PATIENCE: Duration = Duration::from_secs(30);
