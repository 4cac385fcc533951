//! What is counted by one thread, mostly in a process of its own.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tokio::runtime::{Builder, Runtime};

use super::crowd::{Crowd, pool_of_used};
use super::watched::Watched;
use crate::count;
use crate::each_pool;
use crate::pools::{NAMES, Pool};

/// What a crowd does with a pool.
#[derive(Clone, Copy, Debug)]
pub enum Work {
    /// Get and drop.
    Hold,
    LookUp,
}

/// The number of an arm that [`NAMES`] does not have.
pub const WATCHED: usize = NAMES.len();

/// What to count with one pool.
#[derive(Debug)]
pub struct Job {
    pub work: Work,
    /// Its place among [`NAMES`], or [`WATCHED`].
    pub arm: usize,
    pub crowds: Vec<Crowd>,
}

impl Job {
    /// Returns the instructions by use, for each crowd; none without valgrind.
    pub fn instructions(&self, url: &str) -> Option<Vec<f64>> {
        let crowds = self.crowds.iter();
        let crowds: Vec<_> = crowds.flat_map(|crowd| [*crowd, crowd.twice()]).collect();
        let counts = count::instructions(&self.arguments(&crowds), url)?;
        let by_use = self.crowds.iter().zip(counts.chunks(2));
        Some(
            by_use
                .map(|(crowd, counts)| (counts[1] - counts[0]) / crowd.uses())
                .collect(),
        )
    }

    /// Returns the system calls by use, for each crowd; none without strace.
    pub fn system_calls(&self, url: &str) -> Option<Vec<f64>> {
        let crowds = self.crowds.iter().map(|crowd| {
            let calls = |crowd| count::system_calls(&self.arguments(&[crowd]), url);
            Some(rounded(
                (calls(crowd.twice())? - calls(*crowd)?) / crowd.uses(),
            ))
        });
        crowds.collect()
    }

    fn arguments(&self, crowds: &[Crowd]) -> [String; 4] {
        let work = match self.work {
            Work::Hold => HOLD,
            Work::LookUp => LOOK_UP,
        };
        let crowds = crowds.iter();
        let crowds: Vec<_> = crowds
            .map(|crowd| format!("{}x{}", crowd.tasks, crowd.laps))
            .collect();
        let arm = self.arm.to_string();
        ["checkout".into(), work.into(), arm, crowds.join(",")]
    }
}

/// Does `work` for each job on both cores, and returns what it returns in the jobs' order.
pub fn side_by_side<T: Send>(jobs: &[Job], work: impl Fn(&Job) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    let worker = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(job) = jobs.get(number) else {
                break;
            };
            let result = work(job);
            done.lock().expect("no panic").push((number, result));
        }
    };
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(worker);
        }
    });
    let mut done = done.into_inner().expect("no panic");
    done.sort_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Returns the allocations by use, for each crowd.
pub fn allocations<P: Pool>(url: &str, crowds: &[Crowd]) -> Vec<f64> {
    let runtime = one_thread();
    let pool: P = runtime.block_on(pool_of_used(url));
    let count = |crowd: Crowd| {
        let all = allocation_counter::measure(|| runtime.block_on(crowd.hold(&pool)));
        all.count_total as f64
    };
    let by_use = crowds.iter().map(|crowd| {
        // What grows has grown.
        count(*crowd);
        rounded((count(crowd.twice()) - count(*crowd)) / crowd.uses())
    });
    by_use.collect()
}

/// Takes what a few of many laps have away.
fn rounded(count: f64) -> f64 {
    let rounded = (count * 100.0).round() / 100.0;
    match rounded > 0.0 {
        true => rounded,
        false => 0.0,
    }
}

/// Has crowds use the pool of an arm, one after another, with a mark in front of each and at the end.
pub fn run(work: &str, arm: &str, crowds: &str) {
    let work = match work {
        HOLD => Work::Hold,
        LOOK_UP => Work::LookUp,
        unknown => panic!("no work is called {unknown}"),
    };
    let arm: usize = arm.parse().expect("a number");
    let crowds = crowds.split(',').map(|crowd| {
        let (tasks, laps) = crowd.split_once('x').expect("tasks and laps");
        let [tasks, laps] = [tasks, laps].map(|number| number.parse().expect("a number"));
        Crowd { tasks, laps }
    });
    let crowds: Vec<_> = crowds.collect();
    if arm == WATCHED {
        return use_by_all::<Watched>(work, &crowds);
    }
    let runs = each_pool!(P => use_by_all::<P> as fn(Work, &[Crowd]));
    runs[arm](work, &crowds);
}

fn use_by_all<P: Pool>(work: Work, crowds: &[Crowd]) {
    count::end_with_input();
    one_thread().block_on(async {
        let pool: P = pool_of_used(&count::url()).await;
        for crowd in crowds {
            count::mark();
            match work {
                Work::Hold => crowd.hold(&pool).await,
                Work::LookUp => crowd.look_up(&pool).await,
            }
        }
        count::mark();
    });
}

fn one_thread() -> Runtime {
    let mut builder = Builder::new_current_thread();
    builder.enable_all().build().expect("a runtime")
}

const HOLD: &str = "hold";
const LOOK_UP: &str = "look-up";
