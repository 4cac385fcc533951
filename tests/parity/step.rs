//! The steps of a walk, and their generation.

use diesel::connection::CacheSize;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::result::QueryResult;
use diesel::sql_types::{
    Array, BigInt, Bool, Bytea, Date, Double, Float, Integer, Interval, Jsonb, Nullable, Numeric,
    Range, SmallInt, Text, Timestamp, Timestamptz,
};
use diesel_async::TransactionManager;
use fastrand::Rng;

use crate::subject::{Nest, Part, Subject, rows};

diesel::table! {
    items (id) {
        id -> Integer,
        name -> Text,
        amount -> Nullable<Integer>,
    }
}

/// The state that each of the two connections has for itself.
pub const SCHEMA: &str = "CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, \
         amount INTEGER CHECK (amount >= 0), other TEXT DEFAULT 'ö'); \
     CREATE TABLE parts (item INTEGER REFERENCES items ON DELETE CASCADE \
         DEFERRABLE INITIALLY DEFERRED, span INT4RANGE, EXCLUDE USING gist (span WITH &&))";

#[derive(Clone, Debug)]
pub enum Step {
    Execute(String),
    Load(String),
    Batch(String),
    Typed(Typed),
    Begin,
    Commit,
    RollBack,
    BeginTest,
    Nest(Nest),
    Build([u8; 3], String),
    Cache(bool),
}

/// A statement that Diesel's query builder makes.
#[derive(Clone, Debug)]
pub enum Typed {
    Numbers(i16, i32, i64, f32, f64),
    Text(String),
    Bytes(Vec<u8>),
    Nulls(Option<bool>, Option<String>, Option<i32>),
    Lists(Vec<Option<i32>>, Vec<String>),
    Time(i64, i32),
    Range(i32, i32),
    Decimal(i64, i64),
    Json(String, i64),
    Insert(i32, String, Option<i32>),
    InsertMany(Vec<(i32, String)>),
    Upsert(i32, String),
    Update(i32, Option<i32>),
    Delete(i32),
    Find(i32),
    All(i64),
    Any(Vec<i32>),
    Count,
}

impl Step {
    pub async fn run<C: Subject>(&self, connection: &mut C) -> QueryResult<String> {
        let ended = match self {
            Self::Execute(sql) => {
                let count = connection
                    .execute_returning_count(diesel::sql_query(sql))
                    .await;
                return count.map(|count| format!("{count}"));
            }
            Self::Load(sql) => return rows(connection, diesel::sql_query(sql)).await,
            Self::Typed(typed) => return typed.run(connection).await,
            Self::Nest(nest) => return connection.nest(nest).await,
            Self::Build(options, sql) => return connection.build(*options, sql).await,
            Self::Cache(enabled) => {
                connection.set_prepared_statement_cache_size(match enabled {
                    true => CacheSize::Unbounded,
                    false => CacheSize::Disabled,
                });
                Ok(())
            }
            Self::Batch(sql) => connection.batch_execute(sql).await,
            Self::Begin => C::TransactionManager::begin_transaction(connection).await,
            Self::Commit => C::TransactionManager::commit_transaction(connection).await,
            Self::RollBack => C::TransactionManager::rollback_transaction(connection).await,
            Self::BeginTest => {
                let status = C::TransactionManager::transaction_manager_status_mut(connection);
                match status.transaction_depth() {
                    Ok(None) => connection.begin_test_transaction().await,
                    _ => Ok(()),
                }
            }
        };
        ended.map(|()| "done".to_owned())
    }

    /// The remaining steps, the last one first.
    pub fn stale_plan() -> Vec<Self> {
        let find = || Self::Typed(Typed::Find(1));
        let alter = "ALTER TABLE items ALTER amount TYPE BIGINT".to_owned();
        vec![find(), Self::Execute(alter), find(), find()]
    }

    pub fn any(rng: &mut Rng) -> Self {
        match rng.u8(..100) {
            0..=17 => Self::Execute(sql(rng)),
            18..=35 => Self::Load(sql(rng)),
            36..=47 => Self::Batch(batch(rng)),
            48..=69 => Self::Typed(Typed::any(rng)),
            70..=77 => Self::Begin,
            78..=83 => Self::Commit,
            84..=89 => Self::RollBack,
            90 => Self::BeginTest,
            91..=94 => Self::Nest(nest(rng, 3)),
            95..=97 => Self::Build([rng.u8(..4), rng.u8(..3), rng.u8(..3)], sql(rng)),
            98 => Self::Cache(false),
            _ => Self::Cache(true),
        }
    }
}

impl Typed {
    async fn run<C: Subject>(&self, c: &mut C) -> QueryResult<String> {
        macro_rules! same {
            ($($value:expr => $type:ty),*) => {
                rows(c, diesel::select(($($value.into_sql::<$type>(),)*))).await
            };
        }
        match self.clone() {
            Self::Numbers(a, b, e, f, g) => {
                same!(a => SmallInt, b => Integer, e => BigInt, f => Float, g => Double)
            }
            Self::Text(text) => same!(text => Text),
            Self::Bytes(bytes) => same!(bytes => Bytea),
            Self::Nulls(a, b, e) => {
                same!(a => Nullable<Bool>, b => Nullable<Text>, e => Nullable<Integer>)
            }
            Self::Lists(a, b) => same!(a => Array<Nullable<Integer>>, b => Array<Text>),
            Self::Time(seconds, days) => {
                let at = chrono::DateTime::from_timestamp(seconds, 5_000).unwrap();
                let interval = diesel::data_types::PgInterval::new(seconds, days, days);
                same!(at => Timestamptz, at.naive_utc() => Timestamp,
                    at.date_naive() => Date, interval => Interval)
            }
            Self::Range(from, to) => {
                let range = (
                    std::ops::Bound::Included(from),
                    std::ops::Bound::Excluded(to),
                );
                same!(range => Range<Integer>)
            }
            Self::Decimal(digits, scale) => {
                same!(bigdecimal::BigDecimal::new(digits.into(), scale) => Numeric)
            }
            Self::Json(text, number) => {
                same!(serde_json::json!({"text": text, "n": [number, null]}) => Jsonb)
            }
            Self::Insert(id, name, amount) => {
                let row = (
                    items::id.eq(id),
                    items::name.eq(name),
                    items::amount.eq(amount),
                );
                count(c, diesel::insert_into(items::table).values(row)).await
            }
            Self::InsertMany(all) => {
                let row = |(id, name)| (items::id.eq(id), items::name.eq(name));
                let all: Vec<_> = all.into_iter().map(row).collect();
                let insert = diesel::insert_into(items::table).values(all);
                rows(c, insert.returning(items::id)).await
            }
            Self::Upsert(id, name) => {
                let row = (items::id.eq(id), items::name.eq(&name));
                let insert = diesel::insert_into(items::table).values(row);
                let insert = insert.on_conflict(items::id).do_update();
                rows(
                    c,
                    insert
                        .set(items::name.eq(&name))
                        .returning(items::all_columns),
                )
                .await
            }
            Self::Update(id, amount) => {
                let update = diesel::update(items::table.find(id));
                count(c, update.set(items::amount.eq(amount))).await
            }
            Self::Delete(id) => count(c, diesel::delete(items::table.find(id))).await,
            Self::Find(id) => rows(c, items::table.find(id)).await,
            Self::All(limit) => rows(c, items::table.order(items::id).limit(limit)).await,
            Self::Any(ids) => {
                rows(
                    c,
                    items::table.filter(items::id.eq_any(ids)).order(items::id),
                )
                .await
            }
            Self::Count => rows(c, items::table.count()).await,
        }
    }

    fn any(rng: &mut Rng) -> Self {
        let number = |rng: &mut Rng| rng.i64(..) >> rng.u32(..64);
        match rng.u8(..26) {
            0 => {
                let n = number(rng);
                let f = [f64::NAN, f64::INFINITY, -0.0, f64::MIN_POSITIVE, n as f64];
                let f = *rng.choice(&f).unwrap();
                Self::Numbers(n as i16, n as i32, n, f as f32, f)
            }
            1 => Self::Text(text(rng)),
            2 => Self::Bytes((0..rng.usize(..300)).map(|_| rng.u8(..)).collect()),
            3 => Self::Nulls(
                rng.bool().then(|| rng.bool()),
                rng.bool().then(|| text(rng)),
                rng.bool().then(|| rng.i32(..)),
            ),
            4 => Self::Lists(
                (0..rng.usize(..9))
                    .map(|_| rng.bool().then(|| rng.i32(..)))
                    .collect(),
                (0..rng.usize(..9)).map(|_| text(rng)).collect(),
            ),
            5 => Self::Time(rng.i64(-9_000_000_000..9_000_000_000), rng.i32(-99..99)),
            6 => Self::Range(rng.i32(-9..9), rng.i32(-9..9)),
            7 => Self::Decimal(number(rng), rng.i64(-9..9)),
            8 => Self::Json(text(rng), number(rng)),
            9..=12 => Self::Insert(id(rng), name(rng), amount(rng)),
            13 => Self::InsertMany((0..rng.usize(..5)).map(|_| (id(rng), name(rng))).collect()),
            14..=15 => Self::Upsert(id(rng), name(rng)),
            16..=17 => Self::Update(id(rng), amount(rng)),
            18 => Self::Delete(id(rng)),
            19..=21 => Self::Find(id(rng)),
            22 => Self::All(rng.i64(-1..5)),
            23..=24 => Self::Any((0..rng.usize(..5)).map(|_| id(rng)).collect()),
            _ => Self::Count,
        }
    }
}

async fn count<C, Q>(connection: &mut C, query: Q) -> QueryResult<String>
where
    C: Subject,
    Q: diesel::query_builder::QueryFragment<Pg> + diesel::query_builder::QueryId,
{
    let count = connection.execute_returning_count(query).await?;
    Ok(format!("{count}"))
}

fn id(rng: &mut Rng) -> i32 {
    rng.i32(0..6)
}

fn name(rng: &mut Rng) -> String {
    format!("n{}", rng.u8(..8))
}

fn amount(rng: &mut Rng) -> Option<i32> {
    rng.bool().then(|| rng.i32(-1..4))
}

fn text(rng: &mut Rng) -> String {
    let len = [0, 1, 7, 200][rng.usize(..4)];
    let characters = ['a', '\'', '"', '\\', 'é', '→', '🦀', '\n', '\u{1}', '\0'];
    // Postgres refuses a zero byte in text.
    let known = if rng.u8(..20) == 0 { 10 } else { 9 };
    (0..len).map(|_| characters[rng.usize(..known)]).collect()
}

fn nest(rng: &mut Rng, deep: u8) -> Nest {
    let parts = (0..rng.u8(..4)).map(|_| match deep > 0 && rng.u8(..3) == 0 {
        true => Part::Nest {
            nest: nest(rng, deep - 1),
            swallowed: rng.bool(),
        },
        false => Part::Sql {
            sql: sql(rng),
            swallowed: rng.u8(..3) == 0,
        },
    });
    Nest {
        parts: parts.collect(),
        gives_up: rng.u8(..4) == 0,
    }
}

fn batch(rng: &mut Rng) -> String {
    let parts: Vec<_> = (0..rng.u8(..4)).map(|_| sql(rng)).collect();
    parts.join(["; ", ";", " ; -- é\n"][rng.usize(..3)])
}

/// Returns a statement; some have errors.
fn sql(rng: &mut Rng) -> String {
    let (a, b, n) = (id(rng), id(rng), name(rng));
    match rng.u8(..60) {
        0..=5 => format!("INSERT INTO items VALUES ({a}, '{n}', {b} - 1)"),
        6 => format!("INSERT INTO items VALUES ({a}, NULL)"),
        7..=8 => format!("INSERT INTO parts VALUES ({a}, int4range({a}, {a} + {b}))"),
        9 => format!("INSERT INTO items VALUES ({a}, '{n}') ON CONFLICT DO NOTHING RETURNING *"),
        10..=11 => format!("UPDATE items SET amount = {a} - 2 WHERE id >= {b} RETURNING id, name"),
        12..=13 => format!("DELETE FROM items WHERE id = {a}"),
        14..=16 => "SELECT id, name, amount FROM items ORDER BY id".to_owned(),
        17 => format!("SELECT i, repeat('x', i) FROM generate_series(1, {a} * 100) i"),
        18 => "SELECT 1 AS a, 2 AS a, NULL AS \"ö\", ARRAY[1, NULL], ROW(1, 'b')".to_owned(),
        19 => "SELECT".to_owned(),
        20 => String::new(),
        21 => "-- nothing".to_owned(),
        22 => "SELECT 1; SELECT 2".to_owned(),
        23 => format!("SELECT 'é→🦀', nonsense{a}"),
        24 => "SELECTT 1".to_owned(),
        25 => "SELECT 'unfinished".to_owned(),
        26 => format!("SELECT 10 / ({a} - {b})"),
        27..=28 => format!("SELECT 10 / ({a} - i) FROM generate_series(0, 3) i"),
        29 => format!("SELECT '{n}'::integer"),
        30 => "SELECT $1".to_owned(),
        31 => format!("EXPLAIN (COSTS off) SELECT * FROM items WHERE id = {a}"),
        32 => "SHOW transaction_isolation".to_owned(),
        33 => format!("SET application_name = '{n}'"),
        34 => "SET LOCAL work_mem = '1MB'".to_owned(),
        35 => "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE".to_owned(),
        36 => "SET TRANSACTION READ ONLY".to_owned(),
        37 => format!("VALUES ({a}, '{n}'), ({b}, NULL)"),
        38 => "TABLE parts".to_owned(),
        39 => "WITH gone AS (DELETE FROM items RETURNING id) SELECT count(*) FROM gone".to_owned(),
        40 => "SET CONSTRAINTS ALL IMMEDIATE".to_owned(),
        41 => "DO $$ BEGIN RAISE NOTICE 'a notice'; END $$".to_owned(),
        42 => "DO $$ BEGIN RAISE 'é: %', 1 USING DETAIL = 'd', HINT = 'h', TABLE = 't', \
               COLUMN = 'c', CONSTRAINT = 'x', ERRCODE = '40001'; END $$"
            .to_owned(),
        43 => "DO $$ BEGIN EXECUTE 'SELECT é FROM items'; END $$".to_owned(),
        44 => "SELECT * FROM missing".to_owned(),
        45 => "VACUUM items".to_owned(),
        46 => format!(
            "ALTER TABLE items ALTER amount TYPE {}",
            ["INTEGER", "BIGINT"][rng.usize(..2)]
        ),
        47 => "CREATE TEMPORARY TABLE IF NOT EXISTS t (id INTEGER); DROP TABLE t".to_owned(),
        48 => "NOTIFY channel, 'payload'".to_owned(),
        49 => "SELECT 'sad'::mood, '{}'::mood[]".to_owned(),
        50..=51 => format!("SELECT count(*) FROM items WHERE amount > {a}"),
        52..=53 => format!("UPDATE items SET name = '{n}' WHERE id = {b}"),
        54 => {
            "SELECT now() = transaction_timestamp(), timestamptz '2026-01-01 12:00+02'".to_owned()
        }
        55 => "SELECT set_config('a.b', 'ö', false)".to_owned(),
        56 => "SELECT 1 -- \0".to_owned(),
        57 => "LOCK TABLE items NOWAIT".to_owned(),
        58 => "COMMENT ON TABLE items IS 'x'".to_owned(),
        _ => "DEALLOCATE ALL".to_owned(),
    }
}
