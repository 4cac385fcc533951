//! Pools of r2d2's.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::r2d2;
use diesel::r2d2::{CustomizeConnection, HandleError, ManageConnection, R2D2Connection};
use diesel::sql_types::{Integer, Text};
use diesel_neon::blocking::{self, ConnectionManager, PgConnection};
use diesel_neon::{DatabaseUrl, EvictReason, ManagerError, Policy};
use neon_sim::Suspension;

use super::common::{HANG, users};
use super::{Sim, start};

type Pooled = r2d2::PooledConnection<ConnectionManager>;

fn pool(sim: &Sim, policy: Policy) -> r2d2::Pool<ConnectionManager> {
    let url = DatabaseUrl::parse(&sim.pooled_url()).unwrap();
    let manager = ConnectionManager::new(&url, policy).unwrap();
    manager.pool_builder().build(manager).unwrap()
}

fn add(conn: &mut blocking::Connection, name: &str) -> QueryResult<usize> {
    let user = users::name.eq(name);
    diesel::insert_into(users::table).values(user).execute(conn)
}

#[test]
fn a_pool_of_r2d2s_has_the_policies() {
    let sim = start();
    let policy = Policy::builder()
        .max_size(2)
        .validation_bypass(Duration::ZERO)
        .build()
        .unwrap();
    let pool = pool(&sim, policy);
    // Nobody has asked for a connection yet.
    assert_eq!(pool.state().connections, 0);
    assert_eq!(
        (pool.max_size(), pool.max_lifetime()),
        (2, Some(policy.max_lifetime()))
    );
    {
        let mut conn: Pooled = pool.get().unwrap();
        assert_eq!(add(&mut conn, "a"), Ok(1));
        let two = conn.transaction(|conn| {
            add(conn, "b")?;
            users::table.count().get_result::<i64>(conn)
        });
        assert_eq!(two, Ok(2));
    }
    for suspension in [Suspension::Normal, Suspension::Reset] {
        sim.suspend(suspension);
        let conn = &mut pool.get().unwrap();
        assert_eq!(users::table.count().get_result(conn), Ok(2_i64));
    }
    // What is left in a transaction is not handed on.
    pool.get()
        .unwrap()
        .batch_execute("BEGIN; DELETE FROM users")
        .unwrap();
    let conn = &mut pool.get().unwrap();
    assert_eq!(users::table.count().get_result(conn), Ok(2_i64));
}

#[test]
fn connections_that_are_evicted_are_replaced() {
    let sim = start();
    let url = DatabaseUrl::parse(&sim.url()).unwrap();
    let policy = Policy::builder().max_size(1).build().unwrap();
    let manager = ConnectionManager::new(&url, policy).unwrap();
    let pool = manager.pool_builder().build(manager.clone()).unwrap();
    let process = || {
        let pid = diesel::dsl::sql::<Integer>("SELECT pg_backend_pid()");
        pid.get_result::<i32>(&mut pool.get().unwrap()).unwrap()
    };
    let first = process();
    assert_eq!(process(), first);
    manager.invalidate_all();
    assert_ne!(process(), first);

    let wrong = DatabaseUrl::parse(&sim.url().replace(sim.password(), "wrong")).unwrap();
    let policy = Policy::builder().checkout_timeout(Duration::from_secs(5));
    let manager = ConnectionManager::new(&wrong, policy.build().unwrap()).unwrap();
    let refused = manager.pool_builder().build(manager).unwrap().get();
    let refused = refused.map(drop).unwrap_err().to_string();
    assert!(
        refused.contains("password authentication failed"),
        "{refused}"
    );
}

#[test]
fn diesels_own_manager_takes_connections() {
    let sim = start();
    let manager = r2d2::ConnectionManager::<blocking::Connection>::new(sim.url());
    let pool = r2d2::Pool::builder()
        .max_size(1)
        .test_on_check_out(true)
        .build(manager)
        .unwrap();
    assert_eq!(add(&mut pool.get().unwrap(), "a"), Ok(1));
    sim.suspend(Suspension::Normal);
    let conn = &mut pool.get().unwrap();
    assert_eq!(users::table.count().get_result(conn), Ok(1_i64));
}

/// Names each new connection.
#[derive(Debug)]
struct Customize;

impl CustomizeConnection<blocking::Connection, ManagerError> for Customize {
    fn on_acquire(&self, conn: &mut blocking::Connection) -> Result<(), ManagerError> {
        conn.batch_execute("SET application_name = 'customized'")
            .unwrap();
        Ok(())
    }
}

fn application_name(conn: &mut blocking::Connection) -> String {
    let name = diesel::dsl::sql::<Text>("SELECT current_setting('application_name')");
    name.get_result(conn).unwrap()
}

#[test]
fn a_customizer_sees_every_connection_also_the_replacement_of_a_late_one() {
    let sim = start();
    let url = DatabaseUrl::parse(&sim.url()).unwrap();
    let policy = Policy::builder()
        .never_suspends()
        .max_size(3)
        .checkout_timeout(HANG)
        .validation_bypass(Duration::ZERO)
        .validation_timeout(HANG / 2)
        .build()
        .unwrap();
    let manager = ConnectionManager::new(&url, policy).unwrap();
    let builder = manager.pool_builder();
    let builder = builder.connection_customizer(Box::new(Customize));
    let pool = builder.build(manager).unwrap();
    let fill = || {
        let mut held: Vec<Pooled> = (0..3).map(|_| pool.get().unwrap()).collect();
        for conn in &mut held {
            assert_eq!(application_name(conn), "customized");
        }
    };
    fill();
    let began = Instant::now();
    for _ in 0..2 {
        sim.suspend(Suspension::Silent);
        fill();
    }
    // No caller waits for a check to be over.
    assert!(began.elapsed() < HANG / 2);
}

/// Passes the errors of a pool on.
#[derive(Debug)]
struct Tell(mpsc::Sender<ManagerError>);

impl HandleError<ManagerError> for Tell {
    fn handle_error(&self, error: ManagerError) {
        let _ = self.0.send(error);
    }
}

#[test]
fn a_refused_login_is_not_repeated_as_often_as_r2d2_tries() {
    let sim = start();
    let url = sim.url().replace("/neondb?", "/later?");
    let url = DatabaseUrl::parse(&url).unwrap();
    let policy = Policy::builder()
        .max_size(1)
        .checkout_timeout(HANG)
        .connect_timeout(HANG / 2);
    let manager = ConnectionManager::new(&url, policy.build().unwrap()).unwrap();
    let (tell, told) = mpsc::channel();
    let builder = manager.pool_builder().error_handler(Box::new(Tell(tell)));
    // r2d2 connects every half of it at the latest. A connect may take longer.
    let builder = builder.connection_timeout(Duration::from_millis(400));
    let pool = builder.build(manager.clone()).unwrap();
    let before = sim.counters();
    // On a busy machine, r2d2 may not know the reason yet.
    let began = Instant::now();
    loop {
        let refused = pool.get().map(drop).unwrap_err().to_string();
        if refused.contains("does not exist") {
            break;
        }
        assert!(began.elapsed() < HANG, "{refused}");
    }
    // r2d2 goes on by itself, every 200 ms here.
    for _ in 0..12 {
        let ManagerError::Connect(error) = told.recv_timeout(HANG).unwrap() else {
            panic!("another error");
        };
        assert!(error.to_string().contains("does not exist"), "{error}");
    }
    let logins = (sim.counters() - before).direct.attempts;
    // Some at first, and one each second.
    let usual = 1..=4 + began.elapsed().as_secs();
    assert!(usual.contains(&logins), "{logins}");

    // Once what was wrong is mended, nobody need wait for the next try.
    let created = sim.neon.create_database("later");
    sim.runtime.block_on(created).unwrap();
    manager.invalidate_all();
    let conn = &mut pool.get_timeout(HANG).unwrap();
    conn.batch_execute("SELECT 1").unwrap();
}

#[test]
fn a_connection_that_a_customizer_has_put_there_is_not_handed_out_once_it_has_ended() {
    let sim = start();
    let url = DatabaseUrl::parse(&sim.url()).unwrap();
    let manager = ConnectionManager::new(&url, Policy::default()).unwrap();
    let conn = &mut PgConnection::establish(&sim.url()).unwrap();
    manager.is_valid(conn).unwrap();
    sim.suspend(Suspension::Normal);
    let began = Instant::now();
    while !R2D2Connection::is_broken(conn) {
        assert!(began.elapsed() < HANG);
        std::thread::sleep(Duration::from_millis(5));
    }
    let refused = manager.is_valid(conn).unwrap_err();
    assert!(
        matches!(refused, ManagerError::Evicted(EvictReason::Ended { .. })),
        "{refused}"
    );

    let conn = &mut PgConnection::establish(&sim.url()).unwrap();
    conn.batch_execute("BEGIN").unwrap();
    let refused = manager.is_valid(conn).unwrap_err();
    assert!(
        matches!(refused, ManagerError::Evicted(EvictReason::InTransaction)),
        "{refused}"
    );
}

#[test]
fn a_checkout_may_wait_for_as_long_as_durations_go() {
    let sim = start();
    let policy = Policy::builder().checkout_timeout(Duration::MAX).build();
    let pool = pool(&sim, policy.unwrap());
    assert_eq!(add(&mut pool.get().unwrap(), "a"), Ok(1));
}
