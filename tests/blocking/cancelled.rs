//! What has no blocking form is waited for with `block_on`.

use std::thread;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel_neon::DatabaseErrorExt;
use diesel_neon::blocking::{PgConnection, block_on};
use diesel_neon::futures_util::StreamExt;

use super::common::{RUNNING, routes, users};
use super::start;

#[test]
fn another_thread_cancels_a_statement() {
    let sim = start();
    for (route, url) in routes(&sim) {
        let conn = &mut PgConnection::establish(&url).unwrap();
        let token = conn.cancel_token();
        let cancelled = thread::scope(|scope| {
            let sleeping = scope.spawn(|| conn.batch_execute("SELECT pg_sleep(600)"));
            sim.until(RUNNING, "1");
            block_on(token.cancel()).unwrap().unwrap();
            sleeping.join().unwrap()
        });
        assert_eq!(cancelled.unwrap_err().sqlstate(), Some("57014"), "{route}");
        conn.batch_execute("SELECT 1").unwrap();
    }
}

#[test]
fn data_is_copied_and_notifications_arrive() {
    let sim = start();
    let conn = &mut PgConnection::establish(&sim.url()).unwrap();
    let copied = block_on(async {
        let mut copy = conn
            .as_async()
            .copy_in("COPY users (name) FROM STDIN")
            .await?;
        copy.send(b"Ann\nBob\n").await?;
        copy.finish().await
    });
    assert_eq!(copied.unwrap(), Ok(2));
    assert_eq!(users::table.count().get_result(conn), Ok(2_i64));

    conn.batch_execute("LISTEN jobs; NOTIFY jobs, 'first'")
        .unwrap();
    let mut notifications = std::pin::pin!(conn.as_async().notifications_stream().unwrap());
    let notification = block_on(notifications.next()).unwrap().unwrap();
    assert_eq!(notification.unwrap().payload, "first");
}
