//! Synchronous Diesel, as apps hold it: a pool of ten connections, and threads that check one out for each operation.
//!
//! r2d2 with libpq asks the server at each checkout (`test_on_check_out`), as it comes; it runs without that, too.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use diesel::connection::LoadConnection;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::r2d2::{self, ConnectionManager};
use diesel_neon::blocking;

use super::operations::{AUTHOR, Operation, RATING, TITLE};
use crate::report::{Table, Unit};
use crate::schema::{Book, NewBook, books, inserted};
use crate::suites::turns;

type R2d2 = r2d2::Pool<ConnectionManager<PgConnection>>;

/// Returns what each gets done on a route.
pub fn table(name: &str, text: &str, url: &str, threads: &[usize]) -> Table {
    let ours = blocking::Pool::builder(url).build_blocking();
    let ours = ours.expect("a pool");
    let r2d2 = |checks: bool| -> R2d2 {
        let manager = ConnectionManager::new(url);
        let pool = r2d2::Pool::builder().test_on_check_out(checks);
        pool.build(manager).expect("a pool")
    };
    let (r2d2, unchecked) = (r2d2(true), r2d2(false));
    let pools: [&dyn Pool; 3] = [&ours, &r2d2, &unchecked];
    let mut table = Table::new(name, "operation, threads", &POOLS).text(text);
    for operation in [Operation::LookUp, Operation::Insert, Operation::Transaction] {
        for &threads in threads {
            let what = format!("{}, {threads}", operation.name());
            table.measured(&what, Unit::PerSecond, &race(operation, threads, pools));
        }
    }
    table
}

const POOLS: [&str; 3] = [
    "diesel-neon, `blocking`",
    "r2d2, libpq",
    "r2d2 without its check, libpq",
];

/// Returns the operations per second of each pool, round by round.
fn race(operation: Operation, threads: usize, pools: [&dyn Pool; 3]) -> [Vec<f64>; 3] {
    let mut rounds = [const { Vec::new() }; 3];
    for round in 0..WARM_UP + ROUNDS {
        for who in turns(round, pools.len()) {
            let rate = slice(operation, threads, pools[who]);
            // Each connection prepares its statements first.
            if round >= WARM_UP {
                rounds[who].push(rate);
            }
        }
    }
    rounds
}

fn slice(operation: Operation, threads: usize, pool: &dyn Pool) -> f64 {
    let start = &Barrier::new(threads);
    thread::scope(|scope| {
        let work = |number: usize| {
            move || {
                start.wait();
                let began = Instant::now();
                let mut done = 0;
                while began.elapsed() < SLICE {
                    let id = 1 + (done * 7 + number as i32 * 211) % 2000;
                    pool.run(operation, id);
                    done += 1;
                }
                f64::from(done) / began.elapsed().as_secs_f64()
            }
        };
        let workers: Vec<_> = (0..threads).map(|n| scope.spawn(work(n))).collect();
        let rates = workers.into_iter().map(|worker| worker.join());
        rates.map(|rate| rate.expect("no panic")).sum()
    })
}

trait Pool: Sync {
    /// Checks a connection out, does one operation with it, and gives it back.
    fn run(&self, operation: Operation, id: i32);
}

impl Pool for blocking::Pool {
    fn run(&self, operation: Operation, id: i32) {
        run(&mut self.get().expect(OK), operation, id);
    }
}

impl Pool for R2d2 {
    fn run(&self, operation: Operation, id: i32) {
        run(&mut *self.get().expect(OK), operation, id);
    }
}

fn run<C>(connection: &mut C, operation: Operation, id: i32)
where
    C: LoadConnection<Backend = Pg>,
{
    match operation {
        Operation::LookUp => {
            let book: Book = books::table.find(id).get_result(connection).expect(OK);
            assert_eq!(book.id, id);
        }
        Operation::Insert => {
            let new = NewBook {
                author_id: AUTHOR,
                title: TITLE,
                pages: id,
                rating: RATING,
            };
            let insert = diesel::insert_into(inserted::table).values(&new);
            let book: Book = insert.get_result(connection).expect(OK);
            assert_eq!(book.title, TITLE);
        }
        Operation::Transaction => {
            let done = connection.transaction(|connection| {
                let update = diesel::update(books::table.find(id));
                let update = update.set(books::pages.eq(books::pages + 1));
                update.execute(connection)
            });
            assert_eq!(done, Ok(1));
        }
        other => unreachable!("{} has no column here", other.name()),
    }
}

const OK: &str = "an answer";
const WARM_UP: usize = 2;
const ROUNDS: usize = 8;
const SLICE: Duration = Duration::from_millis(30);
