//! What is left in the end: nothing.

use std::env;
use std::path::Path;
use std::process::Stdio;

use neon_sim::TestDatabase;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use super::common::{bounded, connect, eventually};
use super::start;

#[tokio::test]
async fn a_database_is_removed_with_its_test() {
    let watching = start(TestDatabase::builder()).await;
    let there = async |name: &str| {
        let sql = format!("SELECT FROM pg_database WHERE datname = '{name}'");
        !watching.sql(&sql).await.unwrap().is_empty()
    };
    let database = start(TestDatabase::builder()).await;
    let name = database.database().to_owned();
    let ca_path = database.ca_path().to_owned();
    let (client, driver) = connect(&database.pooled_url(), &ca_path).await;
    client.batch_execute("BEGIN; SELECT 1").await.unwrap();
    assert!(there(&name).await && ca_path.exists());
    drop(database);
    bounded(driver).await.unwrap().unwrap_err();
    assert!(!ca_path.exists());
    eventually("the database is gone", async || !there(&name).await).await;
    // The servers are still there for others.
    start(TestDatabase::builder()).await;
}

/// Set in a process that is to be killed.
const KILLED: &str = "NEON_SIM_TEST_IS_KILLED";

#[tokio::test]
async fn a_process_that_is_killed_leaves_nothing_behind() {
    if env::var_os(KILLED).is_some() {
        let database = start(TestDatabase::builder()).await;
        println!("\nCA={}", database.ca_path().display());
        std::future::pending::<()>().await;
    }
    let test = concat!(
        module_path!(),
        "::a_process_that_is_killed_leaves_nothing_behind"
    );
    let (_, test) = test.split_once("::").unwrap();
    let mut child = Command::new(env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(KILLED, "1")
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let folder = loop {
        let line = bounded(lines.next_line()).await.unwrap();
        if let Some(path) = line.expect("it says where").strip_prefix("CA=") {
            break Path::new(path).parent().unwrap().to_owned();
        }
    };
    let socket =
        || std::fs::read_dir(folder.join("run")).is_ok_and(|mut files| files.next().is_some());
    assert!(socket());
    bounded(child.kill()).await.unwrap();
    eventually("everything is gone", async || !folder.exists()).await;
}
