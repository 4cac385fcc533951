//! The settings of timeouts, at their longest.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use diesel_neon::migration::{LOCK_KEY, Migrator, Progress, folder};
use tokio::time::sleep;

use crate::helpers::*;

/// No sum overflows, the migrator waits for the lock, and PostgreSQL gets timeouts that it can hold.
#[tokio::test]
async fn lock_wait_lock_timeout_and_statement_timeout_may_be_as_long_as_can_be_said() {
    let neon = start().await;
    let holder = client(&neon).await;
    let lock = format!("SELECT pg_advisory_lock({LOCK_KEY})");
    holder.batch_execute(&lock).await.unwrap();

    let up = "CREATE TABLE a AS SELECT current_setting('lock_timeout') \
              || ' ' || current_setting('statement_timeout') AS timeouts";
    let migrations = Folder::new().with("1_a", up, "");
    let waits = Arc::new(AtomicBool::new(false));
    let heard = Arc::clone(&waits);
    let migrator = Migrator::new(&url(&neon), folder(Some(&migrations.0)).unwrap())
        .unwrap()
        .lock_wait(Duration::MAX)
        .lock_timeout(Duration::MAX)
        .statement_timeout(Duration::MAX)
        .on_progress(move |progress| {
            let waiting = matches!(progress, Progress::Waiting { .. });
            heard.fetch_or(waiting, Ordering::Relaxed);
        });
    let run = tokio::spawn(async move { migrator.run_pending().await });
    finish(async {
        while !waits.load(Ordering::Relaxed) {
            assert!(!run.is_finished(), "it should wait for the lock");
            sleep(TICK).await;
        }
    })
    .await;
    drop(holder);
    finish(run).await.unwrap().unwrap();
    let longest = format!("{0}ms {0}ms", i32::MAX);
    assert_eq!(rows(&neon, "SELECT timeouts FROM a").await, [longest]);
}
