//! Who gets how much done in a slice of time.

use std::time::{Duration, Instant};

use crate::contenders::{Operation, Ours, Peer, Sqlx, Stock, TokioPostgres};

/// Operations per second, round by round: ours, AsyncPgConnection, tokio-postgres, sqlx.
pub struct Rates(Vec<[f64; 4]>);

impl Rates {
    pub fn per_second(&self) -> [f64; 4] {
        [0, 1, 2, 3].map(|who| median(self.0.iter().map(|round| round[who])))
    }

    /// Of ours to each peer's.
    pub fn ratios(&self) -> [f64; 3] {
        [1, 2, 3].map(|who| median(self.0.iter().map(|round| round[0] / round[who])))
    }
}

pub async fn race(
    operation: Operation,
    connections: usize,
    ours: &mut [Option<Ours>],
    stock: &mut [Option<Stock>],
    tokio_postgres: &mut [Option<TokioPostgres>],
    sqlx: &mut [Option<Sqlx>],
) -> Rates {
    let mut rounds = Vec::new();
    for round in 0..WARM_UP + ROUNDS {
        let mut rates = [0.0; 4];
        // Which core a server process is on makes a difference: no connection stands for all.
        let first = round % (ours.len() - connections + 1);
        let some = first..first + connections;
        // Nobody always comes behind the same one.
        for turn in 0..4 {
            let who = (turn + round) % 4;
            rates[who] = match who {
                0 => slice(operation, &mut ours[some.clone()]).await,
                1 => slice(operation, &mut stock[some.clone()]).await,
                2 => slice(operation, &mut tokio_postgres[some.clone()]).await,
                _ => slice(operation, &mut sqlx[some.clone()]).await,
            };
        }
        // Each connection prepares its statements first.
        if round >= WARM_UP {
            rounds.push(rates);
        }
    }
    Rates(rounds)
}

/// Each connection works on its own task.
async fn slice<P: Peer>(operation: Operation, connections: &mut [Option<P>]) -> f64 {
    let began = Instant::now();
    let tasks: Vec<_> = connections
        .iter_mut()
        .enumerate()
        .map(|(number, connection)| {
            let mut connection = connection.take().expect("it was given back");
            tokio::spawn(async move {
                let mut done = 0;
                while began.elapsed() < SLICE {
                    let id = 1 + (done * 7 + number as i32 * 211) % 2000;
                    connection.run(operation, id).await;
                    done += 1;
                }
                (connection, done)
            })
        })
        .collect();
    let mut done = 0;
    for (task, place) in tasks.into_iter().zip(connections) {
        let (connection, count) = task.await.expect("no panic");
        *place = Some(connection);
        done += count;
    }
    f64::from(done) / began.elapsed().as_secs_f64()
}

pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

const WARM_UP: usize = 8;
const ROUNDS: usize = 24;
const SLICE: Duration = Duration::from_millis(50);
