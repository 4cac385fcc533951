//! What an application has done with the connections of a pool: hooks, instrumentation, and a connection of its own.

mod common;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use diesel::connection::{Instrumentation, InstrumentationEvent};
use diesel::dsl::sql;
use diesel::result::Error;
use diesel::sql_types::Text;
use diesel_async::{AsyncConnection, RunQueryDsl, SimpleAsyncConnection};
use diesel_neon::{
    BuildError, Connection, ConnectionMetadata, DatabaseUrl, Pool, PoolBuilder, PoolError,
};
use futures_util::{FutureExt, StreamExt};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use common::{HANG, backend, neon};

/// Has room for one connection, so that a place that leaks is noticed.
fn one(url: &str) -> PoolBuilder {
    let pool = Pool::builder(url).max_size(1).never_suspends();
    pool.validation_bypass(HANG)
}

async fn setting(connection: &mut Connection, name: &str) -> String {
    let value = diesel::select(sql::<Text>(&format!("current_setting('{name}', true)")));
    value.get_result(connection).await.unwrap()
}

async fn refused(pool: &Pool) -> String {
    let got = timeout(HANG, pool.get()).await.unwrap();
    let PoolError::Connect(error) = got.map(drop).unwrap_err() else {
        panic!("another error");
    };
    error.reason()
}

/// Waits until nothing is under way, and returns how many connections there are.
async fn calm(pool: &Pool) -> u32 {
    calm_but(pool, 0).await
}

/// As [`calm`], while so many are held.
async fn calm_but(pool: &Pool, held: u32) -> u32 {
    let calm = async {
        loop {
            let status = pool.status();
            if status.checking + status.settling + status.connecting + status.in_use == held {
                break status.size;
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    let size = timeout(HANG, calm).await;
    size.unwrap_or_else(|_| panic!("{}", pool.status()))
}

#[tokio::test]
async fn after_connect_runs_once_on_each_new_connection() {
    let neon = neon().await;
    let runs = Arc::new(Mutex::new(Vec::new()));
    let (told, tenant) = (Arc::clone(&runs), String::from("a tenant"));
    for url in [neon.url(), neon.postgres_url()] {
        let (told, tenant) = (Arc::clone(&told), tenant.clone());
        let pool = one(&url)
            .after_connect(move |connection, metadata| {
                told.lock().unwrap().push(metadata);
                let tenant = tenant.clone();
                Box::pin(async move {
                    let set = format!("SET app.tenant = '{tenant}'");
                    connection.batch_execute(&set).await
                })
            })
            .build()
            .unwrap();
        for _ in 0..3 {
            let mut connection = timeout(HANG, pool.get()).await.unwrap().unwrap();
            assert_eq!(setting(&mut connection, "app.tenant").await, "a tenant");
        }
        let mut runs = runs.lock().unwrap();
        assert_eq!(
            runs.drain(..).collect::<Vec<_>>(),
            [ConnectionMetadata::default()]
        );
    }
}

#[tokio::test]
async fn a_failure_of_after_connect_is_that_of_the_connect() {
    let neon = neon().await;
    let broken = one(&neon.url())
        .after_connect(|connection, _| Box::pin(connection.batch_execute("SET nonsense = 1")))
        .build()
        .unwrap();
    let reason = refused(&broken).await;
    assert!(reason.starts_with("after_connect failed: "), "{reason}");
    assert!(reason.contains("nonsense"), "{reason}");

    let panicking = one(&neon.url())
        .after_connect(|_, _| Box::pin(async { panic!("a fault of the application's") }))
        .build()
        .unwrap();
    assert_eq!(refused(&panicking).await, "after_connect panicked");
    assert_eq!(panicking.status().connects.failed, 1);

    let open = one(&neon.url())
        .after_connect(|connection, _| Box::pin(connection.batch_execute("BEGIN")))
        .build()
        .unwrap();
    assert_eq!(
        refused(&open).await,
        "after_connect left a transaction open"
    );

    let hangs = Arc::new(AtomicBool::new(true));
    let hanging = one(&neon.url())
        .connect_timeout(Duration::from_secs(4))
        .checkout_timeout(HANG)
        .after_connect({
            let hangs = Arc::clone(&hangs);
            move |_, _| match AtomicBool::load(&hangs, Ordering::Relaxed) {
                true => std::future::pending().boxed(),
                false => async { Ok(()) }.boxed(),
            }
        })
        .build()
        .unwrap();
    let waiting = tokio::spawn({
        let pool = hanging.clone();
        async move { pool.get_owned().await.map(drop) }
    });
    let failed = async {
        while hanging.status().connects.failed == 0 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(HANG, failed).await.unwrap();
    hangs.store(false, Ordering::Relaxed);
    timeout(HANG, waiting).await.unwrap().unwrap().unwrap();
    for pool in [broken, panicking, open, hanging] {
        pool.close(HANG).await.unwrap();
        assert_eq!(pool.status().size, 0);
    }
}

#[tokio::test]
async fn after_connect_is_refused_where_a_session_keeps_nothing() {
    let neon = neon().await;
    let runs = Arc::new(AtomicU32::new(0));
    let with_hook = |url: &str| {
        let runs = Arc::clone(&runs);
        let pool = one(url).after_connect(move |_, _| {
            runs.fetch_add(1, Ordering::Relaxed);
            async { Ok(()) }.boxed()
        });
        pool.build()
    };
    let by_name = with_hook(&neon.pooled_url()).map(drop);
    assert!(matches!(by_name, Err(BuildError::AfterConnectBehindPooler)));
    // The host's name does not tell.
    let by_probe = with_hook(&neon.pgbouncer_url()).unwrap();
    let reason = refused(&by_probe).await;
    assert!(reason.contains("ALTER ROLE"), "{reason}");
    assert_eq!(AtomicU32::load(&runs, Ordering::Relaxed), 0);
}

#[tokio::test]
async fn all_checkouts_may_share_a_transaction_that_is_never_committed() {
    let neon = neon().await;
    neon.sql("CREATE TABLE drafts (n INTEGER); GRANT ALL ON drafts TO PUBLIC")
        .await
        .unwrap();
    let pool = one(&neon.url())
        .after_connect(|connection, _| Box::pin(connection.begin_test_transaction()))
        .build()
        .unwrap();
    for n in 0..3 {
        let mut connection = timeout(HANG, pool.get()).await.unwrap().unwrap();
        let insert = diesel::sql_query("INSERT INTO drafts VALUES (1)");
        insert.execute(&mut connection).await.unwrap();
        let count = diesel::select(sql::<Text>("(SELECT count(*) FROM drafts)::text"));
        let count: String = count.get_result(&mut connection).await.unwrap();
        assert_eq!(count, (n + 1).to_string());
    }
    pool.close(HANG).await.unwrap();
    let left = neon.sql("SELECT count(*) FROM drafts").await.unwrap();
    assert_eq!(left[0], [Some("0".to_owned())]);
}

/// What a hook is to do at its next run.
type Next = Arc<Mutex<Vec<Act>>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Refuse,
    Fail,
    Panic,
    Begin,
    Hang,
    Leave,
}

async fn act(connection: &mut Connection, act: Option<Act>) -> Result<bool, Error> {
    match act {
        None => Ok(true),
        Some(Act::Refuse) => Ok(false),
        Some(Act::Fail) => connection
            .batch_execute("SELECT nothing")
            .await
            .map(|()| true),
        Some(Act::Panic) => panic!("a fault of the application's"),
        Some(Act::Begin) => connection.batch_execute("BEGIN").await.map(|()| true),
        Some(Act::Hang) => {
            let sleep = connection.batch_execute("SELECT pg_sleep(600)");
            sleep.await.map(|()| true)
        }
        Some(Act::Leave) => {
            let sleep = connection.batch_execute("SELECT pg_sleep(0.3)");
            let left = timeout(Duration::from_millis(20), sleep).await;
            Ok(left.is_err())
        }
    }
}

fn next(acts: &Next) -> Option<Act> {
    acts.lock().unwrap().pop()
}

#[tokio::test]
async fn before_acquire_decides_what_is_handed_out_again() {
    let neon = neon().await;
    for url in [neon.url(), neon.pooled_url()] {
        let (acts, told) = (Next::default(), Arc::new(Mutex::new(Vec::new())));
        let pool = one(&url)
            .before_acquire({
                let (acts, told) = (Arc::clone(&acts), Arc::clone(&told));
                move |connection, metadata| {
                    told.lock().unwrap().push(metadata);
                    Box::pin(act(connection, next(&acts)))
                }
            })
            .build()
            .unwrap();
        let get = async || timeout(HANG, pool.get()).await.unwrap();
        // A new connection is handed out without it.
        drop(get().await.unwrap());
        assert_eq!(told.lock().unwrap().len(), 0);
        sleep(Duration::from_millis(20)).await;
        drop(get().await.unwrap());
        let first = told.lock().unwrap().pop().unwrap();
        assert!(first.idle_for >= Duration::from_millis(20), "{first:?}");
        assert!(first.age >= first.idle_for && first.uses == 1, "{first:?}");
        drop(get().await.unwrap());
        assert_eq!(told.lock().unwrap().pop().unwrap().uses, 2);
        assert_eq!(pool.status().connects.opened, 1);

        for (refusals, closes) in [(Act::Refuse, true), (Act::Fail, true), (Act::Begin, true)] {
            let before = pool.status();
            acts.lock().unwrap().push(refusals);
            drop(get().await.unwrap());
            let after = pool.status();
            let opened = after.connects.opened - before.connects.opened;
            assert_eq!(opened, u64::from(closes), "{refusals:?}");
            let closed =
                |status: &diesel_neon::Status| status.closed.by_hook + status.closed.in_transaction;
            assert_eq!(closed(&after), closed(&before) + 1, "{refusals:?}");
            drop(get().await.unwrap());
        }
        assert_eq!(pool.status().closed.by_hook, 2);

        // What it leaves unfinished is finished first.
        acts.lock().unwrap().push(Act::Leave);
        let mut connection = get().await.unwrap();
        connection.batch_execute("SELECT 1").await.unwrap();
        drop(connection);

        // Its panic is the caller's.
        acts.lock().unwrap().push(Act::Panic);
        let panicked = tokio::spawn({
            let pool = pool.clone();
            async move { pool.get_owned().await.map(drop) }
        });
        assert!(panicked.await.unwrap_err().is_panic());
        assert_eq!((calm(&pool).await, pool.status().closed.by_hook), (0, 3));
        drop(get().await.unwrap());

        // The caller's time is over, or it goes away: the connection is as one that was held.
        let hang = || acts.lock().unwrap().push(Act::Hang);
        hang();
        let late = pool.get_timeout(Duration::from_millis(100)).await;
        let late = late.map(drop).unwrap_err();
        assert!(matches!(late, PoolError::Validating { .. }), "{late}");
        drop(get().await.unwrap());
        hang();
        let gone = timeout(Duration::from_millis(100), pool.get()).await;
        assert!(gone.is_err());
        drop(get().await.unwrap());
        assert_eq!(pool.status().closed.by_hook, 3);

        // It sends nothing without asking.
        assert!(pool.try_get().is_none());
        assert_eq!(calm(&pool).await, 1);
        pool.close(HANG).await.unwrap();
    }
}

#[tokio::test]
async fn a_caller_that_goes_away_in_before_acquire_costs_no_connection() {
    let neon = neon().await;
    let waits = Arc::new(AtomicBool::new(true));
    let answered = Arc::new(Notify::new());
    let pool = one(&neon.url())
        .before_acquire({
            let (waits, answered) = (Arc::clone(&waits), Arc::clone(&answered));
            move |connection, _| {
                let waits = AtomicBool::load(&waits, Ordering::Relaxed);
                let answered = Arc::clone(&answered);
                async move {
                    connection.batch_execute("SELECT 1").await?;
                    answered.notify_one();
                    match waits {
                        true => std::future::pending().await,
                        false => Ok(true),
                    }
                }
                .boxed()
            }
        })
        .build()
        .unwrap();
    let mut first = timeout(HANG, pool.get()).await.unwrap().unwrap();
    let pid = backend(&mut first).await;
    drop(first);
    for _ in 0..5 {
        tokio::select! {
            _ = pool.get() => panic!("the hook never ends"),
            () = answered.notified() => {}
        }
    }
    waits.store(false, Ordering::Relaxed);
    let mut again = timeout(HANG, pool.get()).await.unwrap().unwrap();
    assert_eq!(backend(&mut again).await, pid);
}

#[tokio::test]
async fn after_release_decides_what_is_kept() {
    let neon = neon().await;
    for url in [neon.url(), neon.pooled_url()] {
        let (acts, told) = (Next::default(), Arc::new(Mutex::new(Vec::new())));
        let pool = one(&url)
            .validation_timeout(Duration::from_millis(700))
            .after_release({
                let (acts, told) = (Arc::clone(&acts), Arc::clone(&told));
                move |connection, metadata| {
                    told.lock().unwrap().push(metadata);
                    Box::pin(act(connection, next(&acts)))
                }
            })
            .build()
            .unwrap();
        let get = async || timeout(HANG, pool.get()).await.unwrap().unwrap();
        for uses in 1..4 {
            drop(get().await);
            assert_eq!(calm(&pool).await, 1);
            let told = told.lock().unwrap().pop().unwrap();
            assert_eq!((told.uses, told.idle_for), (uses, Duration::ZERO));
        }
        for (n, refusal) in [Act::Refuse, Act::Fail, Act::Hang, Act::Panic, Act::Begin]
            .into_iter()
            .enumerate()
        {
            let connection = get().await;
            acts.lock().unwrap().push(refusal);
            drop(connection);
            // The next caller waits for its end, and gets another.
            drop(get().await);
            assert_eq!(calm(&pool).await, 1, "{refusal:?}");
            let closed = pool.status().closed;
            let all = closed.by_hook + closed.in_transaction;
            assert_eq!(all, n as u64 + 1, "{refusal:?}: {closed:?}");
            assert_eq!(pool.status().connects.opened, n as u64 + 2);
        }
        assert_eq!(pool.status().closed.in_transaction, 1);
        // It does not see what the pool closes anyway.
        let mut connection = get().await;
        connection.batch_execute("BEGIN").await.unwrap();
        told.lock().unwrap().clear();
        drop(connection);
        assert_eq!((calm(&pool).await, told.lock().unwrap().len()), (0, 0));
        pool.close(HANG).await.unwrap();
    }
}

#[tokio::test]
async fn after_release_is_no_answer_of_the_server() {
    let neon = neon().await;
    let pool = one(&neon.url())
        .validation_bypass(Duration::from_millis(50))
        .after_release(|_, _| std::future::ready(Ok(true)).boxed())
        .build()
        .unwrap();
    let mut held = timeout(HANG, pool.get()).await.unwrap().unwrap();
    held.batch_execute("SELECT 1").await.unwrap();
    sleep(Duration::from_millis(100)).await;
    let mut next = Box::pin(pool.get());
    assert!(next.as_mut().now_or_never().is_none());
    drop(held);
    drop(timeout(HANG, next).await.unwrap().unwrap());
    assert_eq!(pool.status().checks.passed, 1, "{}", pool.status());
}

#[tokio::test]
async fn a_caller_whose_connection_is_refused_takes_another_that_idles() {
    let neon = neon().await;
    let (acts, is_slow) = (Next::default(), Arc::new(AtomicBool::new(false)));
    let pool = one(&neon.url())
        .max_size(3)
        .before_acquire({
            let acts = Arc::clone(&acts);
            move |connection, _| Box::pin(act(connection, next(&acts)))
        })
        .after_release({
            let is_slow = Arc::clone(&is_slow);
            move |_, _| {
                let is_slow = AtomicBool::load(&is_slow, Ordering::Relaxed);
                async move {
                    if is_slow {
                        std::future::pending::<()>().await;
                    }
                    Ok(true)
                }
                .boxed()
            }
        })
        .build()
        .unwrap();
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(timeout(HANG, pool.get()).await.unwrap().unwrap());
    }
    let last = held.pop();
    drop(held);
    assert_eq!(calm_but(&pool, 1).await, 3);
    is_slow.store(true, Ordering::Relaxed);
    drop(last);
    acts.lock().unwrap().push(Act::Refuse);
    // One is in the hook, one is refused, one idles.
    let got = pool.get().now_or_never();
    drop(got.expect("at once").unwrap());
    assert_eq!(pool.status().closed.by_hook, 1);
}

#[tokio::test]
async fn a_hook_that_runs_as_the_pool_is_closed_leaves_nothing_open() {
    let neon = neon().await;
    let pool = one(&neon.url())
        .after_release(|_, _| std::future::pending().boxed())
        .build()
        .unwrap();
    drop(timeout(HANG, pool.get()).await.unwrap().unwrap());
    pool.close(HANG).await.unwrap();
    assert_eq!(pool.status().size, 0);
}

/// Keeps what it is told, and how many there are.
struct Recorder {
    number: u32,
    events: Arc<Mutex<Vec<(u32, String)>>>,
}

impl Instrumentation for Recorder {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        let event = match event {
            InstrumentationEvent::StartEstablishConnection { url, .. } => {
                assert!(!url.contains("npg_"), "{url}");
                "connect".to_owned()
            }
            InstrumentationEvent::FinishEstablishConnection { error, .. } => match error {
                Some(error) => format!("failed: {error}"),
                None => "connected".to_owned(),
            },
            InstrumentationEvent::StartQuery { query, .. } => format!("{query}"),
            _ => return,
        };
        self.events.lock().unwrap().push((self.number, event));
    }
}

#[tokio::test]
async fn each_connection_has_an_instrumentation_of_its_own_from_its_connect_on() {
    let neon = neon().await;
    let events = Arc::new(Mutex::new(Vec::new()));
    let pool = Pool::builder(neon.url())
        .instrumentation({
            let (events, made) = (Arc::clone(&events), AtomicU32::new(0));
            move || Recorder {
                number: made.fetch_add(1, Ordering::Relaxed),
                events: Arc::clone(&events),
            }
        })
        .after_connect(|connection, _| Box::pin(connection.batch_execute("SET a.b = 1")))
        .build()
        .unwrap();
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut connection = timeout(HANG, pool.get()).await.unwrap().unwrap();
        connection.batch_execute("SELECT 1").await.unwrap();
        held.push(connection);
    }
    neon.refuse_connections(1, "password authentication failed for user 'neondb_owner'");
    let alone = timeout(HANG, pool.dedicated()).await.unwrap();
    alone.map(drop).unwrap_err();
    drop(timeout(HANG, pool.dedicated()).await.unwrap().unwrap());
    let events = std::mem::take(&mut *events.lock().unwrap());
    let of = |number| {
        let events = events.iter().filter(move |(n, _)| *n == number);
        events.map(|(_, event)| event.as_str()).collect::<Vec<_>>()
    };
    for connection in 0..2 {
        let expected = ["connect", "connected", "SET a.b = 1", "SELECT 1"];
        assert_eq!(of(connection), expected, "{events:?}");
    }
    let failed = of(2);
    assert_eq!(failed.len(), 2, "{events:?}");
    assert!(
        failed[1].contains("password authentication failed"),
        "{events:?}"
    );
    assert_eq!(of(3), ["connect", "connected"], "{events:?}");
}

/// Panics as it is made, as it is told that a connection is made, or that it has been made.
struct Faulty(&'static str);

impl Faulty {
    fn make(at: &'static str) -> Self {
        assert_ne!(at, "made", "a fault of the application's");
        Self(at)
    }
}

impl Instrumentation for Faulty {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        let at = match event {
            InstrumentationEvent::StartEstablishConnection { .. } => "connect",
            InstrumentationEvent::FinishEstablishConnection { .. } => "connected",
            _ => return,
        };
        assert_ne!(at, self.0, "a fault of the application's");
    }
}

#[tokio::test]
async fn an_instrumentation_that_panics_is_the_failure_of_the_connect() {
    let neon = neon().await;
    for at in ["made", "connect", "connected"] {
        let pool = one(&neon.url()).instrumentation(move || Faulty::make(at));
        let pool = pool.build().unwrap();
        let reason = refused(&pool).await;
        assert!(
            reason.contains("instrumentation panicked"),
            "{at}: {reason}"
        );
        assert_eq!(calm(&pool).await, 0, "{at}");
        assert!(pool.status().connects.failed <= 2, "{}", pool.status());
        let alone = timeout(HANG, pool.dedicated()).await.unwrap();
        alone.map(drop).unwrap_err();
    }
}

#[tokio::test]
async fn a_dedicated_connection_is_outside_of_the_pool_and_on_the_direct_endpoint() {
    let neon = neon().await;
    let pool = one(&neon.pooled_url()).build().unwrap();
    let _held = timeout(HANG, pool.get()).await.unwrap().unwrap();
    let mut listener = timeout(HANG, pool.dedicated()).await.unwrap().unwrap();
    listener.batch_execute("LISTEN jobs").await.unwrap();
    neon.sql("NOTIFY jobs, 'a job'").await.unwrap();
    {
        let mut jobs = std::pin::pin!(listener.notifications_stream().unwrap());
        let job = timeout(HANG, jobs.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(job.payload, "a job");
    }
    let status = pool.status();
    assert_eq!(
        (status.size, status.in_use, status.connects.opened),
        (1, 1, 1)
    );
    drop(_held);
    pool.close(HANG).await.unwrap();
    listener.batch_execute("SELECT 1").await.unwrap();
    let closed = pool.dedicated().await.map(drop);
    assert!(matches!(closed, Err(PoolError::Closed)));
}

#[tokio::test]
async fn a_dedicated_connection_needs_a_way_past_the_pooler() {
    let neon = neon().await;
    let pooled = neon.pgbouncer_url();
    let pool = one(&pooled).build().unwrap();
    let refused = timeout(HANG, pool.dedicated()).await.unwrap().map(drop);
    let Err(PoolError::NoDirectEndpoint { host }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(
        host,
        DatabaseUrl::parse(&pooled).unwrap().hosts()[0]
            .name
            .to_string()
    );
    for direct in [neon.postgres_url(), neon.pooled_url()] {
        let pool = one(&pooled).direct_url(direct).build().unwrap();
        let mut alone = timeout(HANG, pool.dedicated()).await.unwrap().unwrap();
        alone.batch_execute("LISTEN jobs").await.unwrap();
    }
    let wrong = one(&pooled).direct_url("postgresql://").build();
    assert!(matches!(wrong.map(drop), Err(BuildError::Url(_))));
}
