//! A pool in a program with several tokio runtimes, some of which end, such as one for each test.

mod common;

use std::time::Duration;

use diesel_async::SimpleAsyncConnection;
use diesel_neon::{DatabaseErrorExt, Pool};
use neon_sim::NeonSim;
use tokio::runtime::{Builder, Runtime};
use tokio::time::{sleep, timeout};

use common::{HANG, neon, pool};

fn start() -> (Runtime, NeonSim) {
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let neon = runtime.block_on(neon());
    (runtime, neon)
}

/// Returns a runtime that runs its tasks only inside of `block_on`.
fn single() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

async fn select(pool: &Pool) {
    let connection = timeout(HANG, pool.get()).await.unwrap();
    connection.unwrap().batch_execute("SELECT 1").await.unwrap();
}

#[test]
fn a_connect_that_ends_with_its_runtime_takes_no_place_for_ever() {
    let (_runtime, neon) = start();
    for size in [1, 3] {
        for patience in [Duration::ZERO, Duration::from_millis(200)] {
            let first = single();
            let pool = first.block_on(async { pool(&neon.url(), |p| p.max_size(size)) });
            let other = single();
            other.block_on(select(&pool));
            // The connect runs on the runtime that the pool was built on, and on another one.
            for runtime in [single(), first] {
                pool.invalidate_all();
                neon.hang_connections(1);
                let given_up = runtime.block_on(async { timeout(patience, pool.get()).await });
                assert!(given_up.is_err(), "it did not hang");
                drop(runtime);
                neon.clear_faults();
                other.block_on(select(&pool));
            }
            other.block_on(pool.close(HANG)).unwrap();
        }
    }
}

#[test]
fn a_caller_that_waits_for_a_connect_that_ends_with_its_runtime_is_served() {
    let (runtime, neon) = start();
    let first = single();
    let pool = first.block_on(async { pool(&neon.url(), |p| p.max_size(2)) });
    neon.hang_connections(1);
    let given_up = first.block_on(async { timeout(Duration::from_millis(200), pool.get()).await });
    assert!(given_up.is_err(), "it did not hang");
    let waiter = runtime.spawn({
        let pool = pool.clone();
        async move { select(&pool).await }
    });
    // The caller waits for the connect that is under way.
    std::thread::sleep(Duration::from_millis(200));
    assert!(!waiter.is_finished());
    drop(first);
    runtime.block_on(waiter).unwrap();
}

/// Polls a future once.
fn poll_once<F: Future + Unpin>(runtime: &Runtime, future: &mut F) {
    let once = runtime.block_on(async { futures_util::poll!(future).is_ready() });
    assert!(!once, "it waits");
}

#[test]
fn a_runtime_that_does_not_run_starves_no_other() {
    let (runtime, neon) = start();
    let stalled = |fill: bool| {
        let first = single();
        let pool = runtime.block_on(async {
            pool(&neon.url(), |policy| {
                policy
                    .max_size(2)
                    .max_connecting(2)
                    .validation_bypass(Duration::ZERO)
                    .validation_timeout(Duration::from_millis(500))
                    .connect_timeout(Duration::from_secs(2))
                    .checkout_timeout(HANG / 4)
            })
        });
        if fill {
            let both = async { (pool.get().await.unwrap(), pool.get().await.unwrap()) };
            drop(runtime.block_on(both));
        }
        (first, pool)
    };
    for fill in [false, true] {
        // The connects, or the checks, are tasks of a runtime that is left alone then.
        let (first, pool) = stalled(fill);
        let mut callers = [Box::pin(pool.get_owned()), Box::pin(pool.get_owned())];
        for caller in &mut callers {
            poll_once(&first, caller);
        }
        // The first may have ended while the second began.
        assert!(pool.status().connecting + pool.status().checking > 0);
        drop(callers);
        runtime.block_on(select(&pool));
        // They go on as if nothing had been.
        first.block_on(async {
            select(&pool).await;
            pool.close(HANG).await.unwrap();
        });
    }

    // A caller does not take the connection that it is given.
    let (first, pool) = stalled(true);
    let held = runtime.block_on(async { (pool.get().await.unwrap(), pool.get_owned().await) });
    let mut caller = Box::pin(pool.get_owned());
    poll_once(&first, &mut caller);
    let waiting = runtime.spawn({
        let pool = pool.clone();
        async move { select(&pool).await }
    });
    while pool.status().waiting < 2 {
        std::thread::yield_now();
    }
    drop(held.0);
    runtime.block_on(waiting).unwrap();
    drop(held.1);
    drop(first.block_on(caller).unwrap());
}

#[test]
fn a_pipelined_login_on_a_runtime_that_does_not_run_keeps_no_other_from_connecting() {
    let (runtime, neon) = start();
    let url = format!("{}&pipeline_login=true", neon.url());
    let pool = runtime.block_on(async {
        pool(&url, |policy| {
            policy
                .max_size(2)
                .max_connecting(1)
                .connect_timeout(Duration::from_secs(3))
                .checkout_timeout(HANG / 4)
        })
    });
    // The connection is handed out before the answer to its login, for which its runtime is not run.
    neon.set_latency(Duration::from_millis(100));
    let first = single();
    let held = first.block_on(pool.get_owned()).unwrap();
    neon.set_latency(Duration::ZERO);
    runtime.block_on(select(&pool));
    drop(held);
}

#[test]
fn idle_connections_are_still_closed_when_the_first_runtime_has_ended() {
    let (runtime, neon) = start();
    let first = single();
    let pool = first.block_on(async {
        let idle = Duration::from_millis(100);
        pool(&neon.url(), |policy| policy.idle_timeout(idle))
    });
    drop(first);
    runtime.block_on(async {
        select(&pool).await;
        assert_eq!(pool.status().connects.opened, 1);
        let closed = async {
            while pool.status().size > 0 {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(HANG, closed).await.unwrap();
        select(&pool).await;
        pool.close(HANG).await.unwrap();
    });
}

#[test]
fn idle_connections_are_still_closed_when_the_first_runtime_does_not_run() {
    let (runtime, neon) = start();
    let first = single();
    let pool = first.block_on(async {
        let idle = Duration::from_millis(100);
        let pool = pool(&neon.url(), |policy| policy.idle_timeout(idle));
        select(&pool).await;
        pool
    });
    // Longer than a loaded runtime is late.
    std::thread::sleep(Duration::from_secs(2));
    runtime.block_on(async {
        pool.invalidate_all();
        select(&pool).await;
        let closed = async {
            while pool.status().size > 0 {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(HANG, closed).await.unwrap();
    });
    drop(first);
    runtime.block_on(async {
        select(&pool).await;
        pool.close(HANG).await.unwrap();
    });
}

#[test]
fn connections_of_a_runtime_that_has_ended_are_not_handed_out() {
    let (_runtime, neon) = start();
    let (first, second) = (single(), single());
    let pool = first.block_on(async { pool(&neon.url(), |policy| policy) });
    let held = first.block_on(async {
        select(&pool).await;
        pool.get_owned().await.unwrap()
    });
    drop(first);
    second.block_on(async {
        for _ in 0..3 {
            select(&pool).await;
        }
        drop(held);
        select(&pool).await;
        pool.close(HANG).await.unwrap();
    });
}

#[test]
fn a_runtime_that_ends_leaves_no_task_of_its_pool_on_another_one() {
    let (_runtime, neon) = start();
    let lasting = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let pool = lasting.block_on(async {
        pool(&neon.url(), |policy| {
            policy
                .idle_timeout(Duration::from_millis(400))
                // A watcher that is not needed any more would stay for as long as a quarter of this.
                .leak_detection_threshold(Duration::from_secs(4 * 60 * 60))
        })
    });
    lasting.block_on(select(&pool));
    let tasks = || lasting.metrics().num_alive_tasks();
    let before = tasks();
    for _ in 0..8 {
        let passing = single();
        pool.invalidate_all();
        passing.block_on(select(&pool));
        drop(passing);
        lasting.block_on(select(&pool));
    }
    let settled = async {
        while tasks() > before {
            sleep(Duration::from_millis(5)).await;
        }
    };
    let settled = lasting.block_on(async { timeout(HANG / 4, settled).await });
    assert!(settled.is_ok(), "{} tasks, not {before}", tasks());
}

#[test]
fn a_response_timeout_needs_no_runtime_around_the_statement() {
    struct Unpark(std::thread::Thread);

    impl std::task::Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }

    /// Runs a future on an executor that is none of tokio's.
    fn block_on<F: Future>(future: F) -> F::Output {
        let waker = std::sync::Arc::new(Unpark(std::thread::current())).into();
        let mut cx = std::task::Context::from_waker(&waker);
        let mut future = std::pin::pin!(future);
        loop {
            if let std::task::Poll::Ready(output) = future.as_mut().poll(&mut cx) {
                return output;
            }
            std::thread::park();
        }
    }

    let (runtime, neon) = start();
    let limit = Duration::from_secs(4);
    let _entered = runtime.enter();
    let pool = pool(&neon.url(), |policy| policy.response_timeout(limit));
    let mut connection = runtime.block_on(pool.get()).unwrap();
    let ran = std::thread::scope(|scope| {
        let work = || {
            block_on(connection.batch_execute("SELECT pg_sleep(0.05)")).unwrap();
            block_on(connection.batch_execute("SELECT pg_sleep(600)"))
        };
        scope.spawn(work).join().unwrap()
    });
    assert!(ran.unwrap_err().is_response_timeout());
}
