//! Many instances of one app: a day of thousands on a virtual clock, a hundred real pools, and ten thousand connections.

mod children;
mod crowd;
mod day;
mod neon;
mod parts;
mod policies;
mod results;
mod simulation;
#[cfg(test)]
mod tests;
mod workers;

use std::time::Instant;

pub use self::children::PART;
use super::tell;
use crate::report::Chapter;

pub fn run() -> Chapter {
    let began = Instant::now();
    let (mut tables, plots) = results::simulated();
    tell("simulated", began);
    super::on_runtime(async {
        let began = Instant::now();
        tables.push(crowd::table().await);
        tell("crowd", began);
        let began = Instant::now();
        tables.push(workers::table().await);
        tell("connections", began);
    });
    Chapter {
        suite: "fleet".into(),
        title: "A fleet".into(),
        text: TEXT.into(),
        tables,
        plots,
    }
}

/// Does what has a process to itself.
pub fn run_part(arguments: &[&str]) {
    match arguments {
        [crowd::CROWD, arm] => crowd::run_part(arm),
        [workers::ALL] => workers::run_all(),
        [workers::HOLD, arm, pools] => workers::run_part(arm, pools),
        _ => panic!("no part of the suite is called {arguments:?}"),
    }
}

const TEXT: &str = "\
First a simulation on a virtual clock, always with the same outcome. What ours does is computed by the crate's own code: the pauses of its \
retries, the lifetimes and how they are spread, the sweeps, how many connections are made at once, the defaults. The others are models, \
after their documentation and source: bb8 connects again after 0.4 s, 0.8 s and so on, deadpool and sqlx tell the caller of a refusal by \
Neon's proxy, and none spreads its lifetimes; *again each second* is sqlx with what many apps put around it. The proxy has the defaults of \
Neon's own, by the code that `neon-sim` refuses with: 500 logins at once and 200 a second, and of those that find the compute asleep 300 \
in a second. The compute sleeps after 300 s and wakes in 0.45 s. Dead connections are noticed at once, in favour of all.

Requests that come at random never wake a compute as a crowd: it sleeps only if nobody comes for a whole window, and each instance \
connects when it is asked. The crowd is what a clock makes: a job everywhere in the same seconds. Then the proxy decides how long it takes, \
and a pool only who fails: those that pass a refusal on lose most of the callers, those that try again serve as many as the proxy lets in \
within the callers' patience. Ours has the most attempts refused, since it tries again soonest; that serves no more callers than the limit \
lets in, and is work for the proxy. Connections that are given up early cost logins: ours has more of them over the day than a pool that \
keeps its connections for half an hour, far below what the proxy takes, and fewer connections open. `min_idle` keeps them all open and the \
compute awake; ten minutes after the job all of them are replaced at once, refusals included, and ten minutes later again.\
";
