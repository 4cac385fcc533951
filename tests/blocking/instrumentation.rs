//! Instrumentation is told what it is told by libpq's connection.

use std::sync::{Arc, Mutex};

use diesel::connection::{Instrumentation, InstrumentationEvent, SimpleConnection};
use diesel::prelude::*;
use diesel::result::Error;
use diesel::sql_types::Integer;
use diesel_neon::blocking::{PgConnection, Pool};

use super::common::outline;
use super::start;

#[derive(Clone, Default)]
struct Events(Arc<Mutex<Vec<String>>>);

impl Events {
    fn writer(&self) -> impl Instrumentation + use<> {
        let seen = Arc::clone(&self.0);
        move |event: InstrumentationEvent<'_>| seen.lock().unwrap().push(outline(&event))
    }

    fn told(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

fn one(conn: &mut PgConnection) -> QueryResult<i32> {
    diesel::select(1.into_sql::<Integer>()).get_result(conn)
}

#[test]
fn statements_and_transactions_are_told() {
    let sim = start();
    let conn = &mut PgConnection::establish(&sim.url()).unwrap();
    let events = Events::default();
    conn.set_instrumentation(events.writer());
    conn.transaction(|conn| {
        one(conn)?;
        conn.batch_execute("SELECT 2")
    })
    .unwrap();
    let expected = [
        "begin 1",
        "start BEGIN",
        "finish BEGIN",
        "start SELECT $1 -- binds: [1]",
        "cache SELECT $1",
        "finish SELECT $1",
        "start SELECT 2",
        "finish SELECT 2",
        "commit 1",
        "start COMMIT",
        "finish COMMIT",
    ];
    assert_eq!(events.told(), expected);
}

#[test]
fn failures_and_savepoints_are_told() {
    let sim = start();
    let conn = &mut PgConnection::establish(&sim.url()).unwrap();
    let events = Events::default();
    conn.set_instrumentation(events.writer());
    let outer = conn.transaction(|conn| {
        let inner = conn.transaction(|conn| conn.batch_execute("SELECT wrong"));
        assert!(inner.is_err());
        Err::<(), _>(Error::RollbackTransaction)
    });
    assert_eq!(outer, Err(Error::RollbackTransaction));
    let expected = [
        "begin 1",
        "start BEGIN",
        "finish BEGIN",
        "begin 2",
        "start SAVEPOINT diesel_savepoint_1",
        "finish SAVEPOINT diesel_savepoint_1",
        "start SELECT wrong",
        "fail SELECT wrong: column \"wrong\" does not exist",
        "rollback 2",
        "start ROLLBACK TO SAVEPOINT diesel_savepoint_1",
        "finish ROLLBACK TO SAVEPOINT diesel_savepoint_1",
        "rollback 1",
        "start ROLLBACK",
        "finish ROLLBACK",
    ];
    assert_eq!(events.told(), expected);
}

#[test]
fn each_connection_of_a_pool_is_instrumented() {
    let sim = start();
    let events = Events::default();
    let made = events.clone();
    let pool = Pool::builder(&*sim.url())
        .max_size(2)
        .instrumentation(move || made.writer())
        .build_blocking()
        .unwrap();
    let both = [pool.get().unwrap(), pool.get().unwrap()];
    for mut conn in both {
        assert_eq!(one(&mut conn), Ok(1));
    }
    let told = events.told();
    let count = |start: &str| told.iter().filter(|told| told.starts_with(start)).count();
    assert_eq!(count("StartEstablishConnection"), 2, "{told:?}");
    assert_eq!(count("FinishEstablishConnection"), 2, "{told:?}");
    assert_eq!(count("finish SELECT $1"), 2, "{told:?}");
    assert!(!told.concat().contains(sim.password()));
}
