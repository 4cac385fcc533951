//! Who gets how much done in a slice of time.

use std::fs;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use tokio::time::timeout;

use super::operations::{Operation, Peer};
use crate::pools::words;
use crate::report::{Cell, Table, Unit};
use crate::suites::turns;

/// A client's connections on one route; or why there are none.
pub struct Arm(Result<Box<dyn Connections>, String>);

impl Arm {
    pub async fn connect<P: Peer>(url: &str, connections: usize) -> Self {
        let mut all = Vec::new();
        for _ in 0..connections {
            match P::connect(url).await {
                Ok(connection) => all.push(Some(connection)),
                Err(error) => return Self(Err(words(&*error))),
            }
        }
        Self(Ok(Box::new(all)))
    }
}

/// Adds a row for each number of connections. Returns the operations per second of the first of them, of each arm.
pub async fn rows(
    operation: Operation,
    connections: &[usize],
    arms: &mut [Arm],
    table: &mut Table,
) -> Vec<Option<f64>> {
    let mut first = None;
    for &connections in connections {
        let rounds = race(operation, connections, arms, wall_clock).await;
        let what = format!("{}, {connections}", operation.name());
        let rates = row(&what, Unit::PerSecond, rounds, table);
        first.get_or_insert(rates);
    }
    first.unwrap_or_default()
}

/// Adds the time of the processor that an operation takes of this thread, on one connection.
pub async fn processor_row(operation: Operation, arms: &mut [Arm], table: &mut Table) {
    if processor_time().is_none() {
        return;
    }
    let mut rounds = race(operation, 1, arms, processor_clock).await;
    for rates in rounds.iter_mut().flatten() {
        rates.iter_mut().for_each(|rate| *rate = 1.0 / *rate);
    }
    let what = format!("{}: time of the processor", operation.name());
    row(&what, Unit::Seconds, rounds, table);
}

/// Returns each arm's median.
fn row(
    what: &str,
    unit: Unit,
    rounds: Vec<Result<Vec<f64>, Cell>>,
    table: &mut Table,
) -> Vec<Option<f64>> {
    let figures: Vec<Vec<f64>> = rounds
        .iter()
        .map(|rounds| rounds.clone().unwrap_or_default())
        .collect();
    table.measured(what, unit, &figures);
    let row = table.rows.last_mut().expect("a row");
    for (cell, rounds) in row.cells.iter_mut().zip(rounds) {
        if let Err(told) = rounds {
            *cell = told;
        }
    }
    let median = |cell: &Cell| match cell {
        Cell::Measured { value, .. } => Some(value.median),
        _ => None,
    };
    row.cells.iter().map(median).collect()
}

/// Returns the operations per second of a clock, round by round, of each arm.
async fn race(
    operation: Operation,
    connections: usize,
    arms: &mut [Arm],
    clock: Clock,
) -> Vec<Result<Vec<f64>, Cell>> {
    let mut rounds: Vec<Result<Vec<f64>, Cell>> = arms
        .iter()
        .map(|arm| match &arm.0 {
            Ok(arm) if arm.have(operation) => Ok(Vec::new()),
            Ok(_) => Err(Cell::Nothing),
            Err(told) => Err(fails(told)),
        })
        .collect();
    let all = connections.max(CONNECTIONS);
    for round in 0..=ROUNDS {
        // Each connection prepares its statements first.
        let is_warm_up = round == 0;
        // Which core a server process is on makes a difference: no connection stands for all.
        let (first, connections, time) = match is_warm_up {
            true => (0, all, WARM_UP),
            false => {
                let first = round % (all - connections + 1);
                (first, connections, slice_of(operation, connections))
            }
        };
        for who in turns(round, arms.len()) {
            let (Ok(rates), Ok(arm)) = (&mut rounds[who], &mut arms[who].0) else {
                continue;
            };
            let slice = arm.slice(operation, first, connections, time, clock);
            match slice.await {
                Ok(rate) if !is_warm_up => rates.push(rate),
                Ok(_) => {}
                Err(told) => rounds[who] = Err(fails(&told)),
            }
        }
    }
    rounds
}

fn slice_of(operation: Operation, connections: usize) -> Duration {
    match (operation, connections) {
        (Operation::CopyIn, 1) => SLICE_OF_COPY,
        _ => SLICE,
    }
}

/// Returns the seconds since some moment.
type Clock = fn() -> f64;

fn wall_clock() -> f64 {
    static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
    BEGAN.elapsed().as_secs_f64()
}

/// That of this thread, where the system tells.
fn processor_clock() -> f64 {
    processor_time().unwrap_or(f64::NAN)
}

fn processor_time() -> Option<f64> {
    let told = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanoseconds: f64 = told.split(' ').next()?.parse().ok()?;
    Some(nanoseconds / 1e9)
}

/// Without the number that a statement happens to have, and what says that it is an error.
fn fails(told: &str) -> Cell {
    let mut told = told.to_owned();
    for before in ["db error: ", "ERROR: ", "error returned from database: "] {
        told = told.replace(before, "");
    }
    if let Some((words, _)) = told.split_once(" at line ") {
        told = words.to_owned();
    }
    if let [before, name, behind] = told.split('"').collect::<Vec<_>>()[..] {
        let name = name.trim_end_matches(|c: char| c.is_ascii_digit());
        told = format!("{before}`{name}…`{behind}");
    }
    Cell::Words(format!("fails: {told}"))
}

trait Connections: Send {
    fn have(&self, operation: Operation) -> bool;

    /// Returns the operations per second of so many connections, each of which works on its own task.
    fn slice(
        &mut self,
        operation: Operation,
        first: usize,
        many: usize,
        time: Duration,
        clock: Clock,
    ) -> BoxFuture<'_, Result<f64, String>>;
}

impl<P: Peer> Connections for Vec<Option<P>> {
    fn have(&self, operation: Operation) -> bool {
        P::has(operation)
    }

    fn slice(
        &mut self,
        operation: Operation,
        first: usize,
        many: usize,
        time: Duration,
        clock: Clock,
    ) -> BoxFuture<'_, Result<f64, String>> {
        Box::pin(slice(
            operation,
            &mut self[first..first + many],
            time,
            clock,
        ))
    }
}

async fn slice<P: Peer>(
    operation: Operation,
    connections: &mut [Option<P>],
    time: Duration,
    clock: Clock,
) -> Result<f64, String> {
    let (began, by_clock) = (Instant::now(), clock());
    let start = |(number, connection): (usize, &mut Option<P>)| {
        let mut connection = connection.take().expect("it was given back");
        tokio::spawn(async move {
            let done = timeout(HANG, work(operation, number, began + time, &mut connection)).await;
            let silence = |_| Err(format!("no answer within {HANG:?}"));
            (connection, done.unwrap_or_else(silence))
        })
    };
    let tasks: Vec<_> = connections.iter_mut().enumerate().map(start).collect();
    let mut sum: Result<i32, String> = Ok(0);
    for (task, place) in tasks.into_iter().zip(connections) {
        let (connection, done) = task.await.expect("no panic");
        *place = Some(connection);
        sum = sum.and_then(|sum| Ok(sum + done?));
    }
    Ok(f64::from(sum?) / (clock() - by_clock))
}

async fn work<P: Peer>(
    operation: Operation,
    number: usize,
    end: Instant,
    connection: &mut P,
) -> Result<i32, String> {
    let mut done = 0;
    while Instant::now() < end {
        let id = 1 + (done * 7 + number as i32 * 211) % 2000;
        let run = connection.run(operation, id).await;
        run.map_err(|error| words(&*error))?;
        done += 1;
    }
    Ok(done)
}

pub const CONNECTIONS: usize = 8;
const ROUNDS: usize = 6;
const WARM_UP: Duration = Duration::from_millis(20);
const SLICE: Duration = Duration::from_millis(30);
/// One COPY of sqlx's takes 5 ms and the next 45, by chance, on a connection that has no others beside it.
const SLICE_OF_COPY: Duration = Duration::from_millis(150);
const HANG: Duration = Duration::from_secs(10);
