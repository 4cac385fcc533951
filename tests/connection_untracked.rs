//! Behind a pooler that does not track prepared statements, only the probe has a name.
#![allow(missing_docs)]

mod common;

use common::{connect, counted, pool, prepared, start};
use diesel::prelude::*;
use diesel::sql_types::Integer;
use diesel_async::RunQueryDsl;
use diesel_neon::NamedStatements;

#[tokio::test]
async fn named_statements_reach_no_pooler_that_does_not_track_them() {
    let neon = start().await;
    for names in [NamedStatements::Detect, NamedStatements::Never] {
        let before = neon.counters();
        let pool = pool(&neon.pooled_url(), |policy| {
            policy.max_size(3).named_statements(names)
        });
        for _ in 0..3 {
            let mut held = Vec::new();
            for n in 0..3 {
                let mut connection = pool.get().await.unwrap();
                let sum = diesel::select(n.into_sql::<Integer>() + 1);
                assert_eq!(sum.get_result(&mut connection).await, Ok(n + 1));
                held.push(connection);
            }
        }
        // The probe has a name, and deallocates it.
        let asked = u64::from(names == NamedStatements::Detect);
        assert_eq!(
            counted(&neon, &neon.pooled_url(), before).named_parses,
            asked
        );
        let connection = &mut connect(&neon.pgbouncer_url()).await;
        assert_eq!(prepared(connection).await, [""; 0]);
    }
}

#[tokio::test]
async fn a_pgbouncer_behind_an_innocent_name_is_not_taken_for_postgres() {
    let neon = start().await;
    let pool = pool(&neon.pgbouncer_url(), |policy| policy.max_size(2));
    let (mut a, mut b) = (pool.get().await.unwrap(), pool.get().await.unwrap());
    for n in 0..5 {
        for connection in [&mut a, &mut b] {
            let sum = diesel::select(n.into_sql::<Integer>() + 1);
            assert_eq!(sum.get_result(connection).await, Ok(n + 1));
        }
    }
    assert_eq!(prepared(&mut a).await, [""; 0]);
}
