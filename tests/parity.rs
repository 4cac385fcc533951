//! `Connection` against `AsyncPgConnection` on one server: they differ as `docs/differences.md` says, and in
//! nothing else.
#![allow(missing_debug_implementations, missing_docs, unreachable_pub)]

mod common;
#[path = "parity/differences.rs"]
mod differences;
#[path = "parity/scenes.rs"]
mod scenes;
#[path = "parity/step.rs"]
mod step;
#[path = "parity/subject.rs"]
mod subject;

use std::collections::BTreeSet;

use common::{HANG, connect, start};
use diesel_async::{AsyncConnection, AsyncPgConnection, TransactionManager};
use differences::{Difference, between};
use fastrand::Rng;
use step::{SCHEMA, Step};
use subject::{Outcome, Subject, Watched};
use tokio::time::timeout;

/// The seeds of a few thousand steps, always the same.
const WALKS: u64 = 220;
const STEPS: usize = 14;

#[tokio::test]
async fn statements_and_transactions_differ_as_the_page_says() {
    let neon = start().await;
    let database = neon.sql("SELECT current_database()").await.unwrap();
    let database = database[0][0].as_deref().unwrap();
    let grant = format!(
        "GRANT CREATE ON DATABASE {database} TO PUBLIC; \
         CREATE TYPE public.mood AS ENUM ('happy', 'sad')"
    );
    neon.sql(&grant).await.unwrap();
    let url = neon.postgres_url();
    let mut pair = None;
    let mut seen = BTreeSet::new();
    let mut wrong = Vec::new();
    for seed in 0..WALKS {
        let (mut ours, mut theirs) = match pair.take() {
            Some((mut ours, mut theirs)) => {
                clear(&mut ours).await;
                clear(&mut theirs).await;
                (ours, theirs)
            }
            None => {
                let theirs = AsyncPgConnection::establish(&url).await.unwrap();
                let mut theirs = Watched::new(theirs);
                let mut ours = Watched::new(connect(&url).await);
                prepare(&mut ours, "ours").await;
                prepare(&mut theirs, "theirs").await;
                (ours, theirs)
            }
        };
        match walk(seed, &mut ours, &mut theirs).await {
            Ok((found, goes_on)) => {
                seen.extend(found);
                pair = goes_on.then_some((ours, theirs));
            }
            Err(text) => wrong.push(text),
        }
    }
    let count = wrong.len();
    wrong.truncate(5);
    assert!(
        wrong.is_empty(),
        "{count} walks differ:\n{}",
        wrong.join("\n\n")
    );
    assert_eq!(seen, BTreeSet::from(Difference::ALL));
}

#[tokio::test]
async fn each_other_difference_of_the_page_is_there() {
    let neon = start().await;
    scenes::play(&neon).await;
}

#[test]
fn the_page_has_these_differences_and_no_others() {
    let page = include_str!("../docs/differences.md");
    let told = page.lines().filter_map(|line| line.strip_prefix("## "));
    let told: BTreeSet<_> = told.collect();
    let walked = Difference::ALL.map(Difference::heading);
    let tested: BTreeSet<_> = walked.into_iter().chain(scenes::SCENES).collect();
    assert_eq!(told, tested);
}

/// Walks one sequence of steps; returns the differences, and whether the connections can be used again.
async fn walk(
    seed: u64,
    ours: &mut Watched<diesel_neon::Connection>,
    theirs: &mut Watched<AsyncPgConnection>,
) -> Result<(BTreeSet<Difference>, bool), String> {
    let mut rng = Rng::with_seed(seed);
    let mut found = BTreeSet::new();
    let mut trail = Vec::new();
    // Few walks make a plan stale by chance.
    let mut first = match seed {
        0 => Step::stale_plan(),
        _ => Vec::new(),
    };
    for _ in 0..STEPS {
        let step = first.pop().unwrap_or_else(|| Step::any(&mut rng));
        let (a, b) = (take(ours, &step).await, take(theirs, &step).await);
        let Ok(differences) = between(&a, &b) else {
            let trail = trail.join("\n");
            return Err(format!(
                "walk {seed}:\n{trail}\n{step:?}\nOURS {a:#?}\nTHEIRS {b:#?}"
            ));
        };
        found.extend(&differences);
        if differences.into_iter().any(Difference::parts) {
            return Ok((found, false));
        }
        trail.push(format!("{step:?} -> {:.200}", a.result));
    }
    let goes_on = end(ours).await && end(theirs).await;
    Ok((found, goes_on))
}

/// Creates an empty schema for the connection.
async fn prepare<C: Subject>(watched: &mut Watched<C>, schema: &str) {
    let set = format!(
        "SET search_path = {schema}, public; SET client_min_messages = error; \
         DROP SCHEMA IF EXISTS {schema} CASCADE; CREATE SCHEMA {schema}; {SCHEMA}"
    );
    watched.connection.batch_execute(&set).await.unwrap();
    watched.outcome(Ok(String::new()));
}

async fn clear<C: Subject>(watched: &mut Watched<C>) {
    let clear = "TRUNCATE items, parts";
    watched.connection.batch_execute(clear).await.unwrap();
    watched.outcome(Ok(String::new()));
}

async fn take<C: Subject>(watched: &mut Watched<C>, step: &Step) -> Outcome {
    let done = timeout(HANG, step.run(&mut watched.connection)).await;
    watched.outcome(done.unwrap_or_else(|_| panic!("{step:?} hangs")))
}

/// Leaves every transaction; returns whether that was possible.
async fn end<C: Subject>(watched: &mut Watched<C>) -> bool {
    let connection = &mut watched.connection;
    loop {
        let status = C::TransactionManager::transaction_manager_status_mut(connection);
        match status.transaction_depth() {
            Ok(None) => return true,
            Ok(Some(_)) => {
                let ended = C::TransactionManager::rollback_transaction(connection).await;
                if ended.is_err() {
                    return false;
                }
            }
            Err(_) => return false,
        }
    }
}
