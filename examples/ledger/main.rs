//! Money between two accounts: transfers that keep the sum, however many run at the same time.
//!
//! ```sh
//! DATABASE_URL=postgresql://… cargo run --example ledger
//! ```
//!
//! The example creates its tables, `accounts` and `transactions`, from `migrations/` if they are missing. It
//! sends one file to the database; `diesel migration run` records the migration as well:
//!
//! ```sh
//! diesel --config-file examples/ledger/diesel.toml migration run
//! ```

mod schema;
mod transfer;

use std::error::Error;

use bigdecimal::BigDecimal;
use chrono::{DateTime, SecondsFormat, Utc};
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::{Bool, Text};
use diesel_async::{RunQueryDsl, SimpleAsyncConnection};
use diesel_neon::{Pool, PooledConnection};
use tokio::task::JoinSet;

use schema::{accounts, transactions};
use transfer::{Amount, TransferError, transfer};

const CREATE_LEDGER: &str = include_str!("migrations/2026-01-05-091500_create_ledger/up.sql");

type BoxError = Box<dyn Error + Send + Sync>;

#[derive(Queryable, Selectable, Identifiable)]
#[diesel(table_name = accounts, check_for_backend(diesel::pg::Pg))]
struct Account {
    id: i32,
    name: String,
    balance: BigDecimal,
    created_at: DateTime<Utc>,
}

#[derive(QueryableByName)]
struct Session {
    #[diesel(sql_type = Text)]
    database: String,
    #[diesel(sql_type = Text)]
    role: String,
    #[diesel(sql_type = Text)]
    version: String,
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let pool = Pool::from_env()?;
    let mut conn = pool.get().await?;

    let session: Session = diesel::sql_query(
        "SELECT current_database()::text AS database, current_user::text AS role, version() AS version",
    )
    .get_result(&mut conn)
    .await?;
    println!("Connected to {} as {}.", session.database, session.role);
    println!("{}", session.version);

    create_ledger(&mut conn).await?;
    let checking = open_account(&mut conn, "Checking", 100.into()).await?;
    let savings = open_account(&mut conn, "Savings", 50.into()).await?;
    let ids = [checking.id, savings.id];
    print_balances(&mut conn, ids).await?;

    let thirty = Amount::try_from(BigDecimal::from(30))?;
    transfer(&mut conn, checking.id, savings.id, thirty).await?;
    println!(
        "\nTransferred 30.00 from {} to {}.",
        checking.name, savings.name
    );
    print_balances(&mut conn, ids).await?;

    let fortune = Amount::try_from(BigDecimal::from(1_000))?;
    match transfer(&mut conn, checking.id, savings.id, fortune).await {
        Err(refused @ TransferError::Overdraft { .. }) => println!("\nRefused: {refused}."),
        Err(error) => return Err(error.into()),
        Ok(()) => return Err("an overdraft went through".into()),
    }

    println!("\nThe latest transactions of {}:", savings.name);
    for (date, amount) in latest_transactions(&mut conn, &savings).await? {
        println!(
            "{} {amount:>8}",
            date.to_rfc3339_opts(SecondsFormat::Millis, true)
        );
    }

    // Each task needs a connection, and the pool may have only one.
    drop(conn);
    let mut tasks = JoinSet::new();
    for i in 0..20 {
        let pool = pool.clone();
        let cent = Amount::try_from("0.01".parse::<BigDecimal>()?)?;
        let [from, to] = if i % 2 == 0 { ids } else { [ids[1], ids[0]] };
        tasks.spawn(async move {
            let mut conn = pool.get().await?;
            transfer(&mut conn, from, to, cent).await?;
            Ok::<(), BoxError>(())
        });
    }
    while let Some(transferred) = tasks.join_next().await {
        transferred??;
    }
    println!("\nTransferred 0.01 twenty times at once, in both directions.");
    print_balances(&mut pool.get().await?, ids).await?;
    Ok(())
}

async fn create_ledger(conn: &mut PooledConnection<'_>) -> QueryResult<()> {
    let missing = diesel::select(sql::<Bool>("to_regclass('accounts') IS NULL"));
    if missing.get_result(conn).await? {
        conn.batch_execute(CREATE_LEDGER).await?;
    }
    Ok(())
}

/// Opens an account. The first deposit is a transaction too: a balance is always the sum of its account's
/// transactions.
async fn open_account(
    conn: &mut PooledConnection<'_>,
    name: &str,
    deposit: BigDecimal,
) -> QueryResult<Account> {
    conn.transaction(async |conn| {
        let account = diesel::insert_into(accounts::table)
            .values((accounts::name.eq(name), accounts::balance.eq(&deposit)))
            .returning(Account::as_returning())
            .get_result(conn)
            .await?;
        diesel::insert_into(transactions::table)
            .values((
                transactions::account_id.eq(account.id),
                transactions::amount.eq(&deposit),
            ))
            .execute(conn)
            .await?;
        Ok(account)
    })
    .await
}

async fn latest_transactions(
    conn: &mut PooledConnection<'_>,
    account: &Account,
) -> QueryResult<Vec<(DateTime<Utc>, BigDecimal)>> {
    transactions::table
        .filter(transactions::account_id.eq(account.id))
        .order((transactions::date.desc(), transactions::id.desc()))
        .limit(3)
        .select((transactions::date, transactions::amount))
        .load(conn)
        .await
}

async fn print_balances(conn: &mut PooledConnection<'_>, ids: [i32; 2]) -> QueryResult<()> {
    let accounts: Vec<Account> = accounts::table
        .filter(accounts::id.eq_any(ids))
        .order(accounts::id)
        .select(Account::as_select())
        .load(conn)
        .await?;
    println!();
    for account in &accounts {
        println!(
            "{:<10} {:>8}  since {}",
            account.name,
            account.balance,
            account.created_at.date_naive()
        );
    }
    let sum: BigDecimal = accounts.iter().map(|account| &account.balance).sum();
    println!("{:<10} {sum:>8}", "Sum");
    Ok(())
}
