//! The example `ledger` keeps the sum.

mod common;

use common::{HANG, example, neon};
use neon_sim::NeonSim;
use tokio::time::timeout;

/// The output without the dates and the version.
const EXPECTED: &str = "\
Connected to neondb as neondb_owner.
PostgreSQL …

Checking     100.00  since …
Savings       50.00  since …
Sum          150.00

Transferred 30.00 from Checking to Savings.

Checking      70.00  since …
Savings       80.00  since …
Sum          150.00

Refused: the account has 70.00, which does not cover 1000.00.

The latest transactions of Savings:
…    30.00
…    50.00

Transferred 0.01 twenty times at once, in both directions.

Checking      70.00  since …
Savings       80.00  since …
Sum          150.00
";

#[tokio::test]
async fn keeps_the_sum_on_the_direct_endpoint_again_and_again() {
    let neon = neon().await;
    keeps_the_sum(&neon, &neon.url()).await;
}

#[tokio::test]
async fn keeps_the_sum_on_the_pooled_endpoint_again_and_again() {
    let neon = neon().await;
    keeps_the_sum(&neon, &neon.pooled_url()).await;
}

async fn keeps_the_sum(neon: &NeonSim, url: &str) {
    for _ in 0..2 {
        assert_eq!(ledger(neon, url).await, EXPECTED);
    }
    let wrong = "SELECT id FROM accounts WHERE balance <> \
        (SELECT sum(amount) FROM transactions WHERE account_id = accounts.id)";
    assert!(neon.sql(wrong).await.unwrap().is_empty());
    let transactions = neon.sql("SELECT count(*) FROM transactions").await.unwrap();
    // Each run makes two deposits and 21 transfers, each of them two transactions.
    assert_eq!(transactions, [[Some("88".to_owned())]]);
}

#[tokio::test]
async fn the_migration_goes_down_and_up_again() {
    const UP: &str =
        include_str!("../examples/ledger/migrations/2026-01-05-091500_create_ledger/up.sql");
    const DOWN: &str =
        include_str!("../examples/ledger/migrations/2026-01-05-091500_create_ledger/down.sql");
    let neon = neon().await;
    for migration in [UP, DOWN, UP] {
        neon.sql(migration).await.unwrap();
    }
}

async fn ledger(neon: &NeonSim, url: &str) -> String {
    let mut command = example("ledger");
    command
        .env("DATABASE_URL", url)
        .current_dir(neon.ca_path().parent().unwrap());
    let output = timeout(HANG, command.output());
    let output = output.await.expect("the example hangs").unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let stdout = String::from_utf8(output.stdout).unwrap();
    stdout.lines().map(|line| timeless(line) + "\n").collect()
}

fn timeless(line: &str) -> String {
    if line.starts_with("PostgreSQL ") {
        return "PostgreSQL …".to_owned();
    }
    match (line.split_once("since "), line.split_once("Z ")) {
        (Some((account, _date)), _) => format!("{account}since …"),
        (_, Some((_date, amount))) => format!("… {amount}"),
        _ => line.to_owned(),
    }
}
