//! What happens while the answer to a login is under way.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use diesel_async::SimpleAsyncConnection;
use diesel_neon::{Closed, DatabaseErrorExt, PolicyBuilder, Pool, Status};
use futures_util::future::{join_all, poll_immediate};
use neon_sim::{NeonSim, WebSocketFault};
use tokio::time::{sleep, timeout};

use super::common::scripted::{self, complete, error, ready};
use super::common::{HANG, connect, pool, start};
use super::{add, count, get, over_443, pipelined};

/// The flight of a login over a WebSocket.
const LOGIN: u64 = 2;

/// Long enough for what is not to happen.
const A_MOMENT: Duration = Duration::from_millis(600);

async fn until_attempted(neon: &NeonSim, attempts: u64) {
    let attempted = async {
        while neon.counters().direct.attempts < attempts {
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(HANG, attempted).await.expect("no hang");
}

#[tokio::test]
async fn a_statement_that_was_given_up_is_not_sent_by_the_next_login() {
    let neon = start().await;
    neon.refuse_connections(1, "the database system is starting up");
    neon.hold_answers(LOGIN);
    let pool = pool(&over_443(&neon), |policy| policy);
    let mut connection = get(&pool).await.unwrap();
    let mut adding = Box::pin(add(&mut connection, "given up"));
    assert!(poll_immediate(&mut adding).await.is_none());
    until_attempted(&neon, 1).await;
    drop(adding);
    neon.release_answers();
    sleep(A_MOMENT).await;
    assert_eq!(count(&neon, "given up").await, 0);
    let error = add(&mut connection, "later").await.unwrap_err();
    assert!(error.is_connection_lost(), "{error:?}");
    assert_eq!(count(&neon, "later").await, 0, "{error}");
    drop(connection);
    // That says nothing of the server.
    let closed = pool.status().closed;
    assert_eq!((closed.abandoned, closed.ended), (1, 0), "{error}");
    assert_eq!(add(&mut get(&pool).await.unwrap(), "next").await, Ok(1));
}

/// A proxy on the way may have passed on what was sent before it closed the WebSocket.
#[tokio::test]
async fn a_statement_is_sent_in_no_second_websocket_once_one_was_opened() {
    let neon = start().await;
    for code in [1011, 1012, 1013] {
        let reason = String::new();
        neon.disturb_websockets(1, WebSocketFault::Close { code, reason });
        let pool = pool(&over_443(&neon), |policy| policy);
        let name = code.to_string();
        let error = add(&mut get(&pool).await.unwrap(), &name)
            .await
            .unwrap_err();
        assert!(
            error.is_connection_lost() && error.connect_error().is_none(),
            "{error:?}"
        );
        assert!(error.to_string().contains("may have run"), "{error}");
        assert_eq!(count(&neon, &name).await, 0);
        assert_eq!(add(&mut get(&pool).await.unwrap(), &name).await, Ok(1));
    }
}

/// A statement leaves together with the settings in front of it.
#[tokio::test]
async fn a_statement_whose_settings_are_refused_may_have_run() {
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let seen = Arc::clone(&asked);
    let (url, _server) = scripted::start(move |mut session, _| {
        let seen = Arc::clone(&seen);
        async move {
            while let Some(sql) = session.asked().await {
                let answer = match sql.starts_with("SET") {
                    true => error("ERROR", "57014", "canceling statement due to user request"),
                    false => complete("INSERT 0 1"),
                };
                seen.lock().unwrap().push(sql);
                session.say(&[answer, ready(b'I')].concat()).await;
            }
        }
    })
    .await;
    let mut connection = connect(&pipelined(&url)).await;
    let inserted = connection.batch_execute("INSERT INTO t VALUES (1)");
    let refused = timeout(HANG, inserted).await.expect("no hang").unwrap_err();
    assert!(
        refused.is_connection_lost() && !refused.is_undelivered(),
        "{refused:?}"
    );
    let told = refused.to_string();
    assert!(
        told.contains("canceling statement") && told.contains("may have run"),
        "{told}"
    );
    assert!(
        asked
            .lock()
            .unwrap()
            .iter()
            .any(|sql| sql.starts_with("INSERT"))
    );
}

#[tokio::test]
async fn no_more_logins_are_under_way_than_the_policy_allows() {
    let neon = start().await;
    neon.hold_answers(LOGIN);
    let pool = pool(&over_443(&neon), |policy| {
        policy.max_size(10).max_connecting(3)
    });
    let callers = (0..10).map(|n| {
        let pool = &pool;
        async move { add(&mut get(pool).await.unwrap(), &n.to_string()).await }
    });
    let watch = async {
        until_attempted(&neon, 3).await;
        sleep(A_MOMENT).await;
        assert_eq!(neon.counters().direct.attempts, 3);
        neon.release_answers();
    };
    let all = timeout(HANG, futures_util::future::join(join_all(callers), watch));
    let (added, ()) = all.await.expect("no hang");
    assert!(added.iter().all(|added| *added == Ok(1)), "{added:?}");
}

/// A compute that takes longer to wake than a check may last.
async fn a_login_outlasts_checks(
    policy: impl FnOnce(PolicyBuilder) -> PolicyBuilder,
    use_it: impl AsyncFn(&Pool, &NeonSim),
) {
    let neon = start().await;
    neon.hold_answers(LOGIN);
    let pool = pool(&over_443(&neon), |settings| {
        policy(settings.validation_timeout(Duration::from_secs(4)))
    });
    drop(get(&pool).await.unwrap());
    let use_it = use_it(&pool, &neon);
    let released = async {
        sleep(Duration::from_millis(4500)).await;
        // Nothing was late, and nothing has taken its place.
        assert_eq!(pool.status().closed, Closed::default());
        assert_eq!(neon.counters().direct.attempts, 1);
        neon.release_answers();
    };
    let used = timeout(HANG, futures_util::future::join(use_it, released));
    used.await.expect("no hang");
    let Status { checks, closed, .. } = pool.status();
    assert_eq!(
        (checks.failed, closed.failed_check, closed.abandoned),
        (0, 0, 0)
    );
}

#[tokio::test]
async fn a_connection_is_given_back_before_its_login_is_answered() {
    let unused = async |_: &Pool, _: &NeonSim| {};
    let trusts = |policy: PolicyBuilder| policy.never_suspends().validation_bypass(HANG);
    a_login_outlasts_checks(trusts, unused).await;
    let used_at_once = async |pool: &Pool, neon: &NeonSim| {
        // It has answered nothing, and neither has a new one.
        let connection = pool.try_get().expect("it idles");
        drop(connection);
        assert_eq!(add(&mut get(pool).await.unwrap(), "a").await, Ok(1));
        assert_eq!(count(neon, "a").await, 1);
    };
    a_login_outlasts_checks(trusts, used_at_once).await;
}

#[tokio::test]
async fn a_check_waits_for_the_end_of_the_login() {
    let asks = |policy: PolicyBuilder| policy.validation_bypass(Duration::ZERO);
    let asked = async |pool: &Pool, _: &NeonSim| {
        assert_eq!(add(&mut get(pool).await.unwrap(), "a").await, Ok(1));
        let passed = async {
            while pool.status().checks.passed == 0 {
                sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(HANG, passed).await.expect("it is asked");
    };
    a_login_outlasts_checks(asks, asked).await;
}
