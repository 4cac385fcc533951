//! Who gets how much done in a slice of time.

use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use tokio::time::timeout;

use super::operations::{Operation, Peer};
use crate::pools::words;
use crate::report::{Cell, Table, Unit};

/// A client's connections on one route; or why there are none.
pub struct Arm(Result<Box<dyn Connections>, String>);

impl Arm {
    pub async fn connect<P: Peer>(url: &str) -> Self {
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            match P::connect(url).await {
                Ok(connection) => connections.push(Some(connection)),
                Err(error) => return Self(Err(words(&*error))),
            }
        }
        Self(Ok(Box::new(connections)))
    }
}

/// Adds a row for each number of connections. Returns the operations per second of the first of them, of each arm.
pub async fn rows(operation: Operation, arms: &mut [Arm], table: &mut Table) -> Vec<Option<f64>> {
    let mut first = None;
    for connections in [1, CONNECTIONS] {
        let rounds = race(operation, connections, arms).await;
        let rates: Vec<Vec<f64>> = rounds
            .iter()
            .map(|rounds| rounds.clone().unwrap_or_default())
            .collect();
        let what = format!("{}, {connections}", operation.name());
        table.measured(&what, Unit::PerSecond, &rates);
        let row = table.rows.last_mut().expect("a row");
        for (cell, rounds) in row.cells.iter_mut().zip(rounds) {
            if let Err(told) = rounds {
                *cell = told;
            }
        }
        let value = |cell: &Cell| match cell {
            Cell::Measured { value, .. } => Some(value.median),
            _ => None,
        };
        first.get_or_insert_with(|| row.cells.iter().map(value).collect());
    }
    first.unwrap_or_default()
}

/// Returns the operations per second, round by round, of each arm.
async fn race(
    operation: Operation,
    connections: usize,
    arms: &mut [Arm],
) -> Vec<Result<Vec<f64>, Cell>> {
    let mut rounds: Vec<Result<Vec<f64>, Cell>> = arms
        .iter()
        .map(|arm| match &arm.0 {
            Ok(arm) if arm.have(operation) => Ok(Vec::new()),
            Ok(_) => Err(Cell::Nothing),
            Err(told) => Err(fails(told)),
        })
        .collect();
    for round in 0..WARM_UP + ROUNDS {
        // Which core a server process is on makes a difference: no connection stands for all.
        let first = round % (CONNECTIONS - connections + 1);
        // Nobody always comes behind the same one.
        for turn in 0..arms.len() {
            let who = (turn + round) % arms.len();
            let (Ok(rates), Ok(arm)) = (&mut rounds[who], &mut arms[who].0) else {
                continue;
            };
            match arm.slice(operation, first, connections).await {
                // Each connection prepares its statements first.
                Ok(rate) if round >= WARM_UP => rates.push(rate),
                Ok(_) => {}
                Err(told) => rounds[who] = Err(fails(&told)),
            }
        }
    }
    rounds
}

fn fails(told: &str) -> Cell {
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
    ) -> BoxFuture<'_, Result<f64, String>> {
        Box::pin(slice(operation, &mut self[first..first + many]))
    }
}

async fn slice<P: Peer>(
    operation: Operation,
    connections: &mut [Option<P>],
) -> Result<f64, String> {
    let began = Instant::now();
    let start = |(number, connection): (usize, &mut Option<P>)| {
        let mut connection = connection.take().expect("it was given back");
        tokio::spawn(async move {
            let done = timeout(HANG, work(operation, number, began, &mut connection)).await;
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
    Ok(f64::from(sum?) / began.elapsed().as_secs_f64())
}

async fn work<P: Peer>(
    operation: Operation,
    number: usize,
    began: Instant,
    connection: &mut P,
) -> Result<i32, String> {
    let mut done = 0;
    while began.elapsed() < SLICE {
        let id = 1 + (done * 7 + number as i32 * 211) % 2000;
        let run = connection.run(operation, id).await;
        run.map_err(|error| words(&*error))?;
        done += 1;
    }
    Ok(done)
}

const CONNECTIONS: usize = 8;
const WARM_UP: usize = 3;
const ROUNDS: usize = 12;
const SLICE: Duration = Duration::from_millis(40);
const HANG: Duration = Duration::from_secs(10);
