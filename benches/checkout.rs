//! The cost of `get` and drop on a connection that was used a moment ago, against bb8 with diesel-async's
//! manager and its check switched off: `cargo bench --bench checkout`. By one task, by 64 tasks on 10 connections, and by
//! 10,000 tasks, of which all but 10 wait in line.
//!
//! The two take turns, and the ratio is the median over the rounds, so that other load on the machine hits both.

use std::sync::Arc;
use std::time::{Duration, Instant};

use diesel_async::pooled_connection::{AsyncDieselConnectionManager, bb8};
use diesel_async::{AsyncPgConnection, SimpleAsyncConnection};
use diesel_neon::{DatabaseUrl, Pool};
use futures_util::FutureExt;
use neon_sim::NeonSim;
use tokio::task::{JoinSet, yield_now};

type Stock = bb8::Pool<AsyncPgConnection>;

#[tokio::main(worker_threads = 2)]
async fn main() {
    let neon = NeonSim::builder().never_suspend().start().await;
    let neon = neon.expect("the stand-in for Neon starts");
    let ours = Pool::builder(DatabaseUrl::parse(&neon.url()).expect("a URL"))
        .max_size(SIZE)
        .checkout_timeout(PATIENCE)
        // The bypass lasts as long as the benchmark, so that no connection is checked.
        .validation_bypass(Duration::from_secs(100))
        .build()
        .expect("a pool");
    // TLS does not matter, since an idle connection sends nothing.
    let stock: Stock = bb8::Pool::builder()
        .max_size(SIZE)
        .test_on_check_out(false)
        .connection_timeout(PATIENCE)
        .build(AsyncDieselConnectionManager::new(neon.postgres_url()))
        .await
        .expect("a pool");

    let mut held = (Vec::new(), Vec::new());
    for _ in 0..SIZE {
        let mut connections = (
            ours.get().await.expect("one"),
            stock.get().await.expect("one"),
        );
        connections.0.batch_execute("").await.expect("an answer");
        connections.1.batch_execute("").await.expect("an answer");
        held.0.push(connections.0);
        held.1.push(connections.1);
    }
    drop(held);

    let get_ours = || drop(ours.get().now_or_never().expect("at once").expect("one"));
    let get_stock = || drop(stock.get().now_or_never().expect("at once").expect("one"));
    let before = neon.counters();
    let allocations = [
        allocation_counter::measure(get_ours).count_total,
        allocation_counter::measure(get_stock).count_total,
    ];
    let sent = (neon.counters() - before).direct.bytes_in;
    println!("get + drop, ours and stock: {allocations:?} allocations; ours sends {sent} bytes");

    let mut alone = Rounds::default();
    for _ in 0..ROUNDS {
        let ours = per_call(CALLS, || (0..CALLS).for_each(|_| get_ours()));
        let stock = per_call(CALLS, || (0..CALLS).for_each(|_| get_stock()));
        alone.push(ours, stock);
    }
    alone.print("one task");

    let (ours, stock) = (Arc::new(ours), Arc::new(stock));
    let use_ours = |pool: Arc<Pool>| async move {
        let _connection = pool.get().await.expect("a connection");
        yield_now().await;
    };
    let use_stock = |pool: Arc<Stock>| async move {
        let _connection = pool.get().await.expect("a connection");
        yield_now().await;
    };
    for (what, rounds, tasks, calls) in [
        ("64 tasks on 10 connections", ROUNDS, 64, CALLS_OF_EACH),
        ("10,000 tasks that wait for 10 connections", 20, 10_000, 1),
    ] {
        let mut crowd = Rounds::default();
        for _ in 0..rounds {
            let ours = per_call_of(tasks, calls, &ours, use_ours).await;
            let stock = per_call_of(tasks, calls, &stock, use_stock).await;
            crowd.push(ours, stock);
        }
        crowd.print(what);
        let waits = [
            waits(tasks, 50 * calls, &ours, use_ours).await,
            waits(tasks, 50 * calls, &stock, use_stock).await,
        ];
        let [ours, stock] =
            waits.map(|[median, longest]| format!("{median:.1?} and {longest:.1?}"));
        println!("  the median and the longest of them: {ours}; stock {stock}");
    }
}

/// Returns the median and the longest time that one use of the pool takes, by so many tasks.
async fn waits<P: Send + Sync + 'static, F: Future<Output = ()> + Send + 'static>(
    tasks: u32,
    calls: u32,
    pool: &Arc<P>,
    use_it: impl Fn(Arc<P>) -> F + Copy + Send + 'static,
) -> [Duration; 2] {
    let mut running = JoinSet::new();
    for _ in 0..tasks {
        let pool = Arc::clone(pool);
        running.spawn(async move {
            let mut times = Vec::new();
            for _ in 0..calls {
                let began = Instant::now();
                use_it(Arc::clone(&pool)).await;
                times.push(began.elapsed());
            }
            times
        });
    }
    let mut times = running.join_all().await.concat();
    times.sort();
    [times[times.len() / 2], times[times.len() - 1]]
}

/// Has so many tasks use the pool so often each, all at the same time.
async fn per_call_of<P: Send + Sync + 'static, F: Future<Output = ()> + Send + 'static>(
    tasks: u32,
    calls: u32,
    pool: &Arc<P>,
    use_it: impl Fn(Arc<P>) -> F + Copy + Send + 'static,
) -> Duration {
    let began = Instant::now();
    let mut running = JoinSet::new();
    for _ in 0..tasks {
        let pool = Arc::clone(pool);
        running.spawn(async move {
            for _ in 0..calls {
                use_it(Arc::clone(&pool)).await;
            }
        });
    }
    running.join_all().await;
    began.elapsed() / (tasks * calls)
}

fn per_call(calls: u32, work: impl FnOnce()) -> Duration {
    let began = Instant::now();
    work();
    began.elapsed() / calls
}

/// The times of a call, ours and stock.
#[derive(Default)]
struct Rounds(Vec<(Duration, Duration)>);

impl Rounds {
    fn push(&mut self, ours: Duration, stock: Duration) {
        self.0.push((ours, stock));
    }

    fn print(&self, what: &str) {
        let nanos = |time: Duration| time.as_secs_f64() * 1e9;
        let ours = median(self.0.iter().map(|round| nanos(round.0)));
        let stock = median(self.0.iter().map(|round| nanos(round.1)));
        let ratio = median(self.0.iter().map(|round| nanos(round.0) / nanos(round.1)));
        println!("{what}: {ours:.0} ns, stock {stock:.0} ns, ratio {ratio:.2}");
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

const SIZE: u32 = 10;
/// So long a caller waits; nobody needs it.
const PATIENCE: Duration = Duration::from_secs(100);
const ROUNDS: usize = 300;
const CALLS: u32 = 2000;
const CALLS_OF_EACH: u32 = 20;
