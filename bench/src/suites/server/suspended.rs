//! Requests that keep coming while the compute is suspended.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use neon_sim::{NeonSim, Suspension};
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::client::{Client, Request};
use super::process::Server;
use super::{BOOKS, NAMES, schema};
use crate::plot::{Bars, Group};
use crate::pools::Configuration;
use crate::report::{Cell, PlotFile, Table, Unit};
use crate::stand_in;
use crate::stats::{Figure, percentile};

const CYCLES: usize = 3;
/// Of [`AT_ONCE`] requests.
const BURSTS: usize = 20;
const AT_ONCE: usize = 5;
const PACE: Duration = Duration::from_millis(100);
/// Bursts before the suspension.
const BEFORE: usize = 4;
const PATIENCE: Duration = Duration::from_secs(3);
/// Between the suspensions of two arms.
const TURN: Duration = Duration::from_millis(37);

const WAYS: [(&str, Suspension); 3] = [
    ("57P01", Suspension::Normal),
    ("reset", Suspension::Reset),
    ("silence", Suspension::Silent),
];
const CONFIGURATIONS: [(&str, Configuration); 2] = [
    ("as it comes", Configuration::Default),
    ("set up", Configuration::Serverless),
];

const FAILED: &str = "\
Five requests come every tenth of a second, each a look-up, on as many connections as that takes. Meanwhile the compute is suspended, and \
the next connection wakes it, which takes 0.4 s: as when it is moved, or set to another size. That happens at the moment of such a burst, and \
a third and two thirds of the way to the next one. The connections end with 57P01, by a reset, or in silence. Counted are the requests of the \
two seconds from that burst on. One has failed that was answered with a 5xx, or not in three seconds. Ours does a read again whose \
connection was lost, since the example reads by `pool.retry()`; the peers have nothing like it, and theirs fail. *Set up* \
are the peers as in the other chapters, and ours with a `silence_threshold` of a second.

A connection that ours has used a moment ago is not checked: in silence, the requests of the next burst wait on as many \
as there were in use. With a `silence_threshold` they are done again after a second; without it their clients leave. Without a limit on a check all connections are soon waiting for one, until TCP gives up long after. The share that fails:";
const LATE: &str = "The 99th percentile of the answers that came, where those were more than half:";

/// Returns the failures, the slow answers, and a picture.
pub async fn tables() -> (Table, Table, PlotFile) {
    let arms = (0..NAMES.len()).flat_map(|arm| CONFIGURATIONS.map(|(_, how)| (arm, how)));
    let arms: Vec<(usize, Configuration)> = arms.collect();
    let sims: Vec<Arc<NeonSim>> = join_all(arms.iter().map(|_| sim())).await;
    let mut failed = Table::new("failed", "", &NAMES).text(FAILED);
    let mut late = Table::new("p99", "", &NAMES).text(LATE);
    let mut groups = Vec::new();
    for (way, suspension) in WAYS {
        let mut of_arms = vec![Vec::new(); arms.len()];
        for round in 0..CYCLES {
            for (place, cycle) in take_turns(&arms, &sims, suspension, round).await {
                of_arms[place].push(cycle);
            }
        }
        for (how, configuration) in CONFIGURATIONS {
            let what = format!("{way}; {how}");
            let of_arm = |arm: usize| {
                let is_it = |one: &(usize, Configuration)| *one == (arm, configuration);
                let place = arms.iter().position(is_it).expect("each in each way");
                &of_arms[place]
            };
            let rounds = |value: fn(&Cycle) -> Option<f64>| -> Vec<Vec<f64>> {
                let cycles = (0..NAMES.len()).map(of_arm);
                cycles
                    .map(|all| all.iter().filter_map(value).collect())
                    .collect()
            };
            let shares = rounds(|cycle| Some(cycle.failed as f64 / (BURSTS * AT_ONCE) as f64));
            let means = shares
                .iter()
                .map(|shares| shares.iter().sum::<f64>() / shares.len() as f64);
            let means: Vec<f64> = means.collect();
            let cells = means.iter().enumerate().map(|(arm, &mean)| Cell::Measured {
                value: Figure::of(&[mean]),
                // None where a peer had a cycle without a failure: few failures are chance.
                ratio: (arm > 0)
                    .then(|| Figure::ratio(&shares[0], &shares[arm]))
                    .flatten(),
            });
            failed.row(&what, Unit::Share, cells.collect());
            let group = match configuration {
                Configuration::Serverless => format!("{way}, set up"),
                _ => way.to_owned(),
            };
            let percents = means.iter().map(|share| Some(share * 100.0));
            groups.push((group, percents.collect()));
            let last = |cycle: &Cycle| {
                let mut answers = cycle.answers.clone();
                let last = percentile(&mut answers, 0.99);
                last.filter(|_| answers.len() > cycle.failed)
            };
            late.measured(&what, Unit::Seconds, &rounds(last));
        }
    }
    let plot = plot(&groups);
    (failed, late, plot)
}

async fn sim() -> Arc<NeonSim> {
    let neon = stand_in::start().await;
    neon.sql(&schema()).await.expect("tables");
    Arc::new(neon)
}

/// Has each arm live through a suspension, all at about the same time, in another order each time.
async fn take_turns(
    arms: &[(usize, Configuration)],
    sims: &[Arc<NeonSim>],
    suspension: Suspension,
    round: usize,
) -> Vec<(usize, Cycle)> {
    let all = Arc::new(Barrier::new(arms.len()));
    let mut cycles = JoinSet::new();
    for (place, (&(arm, configuration), neon)) in arms.iter().zip(sims).enumerate() {
        let (neon, all) = (Arc::clone(neon), Arc::clone(&all));
        let turn = TURN * ((place + round * 3) % arms.len()) as u32;
        cycles.spawn(async move {
            let server = Server::start(arm, configuration, &neon.url()).await;
            let load = Load::on(&server);
            load.burst(FILL).await.join_all().await;
            all.wait().await;
            sleep(turn).await;
            let moment = PACE * round as u32 / CYCLES as u32;
            (place, cycle(&load, &neon, suspension, moment).await)
        });
    }
    cycles.join_all().await
}

/// So many requests at once have the pool open all its connections.
const FILL: usize = 60;

#[derive(Clone)]
struct Cycle {
    failed: usize,
    /// The seconds that each took.
    answers: Vec<f64>,
}

async fn cycle(
    load: &Load,
    neon: &Arc<NeonSim>,
    suspension: Suspension,
    moment: Duration,
) -> Cycle {
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for _ in 0..BEFORE {
        pace.tick().await;
        let answers = load.burst(AT_ONCE).await.join_all().await;
        assert!(answers.iter().all(Option::is_some), "nothing happened yet");
    }
    let mut asked = JoinSet::new();
    let neon = Arc::clone(neon);
    pace.tick().await;
    let suspending = tokio::spawn(async move {
        sleep(moment).await;
        neon.suspend(suspension).await;
    });
    for _ in 0..BURSTS {
        let burst = load.burst(AT_ONCE).await;
        asked.spawn(burst.join_all());
        pace.tick().await;
    }
    suspending.await.expect("no panic");
    let answers: Vec<_> = asked.join_all().await.into_iter().flatten().collect();
    let failed = answers.iter().filter(|answer| answer.is_none()).count();
    let answers = answers.into_iter().flatten().collect();
    Cycle { failed, answers }
}

/// Clients that leave when they have waited for too long.
struct Load {
    server: SocketAddr,
    idle: Arc<Mutex<Vec<Client>>>,
}

impl Load {
    fn on(server: &Server) -> Self {
        Self {
            server: server.address,
            idle: Arc::default(),
        }
    }

    /// Asks so many times at once; each returns the seconds that it took, unless it failed.
    async fn burst(&self, requests: usize) -> JoinSet<Option<f64>> {
        let mut burst = JoinSet::new();
        for number in 0..requests {
            let (server, idle) = (self.server, Arc::clone(&self.idle));
            burst.spawn(async move {
                let began = Instant::now();
                let asked = async {
                    let client = idle.lock().expect("no panic").pop();
                    let mut client = match client {
                        Some(client) => client,
                        None => Client::connect(server).await.expect("the server runs"),
                    };
                    let request = Request::show(1 + number % BOOKS);
                    let answer = client.ask(&request).await.expect("a server that answers");
                    idle.lock().expect("no panic").push(client);
                    answer
                };
                let answer = timeout(PATIENCE, asked).await.ok()?;
                assert!(answer.is_right() || answer.status >= 500, "{answer:?}");
                answer.is_right().then(|| began.elapsed().as_secs_f64())
            });
        }
        burst
    }
}

fn plot(groups: &[Group]) -> PlotFile {
    let path = "benchmarks/server-failed.svg".to_owned();
    let title = "Failed requests of a server whose compute is suspended under load";
    let bars = Bars {
        title,
        y: "failed, %",
        names: &NAMES,
        groups,
    };
    let written = bars.write(&stand_in::repository().join("docs").join(&path));
    written.expect("a picture is written");
    let alt = format!("{title}: bars of each pool, by how the connections died.");
    PlotFile { path, alt }
}
