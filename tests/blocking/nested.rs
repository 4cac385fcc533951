//! Calls from plain threads, and from inside of runtimes.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::Integer;
use diesel_neon::PoolError;
use diesel_neon::blocking::{PgConnection, Pool, block_on};
use tokio::runtime::{Builder, Runtime};

use super::common::{HANG, users};
use super::{pool, start};

fn one(conn: &mut PgConnection) -> i32 {
    let one = diesel::select(1.into_sql::<Integer>());
    one.get_result(conn).unwrap()
}

fn runtimes() -> [(&'static str, Runtime); 2] {
    let single = Builder::new_current_thread().enable_all().build();
    let multi = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    [("single", single.unwrap()), ("multi", multi.unwrap())]
}

#[test]
fn many_threads_share_a_small_pool() {
    let sim = start();
    let pool = pool(&sim.pooled_url(), |policy| {
        policy.max_size(10).checkout_timeout(HANG)
    });
    let most = AtomicU32::new(0);
    thread::scope(|scope| {
        for thread in 0..64 {
            let (pool, most) = (&pool, &most);
            scope.spawn(move || {
                for i in 0..5 {
                    let user = users::name.eq(format!("{thread} {i}"));
                    pool.transaction(|conn| {
                        most.fetch_max(pool.status().in_use, Ordering::Relaxed);
                        diesel::insert_into(users::table)
                            .values(user)
                            .execute(conn)?;
                        Ok::<_, diesel_neon::RetryError>(())
                    })
                    .unwrap();
                }
            });
        }
    });
    assert_eq!(
        sim.sql("SELECT count(*) FROM users").as_deref(),
        Some("320")
    );
    assert!(most.into_inner() <= 10);
    let status = pool.status();
    assert_eq!((status.in_use, status.waiting), (0, 0), "{status}");
}

/// A task has a budget of 128 operations between two awaits, and nothing here awaits.
#[test]
fn the_worker_of_a_runtime_may_block() {
    let sim = start();
    for (flavour, runtime) in runtimes() {
        let pool = pool(&sim.url(), |policy| policy);
        let work = {
            let pool = pool.clone();
            async move {
                for _ in 0..300 {
                    assert_eq!(one(&mut pool.get().unwrap()), 1);
                }
                pool.transaction(|conn| Ok::<_, diesel_neon::RetryError>(one(conn)))
            }
        };
        let one = runtime.block_on(async { tokio::spawn(work).await.unwrap() });
        assert_eq!(one.unwrap(), 1, "{flavour}");

        // In the future of `block_on` itself.
        runtime.block_on(async { one_of(&pool) });
        // Beside async work, as servers do it.
        let blocking = |pool: Pool| tokio::task::spawn_blocking(move || one_of(&pool));
        let all = runtime.block_on(async {
            let all = (0..32).map(|_| blocking(pool.clone()));
            futures_util::future::try_join_all(all.collect::<Vec<_>>()).await
        });
        assert_eq!(all.unwrap(), vec![1; 32], "{flavour}");
        pool.close(HANG).unwrap();
    }
}

fn one_of(pool: &Pool) -> i32 {
    one(&mut pool.get().unwrap())
}

#[test]
fn runtimes_come_and_go_around_one_pool() {
    let sim = start();
    let pool = pool(&sim.url(), |policy| policy.max_size(1));
    let mut held = None;
    for _ in 0..3 {
        for (flavour, runtime) in runtimes() {
            runtime.block_on(async {
                drop(held.take());
                let mut conn = pool.get().unwrap();
                assert_eq!(one(&mut conn), 1, "{flavour}");
                held = Some(conn);
            });
            // The connection outlives the runtime that it was got in.
        }
    }
    assert_eq!(one(&mut held.unwrap()), 1);
    let status = pool.status();
    assert_eq!((status.connects.opened, status.idle), (1, 1), "{status}");
}

#[test]
fn whoever_holds_a_connection_and_waits_for_another_is_told() {
    let sim = start();
    for (_, runtime) in runtimes() {
        let pool = pool(&sim.url(), |policy| policy.max_size(1));
        runtime.block_on(async {
            let _held = pool.get().unwrap();
            let error = pool.get_timeout(Duration::from_millis(300)).map(drop);
            let error = error.unwrap_err();
            assert!(matches!(error, PoolError::Exhausted { .. }), "{error}");
        });
    }
}

/// The hooks and the instrumentation of a pool run on the runtime's own worker.
#[test]
fn a_hook_may_call_a_blocking_pool() {
    let sim = start();
    let audit = pool(&sim.url(), |policy| policy);
    let calls = Arc::new(AtomicU32::new(0));
    let call = {
        let (audit, calls) = (audit.clone(), Arc::clone(&calls));
        move || {
            assert_eq!(one(&mut audit.get().unwrap()), 1);
            calls.fetch_add(1, Ordering::Relaxed);
        }
    };
    let (connect, acquire, release, instrument) = (call.clone(), call.clone(), call.clone(), call);
    let pool = Pool::builder(sim.url().as_str())
        .max_size(1)
        .after_connect(move |_, _| {
            connect();
            Box::pin(async { Ok(()) })
        })
        .before_acquire(move |_, _| {
            acquire();
            Box::pin(async { Ok(true) })
        })
        .after_release(move |_, _| {
            release();
            Box::pin(async { Ok(true) })
        })
        .instrumentation(move || {
            instrument();
            |_: diesel::connection::InstrumentationEvent<'_>| {}
        })
        .build_blocking()
        .unwrap();
    for _ in 0..2 {
        assert_eq!(one_of(&pool), 1);
    }
    pool.close(HANG).unwrap();
    // Each once, but two releases.
    assert_eq!(calls.load(Ordering::Relaxed), 5);
}

#[test]
fn a_thread_may_end_with_a_connection() {
    thread_local! {
        static KEPT: RefCell<Option<PgConnection>> = const { RefCell::new(None) };
    }
    let sim = start();
    let pool = pool(&sim.url(), |policy| policy.max_size(1));
    // What a thread has used last ends first: the connection, or tokio's context.
    for tokio_first in [true, false] {
        let ended = thread::scope(|scope| {
            let keep = || {
                if !tokio_first {
                    KEPT.set(None);
                }
                let mut conn = pool.get().unwrap();
                conn.batch_execute("SELECT 1").unwrap();
                KEPT.set(Some(conn));
            };
            scope.spawn(keep).join()
        });
        ended.unwrap();
        assert_eq!(one_of(&pool), 1);
    }
    assert_eq!(pool.status().connects.opened, 1);
}

/// The threads of the module's own runtime are a hook's, too.
#[test]
fn a_call_may_stand_in_a_runtime_within_a_runtime() {
    use tokio::task::{LocalSet, spawn_blocking};

    type Nest = (&'static str, fn(Pool) -> i32);
    fn single(pool: &Pool) -> i32 {
        let single = Builder::new_current_thread().enable_all().build().unwrap();
        single.block_on(async { one_of(pool) })
    }
    let nests: [Nest; 6] = [
        ("plain", |pool| one_of(&pool)),
        ("current-thread", |pool| single(&pool)),
        ("a call within a call", |pool| {
            let single = Builder::new_current_thread().build().unwrap();
            let outer = async { block_on(async { one_of(&pool) }).unwrap() };
            single.block_on(outer)
        }),
        ("multi-thread", |pool| {
            let multi = Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build();
            let multi = multi.unwrap();
            let spawned = async move { tokio::spawn(async move { one_of(&pool) }).await };
            multi.block_on(spawned).unwrap()
        }),
        ("LocalSet", |pool| {
            let single = Builder::new_current_thread().build().unwrap();
            let local = LocalSet::new();
            let one = local.spawn_local(async move { one_of(&pool) });
            single.block_on(local.run_until(one)).unwrap()
        }),
        ("entered", |pool| {
            let multi = Builder::new_multi_thread().worker_threads(1).build();
            let multi = multi.unwrap();
            let entered = multi.enter();
            let one = one_of(&pool);
            drop(entered);
            multi.shutdown_background();
            one
        }),
    ];
    let sim = start();
    for (nest, call) in nests {
        let pool = pool(&sim.url(), |policy| {
            policy.max_size(1).checkout_timeout(HANG)
        });
        let (from_thread, from_worker) = (pool.clone(), pool.clone());
        assert_eq!(thread::spawn(move || call(from_thread)).join().unwrap(), 1);
        let on_foreign = |runtime: &Runtime| {
            let pool = pool.clone();
            runtime.block_on(async { spawn_blocking(move || call(pool)).await })
        };
        for (flavour, runtime) in runtimes() {
            assert_eq!(on_foreign(&runtime).unwrap(), 1, "{nest} in {flavour}");
        }
        // On a thread of the module's own, as in a hook.
        let own = block_on(async { spawn_blocking(move || call(from_worker)).await });
        assert_eq!(own.unwrap().unwrap(), 1, "{nest} on a thread of its own");
        if matches!(nest, "plain" | "entered") {
            let own = block_on(async { tokio::spawn(async move { call(pool) }).await });
            assert_eq!(own.unwrap().unwrap(), 1, "{nest} on its worker");
        }
    }
}
