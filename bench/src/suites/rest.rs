//! What a pool does that nobody uses, and how long the compute sleeps.

mod arms;

use std::any::Any;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use neon_sim::{Counters, NeonSim};
use tokio::time::sleep;

use self::arms::{Kind, start};
use super::on_runtime;
use crate::plot::{Bars, Group};
use crate::pools::names_with_pythons;
use crate::report::{Cell, Chapter, PlotFile, Table, Unit};
use crate::stand_in;

/// The compute is suspended after so long, instead of Neon's 300 s.
const WINDOW: Duration = Duration::from_secs(2);
const SCALE: u32 = 150;
const OBSERVED: Duration = Duration::from_secs(60);

pub fn run() -> Chapter {
    on_runtime(async {
        let names = names_with_pythons();
        let pairs = Kind::ALL
            .into_iter()
            .flat_map(|kind| (0..names.len()).map(move |pool| (kind, pool)));
        // All at the same time: they rest.
        let observed = join_all(pairs.map(|(kind, pool)| observe(kind, pool))).await;
        let mut table = Table::new("rest", "", &names);
        let mut groups = Vec::new();
        for (kind, row) in Kind::ALL.iter().zip(observed.chunks(names.len())) {
            let what = |what: &str| format!("{}: {what}", kind.words());
            let cells = |value: &dyn Fn(&Counters, f64) -> f64| cells(row, value);
            let asleep = cells(&|_, asleep| asleep);
            table.row(&what("time suspended"), Unit::ShareAsleep, asleep);
            let wakes = cells(&|counters, _| counters.wakes as f64);
            table.row(&what("wake-ups"), Unit::Count, wakes);
            let opened = cells(&|counters, _| counters.direct.connections as f64);
            table.row(&what("connections opened"), Unit::Count, opened);
            let sent = cells(&|counters, _| counters.direct.bytes_in as f64);
            table.row(&what("bytes sent"), Unit::Bytes, sent);
            let bars = row.iter().map(|observed| match observed {
                Observed::Counted { asleep, .. } => Some(asleep * 100.0),
                Observed::Refused(_) | Observed::Nothing => None,
            });
            groups.push((kind.words().to_owned(), bars.collect()));
        }
        Chapter {
            suite: "rest".into(),
            title: "At rest".into(),
            text: TEXT.into(),
            tables: vec![table],
            plots: vec![plot(&names, &groups)],
        }
    })
}

/// What was seen of a pool.
enum Observed {
    Counted {
        /// What happened since the pool was used.
        counters: Box<Counters>,
        /// How much of the time after the first window.
        asleep: f64,
    },
    /// The pool cannot be built so, and says why.
    Refused(String),
    /// The pool has no such setting.
    Nothing,
}

async fn observe(kind: Kind, pool: usize) -> Observed {
    if !kind.is_of(pool) {
        return Observed::Nothing;
    }
    let neon = sim().await;
    let resting: Box<dyn Any + Send> = match start(kind, pool, &neon.url()).await {
        Ok(resting) => resting,
        Err(refusal) => return Observed::Refused(refusal),
    };
    let used = neon.counters();
    sleep(WINDOW + WINDOW / 4).await;
    let (window, began) = (neon.counters(), Instant::now());
    sleep(OBSERVED).await;
    let now = neon.counters();
    let asleep = (now - window).time_suspended.as_secs_f64() / began.elapsed().as_secs_f64();
    drop(resting);
    Observed::Counted {
        counters: Box::new(now - used),
        // A thread that wakes a little late is not told.
        asleep: (asleep * 1000.0).round() / 1000.0,
    }
}

async fn sim() -> NeonSim {
    // The cold start is to the window what 0.45 s are to Neon's.
    let builder = stand_in::builder()
        .suspend_after(WINDOW)
        .cold_start(Duration::from_millis(3));
    let neon = builder.start().await.expect("the stand-in for Neon starts");
    neon.sql(stand_in::SCHEMA).await.expect("tables");
    neon
}

fn cells(row: &[Observed], value: &dyn Fn(&Counters, f64) -> f64) -> Vec<Cell> {
    let value = |observed: &Observed| match observed {
        Observed::Counted { counters, asleep } => Some(value(counters, *asleep)),
        Observed::Refused(_) | Observed::Nothing => None,
    };
    let ours = value(&row[0]);
    let cell = |(pool, observed): (usize, &Observed)| match (observed, value(observed)) {
        (_, Some(value)) => Cell::counted(value, ours.filter(|_| pool > 0)),
        (Observed::Refused(refusal), None) => {
            let (refusal, _) = refusal.split_once(',').unwrap_or((refusal, ""));
            Cell::Words(format!("refused: {refusal}"))
        }
        _ => Cell::Nothing,
    };
    row.iter().enumerate().map(cell).collect()
}

fn plot(names: &[&str], groups: &[Group]) -> PlotFile {
    let path = "benchmarks/rest-suspended.svg".to_owned();
    let bars = Bars {
        title: "Time suspended while a pool rests (–: the pool refuses, or has no such setting)",
        y: "of the time, %",
        names,
        groups,
    };
    let written = bars.write(&stand_in::repository().join("docs").join(&path));
    written.expect("a picture is written");
    let alt = "Bars: the share of the time in which the compute is suspended, by pool and its settings; a dash where a pool has no such setting or refuses it.";
    PlotFile {
        path,
        alt: alt.into(),
    }
}

const TEXT: &str = "\
A pool of three connections is used once, and then nobody asks it for anything. The compute is suspended after 2 s instead of 300 s, \
and each pool's times are shortened by the same factor, 150: an `idle_timeout` of ten minutes is 4 s, a `max_lifetime` of half an hour \
12 s, bb8's reaper comes every 0.2 s, and that minute stands for two and a half hours. mobc has no connection to rest with: \
diesel-async's manager tells it of every one that works that it is broken. All pools rest at the same time, each on a \
compute of its own. The first window passes awake with every pool; the \
time suspended is that of a minute after it, the rest is counted from the start. The bytes are those of PostgreSQL's protocol after the login, \
including the farewell of a connection that is closed: ours closes each before the compute is suspended, with the 5 B that say so; who sends \
nothing leaves them to the suspension, or closes them without a word.

A pool that does not open connections by itself lets the compute sleep. One that keeps a connection ready (`min_idle`, \
`min_connections`) replaces it when it has been idle or alive for too long, and each replacement wakes the compute for a whole window, \
although nobody has come; the shorter its times, the less the compute sleeps. Ours refuses that setting unless the compute never \
suspends. asyncpg keeps ten connections as it comes, here three. It closes those that were idle \
for 300 s, just when the compute is suspended, and either may come first: connections that the suspension ends it opens anew at once, which wakes \
what has just fallen asleep, window for window; those that it has closed itself it does not. Set up, its `min_size` is 0. Where nothing keeps a connection ready, the pools do not differ in what the compute's \
sleep costs.\
";
