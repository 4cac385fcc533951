//! `ConnectionManager` in a pool of bb8's.

mod common;

use std::time::Duration;

use bb8::{CustomizeConnection, ManageConnection};
use diesel::dsl::sql;
use diesel::sql_types::Text;
use diesel_async::{RunQueryDsl, SimpleAsyncConnection};
use diesel_neon::{
    Connection, ConnectionManager, DatabaseUrl, EvictReason, ManagerError, Policy, PoolEntry,
};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use neon_sim::{NeonSim, Suspension};
use tokio::time::{Instant, sleep, timeout};

use common::{HANG, neon, until};

/// Makes a manager that asks the server at each checkout, and for long.
fn manager(neon: &NeonSim) -> ConnectionManager {
    let policy = Policy::builder()
        .never_suspends()
        .checkout_timeout(HANG)
        .validation_bypass(Duration::ZERO)
        .validation_timeout(HANG / 2)
        .build()
        .unwrap();
    ConnectionManager::new(&DatabaseUrl::parse(&neon.url()).unwrap(), policy).unwrap()
}

/// Names each new connection.
#[derive(Debug)]
struct Customize;

impl CustomizeConnection<PoolEntry<Connection>, ManagerError> for Customize {
    fn on_acquire<'a>(
        &'a self,
        connection: &'a mut PoolEntry<Connection>,
    ) -> BoxFuture<'a, Result<(), ManagerError>> {
        async {
            let set = connection.batch_execute("SET application_name = 'customized'");
            set.await.unwrap();
            Ok(())
        }
        .boxed()
    }
}

#[tokio::test]
async fn a_customizer_sees_every_connection_also_the_replacement_of_a_late_one() {
    let neon = neon().await;
    let pool = bb8::Pool::builder()
        .max_size(3)
        .connection_timeout(HANG)
        .connection_customizer(Box::new(Customize))
        .build(manager(&neon))
        .await
        .unwrap();
    let fill = async || {
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(pool.get().await.unwrap());
        }
        for connection in &mut held {
            let name = sql::<Text>("SELECT current_setting('application_name')");
            let name: String = name.get_result(&mut ***connection).await.unwrap();
            assert_eq!(name, "customized");
        }
    };
    fill().await;
    let began = Instant::now();
    for _ in 0..2 {
        neon.suspend(Suspension::Silent).await;
        timeout(HANG, fill()).await.unwrap();
    }
    // No caller waits for a check to be over.
    assert!(began.elapsed() < HANG / 2);
}

#[tokio::test]
async fn a_spare_is_the_next_connection_of_the_pool_or_is_closed() {
    let neon = neon().await;
    let manager = manager(&neon);
    let attempts = || neon.counters().direct.attempts;
    let mut connection = manager.connect().await.unwrap();
    for is_taken in [true, false] {
        neon.suspend(Suspension::Silent).await;
        let refused = timeout(HANG, manager.is_valid(&mut connection)).await;
        let refused = refused.unwrap().unwrap_err();
        assert!(
            matches!(refused, ManagerError::Evicted(EvictReason::NoAnswer { .. })),
            "{refused}"
        );
        drop(connection);
        let before = attempts();
        if !is_taken {
            let sessions = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'neondb_owner'";
            until(&neon, sessions, "0").await;
        }
        connection = manager.connect().await.unwrap();
        assert_eq!(attempts() - before, u64::from(!is_taken));
        connection.batch_execute("SELECT 1").await.unwrap();
    }
}

/// On the way to the server and back.
const ROUND_TRIP: Duration = Duration::from_millis(700);

#[tokio::test]
async fn a_connection_that_answers_is_kept_although_a_spare_waits() {
    let neon = neon().await;
    let manager = manager(&neon);
    let mut silent = manager.connect().await.unwrap();
    neon.set_latency(ROUND_TRIP / 2);
    manager.is_valid(&mut silent).await.unwrap();
    neon.suspend(Suspension::Silent).await;
    let mut sibling = manager.connect().await.unwrap();
    let replaced = timeout(HANG, manager.is_valid(&mut silent)).await;
    replaced.unwrap().unwrap_err();
    // For most of the time after which an answer is late.
    sleep(ROUND_TRIP * 3).await;
    neon.set_latency(Duration::ZERO);
    manager.is_valid(&mut sibling).await.unwrap();
}

#[tokio::test]
async fn a_refusal_is_answered_from_memory() {
    let neon = neon().await;
    for (name, is_pipelined) in [("later", false), ("latest", true)] {
        let url = neon.url().replace("/neondb?", &format!("/{name}?"));
        let url = DatabaseUrl::parse(&url).unwrap();
        let url = url.with_pipelined_login(is_pipelined);
        let manager = ConnectionManager::<Connection>::new(&url, Policy::default()).unwrap();
        let before = neon.counters();
        for first in (0..30).map(|i| i == 0) {
            let refused = manager.connect().await.map(drop).unwrap_err().to_string();
            assert!(refused.contains("does not exist"), "{refused}");
            assert!(!first || !refused.contains("from memory"), "{refused}");
        }
        let refused = manager.connect().await.map(drop).unwrap_err().to_string();
        assert!(refused.contains("from memory"), "{refused}");
        let attempts = (neon.counters() - before).direct.attempts;
        assert!((1..=6).contains(&attempts), "{attempts}");

        neon.create_database(name).await.unwrap();
        manager.invalidate_all();
        manager.connect().await.unwrap();
    }
}
