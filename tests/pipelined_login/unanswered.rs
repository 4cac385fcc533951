//! What happens while the answer to a login is under way.

use std::time::Duration;

use futures_util::future::poll_immediate;
use neon_sim::NeonSim;
use tokio::time::{sleep, timeout};

use super::common::{HANG, pool, start};
use super::{add, count, get, over_443};

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
    assert_eq!(count(&neon, "later").await, 0, "{error}");
    drop(connection);
    assert_eq!(add(&mut get(&pool).await.unwrap(), "next").await, Ok(1));
}
