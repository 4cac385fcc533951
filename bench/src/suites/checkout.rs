//! What a pool itself costs: get and drop of connections that were used a moment ago, and how long its callers wait.

mod crowd;
mod parts;
mod watched;

use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use neon_sim::NeonSim;
use tokio::task::spawn_blocking;

use self::crowd::{Crowd, pool_of_used};
use self::parts::{Job, WATCHED, Work, allocations, side_by_side};
use super::{on_runtime, tell, turns};
use crate::each_pool;
use crate::plot::{Line, Lines};
use crate::pools::{NAMES, Pool};
use crate::report::{Chapter, PlotFile, Table, Unit};
use crate::stand_in;
use crate::stats::percentile;

pub use self::parts::run as run_part;

pub fn run() -> Chapter {
    on_runtime(async {
        let builder = stand_in::builder().never_suspend();
        // A pool that opens a connection for each get may be faster than the server is at closing them.
        let builder = builder.postgres_settings([("max_connections", "500")]);
        let neon = builder.start().await.expect("the stand-in for Neon starts");
        neon.sql(stand_in::SCHEMA).await.expect("a schema");
        let url = neon.postgres_url();

        let mut costs = Table::new("costs", "get and drop", &NAMES).text(COSTS);
        let is_reopened = servers_part(&neon, &mut costs).await;
        let arms = each_pool!(P => Arm::of(pool_of_used::<P>(&url).await));
        let began = Instant::now();
        let times = times(&arms, &is_reopened).await;
        tell("times", began);
        let began = Instant::now();
        let (waits, plot) = waits(&arms, &is_reopened).await;
        tell("waits", began);
        drop(arms);
        let began = Instant::now();
        let counts = spawn_blocking(move || Counts::of(&url, &is_reopened));
        let counts = counts.await.expect("no panic");
        tell("counts", began);
        for (at, tasks) in TASKS.into_iter().enumerate() {
            let what = named(tasks);
            costs.measured(&format!("{what}: time"), Unit::Seconds, &times[at]);
            let of_each = |counts: &[Vec<f64>]| -> Vec<_> {
                counts.iter().map(|arm| arm.get(at).copied()).collect()
            };
            let allocations = of_each(&counts.allocations);
            costs.counted(&format!("{what}: allocations"), Unit::Count, &allocations);
            let calls = of_each(&counts.system_calls);
            // A few more or less, by what the scheduler does.
            costs.measured_once(&format!("{what}: system calls"), Unit::Count, &calls);
            let instructions = of_each(&counts.instructions);
            let name = format!("{what}: instructions");
            costs.counted(&name, Unit::Instructions, &instructions);
        }
        let mut arms = NAMES.to_vec();
        arms.push("diesel-neon, with a hook and `silence_threshold`");
        let mut look_ups = Table::new("look-ups", "callers", &arms).text(LOOK_UPS);
        for (at, callers) in CALLERS.into_iter().enumerate() {
            let counts = counts.look_ups.iter().map(|arm| arm.get(at).copied());
            let counts: Vec<_> = counts.collect();
            look_ups.counted(&grouped(callers), Unit::Instructions, &counts);
        }
        Chapter {
            suite: "checkout".into(),
            title: "Checkout".into(),
            text: TEXT.into(),
            tables: vec![costs, waits, look_ups],
            plots: vec![plot],
        }
    })
}

const TEXT: &str = "\
Ten connections that were used a moment ago, and tasks that get one, let other tasks run once, and drop it; a task that is alone \
lets nobody run. No pool checks a connection that it hands out, so that its own work is left. The server is on loopback, without TLS \
or a proxy.

Order has its price. diesel-neon, deadpool, deadpool-postgres, mobc and sqlx serve callers in the order in which they came: this crate \
has a line of tickets, the others have tokio's semaphore, which is fair. bb8 wakes the caller that has waited longest, but whoever asks \
before that one runs takes the connection, mostly the task that has just given it back; the one that was woken goes to the end of the line. \
So most of bb8's gets wait for nobody and wake nobody, and its median is the shortest by far. The price is paid by the others: \
see its longest waits, and how many times the median they are.

Two peers do more than their part. sqlx asks the server each time that a connection comes back, in a task of its own, which no setting \
switches off. mobc with diesel-async's manager opens a connection for each get: asked whether a connection that comes back is valid, the manager \
answers whether it is broken, so that mobc closes those that are not. It is given a hundredth of the laps, and is left out where the crowd is large.";

const COSTS: &str = "\
By one get and drop. Times are those of all tasks together, on two workers. Allocations, system calls and instructions are those of \
a runtime of one thread, warm: twice as many laps less as many. Round trips and connections are what the stand-in's proxy has \
counted for one task. sqlx's instructions with 10,000 tasks are not counted: its queue takes valgrind a minute.";

const WAITS: &str = "\
From the call of get to its connection, on two workers. Where callers are served in their order, those at the end of the line wait as \
long as the others.";

const LOOK_UPS: &str = "\
Instructions of the client, on one thread, for get, a look-up by key and drop, by so many callers at once. The pools are as above; the \
last column is this crate's with a `before_acquire` that does nothing, and with statements that are looked after. \
deadpool-postgres runs a prepared statement of tokio-postgres: \
nothing builds its SQL, and nothing finds it by its text. mobc's instructions would be those of its logins.";

const TASKS: [u32; 4] = [1, 2, 64, 10_000];
/// The laps of a round for each of [`TASKS`], and the rounds.
const TIMED: [(u32, usize); 4] = [(1000, 51), (500, 51), (40, 25), (2, 15)];
/// The same where waits are taken; nobody waits alone.
const WAITED: [(u32, usize); 4] = [(0, 0), (1000, 11), (200, 11), (10, 9)];
/// The laps that are counted.
const COUNTED: [u32; 4] = [400, 200, 10, 1];

/// Its queue of 10,000 takes valgrind a minute, more than all others together.
const SLOW: &str = "sqlx";

const CALLERS: [u32; 4] = [1, 10, 100, 1000];
const LOOKED_UP: [u32; 4] = [300, 40, 6, 1];

/// So few laps has an arm that opens a connection for each.
const REOPENED: u32 = 100;
/// More tasks are not asked of it.
const MOST_REOPENED: u32 = 64;
/// A few are as many as more where system calls are counted. Instructions are not: nearly all are those of logins.
const MOST_COUNTED: u32 = 10;

fn crowd(tasks: u32, laps: u32, is_reopened: bool) -> Option<Crowd> {
    match is_reopened {
        false => Some(Crowd { tasks, laps }),
        true if tasks > MOST_REOPENED => None,
        true => Some(Crowd {
            tasks,
            laps: (laps / REOPENED).max(1),
        }),
    }
}

/// A pool with its type forgotten.
struct Arm {
    time: Box<dyn Fn(Crowd) -> BoxFuture<'static, f64>>,
    waits: Box<dyn Fn(Crowd) -> BoxFuture<'static, Vec<f64>>>,
}

impl Arm {
    fn of<P: Pool>(pool: P) -> Self {
        let same = pool.clone();
        Self {
            time: Box::new(move |crowd| {
                let pool = pool.clone();
                async move { crowd.time(&pool).await }.boxed()
            }),
            waits: Box::new(move |crowd| {
                let pool = same.clone();
                async move { crowd.waits(&pool).await }.boxed()
            }),
        }
    }
}

/// Adds what the server sees of one task. Returns which arms open a connection for each lap.
async fn servers_part(neon: &NeonSim, table: &mut Table) -> Vec<bool> {
    let laps = Crowd { tasks: 1, laps: 50 };
    let seen = each_pool!(P => {
        let pool: P = pool_of_used(&neon.url()).await;
        let before = neon.counters();
        laps.hold(&pool).await;
        // What follows a drop may come late.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let seen = (neon.counters() - before).direct;
        let trips = seen.flights + seen.handshake_flights;
        [trips, seen.connections].map(|count| count as f64 / laps.uses())
    });
    table.counted(
        "round trips",
        Unit::Count,
        &seen.map(|[trips, _]| Some(trips)),
    );
    let opened = seen.map(|[_, opened]| opened);
    table.counted("connections opened", Unit::Count, &opened.map(Some));
    opened.iter().map(|opened| *opened > 0.5).collect()
}

/// Returns the seconds by use: for each of [`TASKS`] the rounds of each arm.
async fn times(arms: &[Arm], is_reopened: &[bool]) -> Vec<Vec<Vec<f64>>> {
    let mut times = Vec::new();
    for (tasks, (laps, rounds)) in TASKS.into_iter().zip(TIMED) {
        let mut by_arm = vec![Vec::new(); arms.len()];
        for round in 0..rounds {
            for arm in turns(round, arms.len()) {
                if let Some(crowd) = crowd(tasks, laps, is_reopened[arm]) {
                    by_arm[arm].push((arms[arm].time)(crowd).await);
                }
            }
        }
        times.push(by_arm);
    }
    times
}

/// Returns the table of how long callers wait, and a picture of the largest crowd.
async fn waits(arms: &[Arm], is_reopened: &[bool]) -> (Table, PlotFile) {
    let mut table = Table::new("waits", "waits", &NAMES).text(WAITS);
    let mut lines = Vec::new();
    for (tasks, (laps, rounds)) in TASKS.into_iter().zip(WAITED) {
        let mut by_arm = vec![Vec::new(); arms.len()];
        for round in 0..rounds {
            for arm in turns(round, arms.len()) {
                if let Some(crowd) = crowd(tasks, laps, is_reopened[arm]) {
                    let mut waits = (arms[arm].waits)(crowd).await;
                    let figures = [0.5, 0.99, 1.0]
                        .map(|share| percentile(&mut waits, share).expect("each use has waited"));
                    by_arm[arm].push(figures);
                    if round + 1 == rounds && tasks == LARGEST {
                        lines.push((arm, longest_first(&mut waits)));
                    }
                }
            }
        }
        if rounds == 0 {
            continue;
        }
        let what = named(tasks);
        let mut row = |name: &str, unit, figure: fn([f64; 3]) -> f64| {
            let rounds = by_arm
                .iter()
                .map(|rounds| rounds.iter().copied().map(figure).collect());
            table.measured(
                &format!("{what}: {name}"),
                unit,
                &rounds.collect::<Vec<_>>(),
            );
        };
        row("median", Unit::Seconds, |[median, _, _]| median);
        row("p99", Unit::Seconds, |[_, p99, _]| p99);
        row("longest", Unit::Seconds, |[_, _, longest]| longest);
        row("p99 over the median", Unit::Times, |[median, p99, _]| {
            p99 / median
        });
        row(
            "longest over the median",
            Unit::Times,
            |[median, _, longest]| longest / median,
        );
    }
    (table, picture(lines))
}

/// Returns points of how many milliseconds the longest waits take, by how many percent of the calls they are.
fn longest_first(waits: &mut [f64]) -> Vec<(f64, f64)> {
    let points = (0..=200).filter_map(|point| {
        let share = f64::from(point) / 200.0;
        let wait = percentile(waits, 1.0 - share)?;
        Some((share * 100.0, wait.max(1e-7) * 1e3))
    });
    points.collect()
}

fn picture(mut lines: Vec<(usize, Vec<(f64, f64)>)>) -> PlotFile {
    // In the order of the arms, which have their colours by it.
    lines.sort_by_key(|(arm, _)| *arm);
    let lines = lines.into_iter().map(|(arm, points)| {
        let name = NAMES[arm].into();
        Line { name, points }
    });
    let path = "benchmarks/checkout-waits.svg";
    let lines = Lines {
        title: "Waits of 10,000 tasks for 10 connections",
        x: "the longest n percent of the waits",
        y: "at least, ms",
        logarithmic: true,
        lines: &lines.collect::<Vec<_>>(),
    };
    let file = stand_in::repository().join("docs").join(path);
    lines.write(&file).expect("a picture");
    PlotFile {
        path: path.into(),
        alt:
            "How long 10,000 tasks wait for 10 connections, the longest waits first, with each pool"
                .into(),
    }
}

const LARGEST: u32 = 10_000;

/// What is counted by use: for each arm, and each of [`TASKS`] or [`CALLERS`].
struct Counts {
    allocations: Vec<Vec<f64>>,
    system_calls: Vec<Vec<f64>>,
    instructions: Vec<Vec<f64>>,
    look_ups: Vec<Vec<f64>>,
}

impl Counts {
    fn of(url: &str, is_reopened: &[bool]) -> Self {
        let is_reopened_arm = |arm: usize| is_reopened.get(arm).copied().unwrap_or_default();
        let crowds = |tasks: [u32; 4], laps: [u32; 4], is_reopened: bool| {
            let crowds = tasks.into_iter().zip(laps);
            let crowds = crowds.filter(move |(tasks, _)| !is_reopened || *tasks <= MOST_COUNTED);
            let crowds = crowds.filter_map(|(tasks, laps)| crowd(tasks, laps, is_reopened));
            crowds.collect::<Vec<_>>()
        };
        let holds: Vec<_> = is_reopened
            .iter()
            .map(|is_reopened| crowds(TASKS, COUNTED, *is_reopened))
            .collect();
        let mut arm = holds.iter();
        let allocations = each_pool!(P => allocations::<P>(url, arm.next().expect("an arm")));

        let hold = |(arm, crowds)| Job {
            work: Work::Hold,
            arm,
            crowds,
        };
        let holds: Vec<_> = holds.into_iter().enumerate().map(hold).collect();
        let calls = side_by_side(&holds, |job| job.system_calls(url));

        let all = (0..=WATCHED).map(|arm| Job {
            work: Work::LookUp,
            arm,
            crowds: crowds(CALLERS, LOOKED_UP, false),
        });
        let holds = holds.into_iter().map(|mut job| {
            if NAMES.get(job.arm) == Some(&SLOW) {
                job.crowds.retain(|crowd| crowd.tasks < LARGEST);
            }
            job
        });
        let jobs: Vec<_> = all.chain(holds).collect();
        let mut instructions = side_by_side(&jobs, |job| match is_reopened_arm(job.arm) {
            true => None,
            false => job.instructions(url),
        });
        let holds = instructions.split_off(WATCHED + 1);
        // Where a tool is missing, there is nothing to show.
        let or_nothing = |counts: Vec<Option<Vec<f64>>>| {
            counts.into_iter().map(Option::unwrap_or_default).collect()
        };
        Self {
            allocations: allocations.to_vec(),
            system_calls: or_nothing(calls),
            instructions: or_nothing(holds),
            look_ups: or_nothing(instructions),
        }
    }
}

fn named(tasks: u32) -> String {
    match tasks {
        1 => "1 task".into(),
        _ => format!("{} tasks", grouped(tasks)),
    }
}

/// Returns a number with a comma in front of its last three digits.
fn grouped(number: u32) -> String {
    match number {
        0..1000 => number.to_string(),
        _ => format!("{},{:03}", number / 1000, number % 1000),
    }
}
