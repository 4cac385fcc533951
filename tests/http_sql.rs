//! SQL over HTTPS means what it means over TCP, however it is sent.
#![allow(missing_debug_implementations, missing_docs, unreachable_pub)]

mod common;

use common::{connect, over_https, start, users};
use diesel::deserialize::FromSql;
use diesel::pg::{Pg, PgValue};
use diesel::prelude::*;
use diesel::result::{DatabaseErrorInformation, Error};
use diesel::sql_query;
use diesel::sql_types::{Integer, Text};
use diesel_async::{AsyncConnection, RunQueryDsl, SimpleAsyncConnection};
use diesel_neon::DatabaseErrorExt;
use diesel_neon::http::{HttpConnection, TransactionUnsupported};
use neon_sim::NeonSim;

fn https(neon: &NeonSim) -> HttpConnection {
    HttpConnection::new(over_https(neon, neon.url())).unwrap()
}

#[derive(QueryableByName, Debug, PartialEq)]
struct Shown {
    #[diesel(sql_type = Text)]
    shown: String,
}

fn position(error: &Error) -> Option<i32> {
    match error {
        Error::DatabaseError(_, information) => {
            let information: &dyn DatabaseErrorInformation = &**information;
            information.statement_position()
        }
        _ => None,
    }
}

/// Errors of the login are those that mean that nothing has run, unless the statement raises them itself.
#[tokio::test]
async fn a_statement_that_raises_an_error_of_the_login_runs_once() {
    let neon = start().await;
    let mut http = https(&neon);
    http.batch_execute(
        "CREATE SEQUENCE runs; \
         CREATE FUNCTION raise(code text) RETURNS int LANGUAGE plpgsql AS \
         $$ BEGIN PERFORM nextval('runs'); RAISE 'own words' USING ERRCODE = code; END $$",
    )
    .await
    .unwrap();
    for (run, code) in (1..).zip(["53300", "57P03"]) {
        let raise = sql_query(format!("SELECT raise('{code}')"));
        let error = raise.execute(&mut http).await.unwrap_err();
        assert_eq!(error.sqlstate(), Some(code));
        assert!(!error.is_undelivered(), "{error}");
        assert_eq!(error.to_string(), "own words");
        let runs = neon.sql("SELECT last_value FROM runs").await.unwrap();
        assert_eq!(runs[0][0], Some(run.to_string()), "{code}");
    }
}

/// What is put around a statement must not complete it.
#[tokio::test]
async fn a_syntax_error_stays_one() {
    let neon = start().await;
    neon.sql("INSERT INTO users (name) VALUES ('Ada')")
        .await
        .unwrap();
    let mut tcp = connect(&neon.url()).await;
    let mut http = https(&neon);
    for sql in [
        "SELECT 'a' AS shown) , z AS (DELETE FROM users RETURNING name AS shown",
        "SELECT ('a' AS shown",
        "SELECT 'a' AS shown /* open",
        "SELECT 'a' AS shown, 'open",
        "SELECT 'a' AS \"shown",
        "SELECT $$a AS shown",
        "SELECT E'a\\' AS shown",
    ] {
        let theirs = sql_query(sql).load::<Shown>(&mut tcp).await.unwrap_err();
        let ours = sql_query(sql).load::<Shown>(&mut http).await.unwrap_err();
        let told = |error: &Error| (error.to_string(), position(error));
        assert_eq!(told(&ours), told(&theirs), "{sql}");
        assert_eq!(ours.sqlstate(), Some("42601"), "{sql}");
    }
    assert_eq!(users::table.count().get_result(&mut http).await, Ok(1_i64));
}

#[tokio::test]
async fn binds_have_their_types_in_what_cannot_be_wrapped() {
    let neon = start().await;
    neon.sql(
        "CREATE TABLE told (what text); GRANT ALL ON told TO PUBLIC; \
         CREATE PROCEDURE tell(a int) LANGUAGE sql AS $$ INSERT INTO told VALUES ('int') $$; \
         CREATE PROCEDURE tell(a text) LANGUAGE sql AS $$ INSERT INTO told VALUES ('text') $$; \
         CREATE PROCEDURE tell(a int[]) LANGUAGE sql AS $$ INSERT INTO told VALUES ('int[]') $$",
    )
    .await
    .unwrap();
    let mut http = https(&neon);
    let mut tcp = connect(&neon.url()).await;
    async fn tell<C: AsyncConnection<Backend = Pg>>(connection: &mut C) {
        let call = sql_query("CALL tell($1)").bind::<Integer, _>(7);
        call.execute(connection).await.unwrap();
        let call = sql_query("CALL tell($1)").bind::<Text, _>("$1");
        call.execute(connection).await.unwrap();
        let call = sql_query("CALL tell($1[2] /* $1 */)");
        let call = call.bind::<diesel::sql_types::Array<Integer>, _>(vec![1, 2]);
        call.execute(connection).await.unwrap();
        let explain = sql_query("EXPLAIN (COSTS off) SELECT 1 WHERE $1 = '$2' AND $2 IS NULL");
        let explain = explain.bind::<Text, _>("a").bind::<Integer, _>(1);
        explain.execute(connection).await.unwrap();
    }
    tell(&mut tcp).await;
    tell(&mut http).await;
    let told: Vec<Shown> = sql_query("SELECT what AS shown FROM told")
        .load(&mut http)
        .await
        .unwrap();
    let told: Vec<_> = told.iter().map(|told| &*told.shown).collect();
    assert_eq!(told, ["int", "text", "int", "int", "text", "int"]);
}

/// A rule that makes several statements of one allows no common table expression.
#[tokio::test]
async fn a_table_may_have_rules() {
    let neon = start().await;
    neon.sql(
        "CREATE TABLE log (name text); GRANT ALL ON log TO PUBLIC; \
         CREATE RULE log AS ON UPDATE TO users DO ALSO INSERT INTO log VALUES (NEW.name); \
         INSERT INTO users (name) VALUES ('Ada')",
    )
    .await
    .unwrap();
    let mut http = https(&neon);
    let rename =
        diesel::update(users::table.filter(users::name.eq("Ada"))).set(users::name.eq("Eve"));
    assert_eq!(rename.execute(&mut http).await, Ok(1));
}

#[tokio::test]
async fn positions_count_from_the_start_of_all_the_sql() {
    let neon = start().await;
    let mut tcp = connect(&neon.url()).await;
    let mut http = https(&neon);
    for sql in [
        " /* ö */ SELECT nam FROM users; -- end",
        ";; SELECT nam FROM users",
        "SELECT 1; SELECT 2 FROM users WHERE nam = 'x'",
    ] {
        let theirs = tcp.batch_execute(sql).await.unwrap_err();
        let ours = http.batch_execute(sql).await.unwrap_err();
        assert!(position(&theirs).is_some(), "{theirs:?}");
        assert_eq!(position(&ours), position(&theirs), "{sql}");
    }
    // An error in what is put in front of one statement is no other's.
    let mut batch = http.batch();
    let _first = batch.add_load::<(i32, String), _>(
        users::table
            .filter(users::name.eq("x"))
            .filter(sql_bool("nam = 1")),
    );
    let _second = batch.add_execute(sql_query(format!(
        "DELETE FROM users WHERE name IN ({})",
        vec!["'x'"; 200].join(",")
    )));
    let error = batch.send().await.unwrap_err();
    assert_eq!(error.sqlstate(), Some("42703"));
    assert_eq!(position(&error), None, "{error:?}");
}

fn sql_bool(sql: &str) -> diesel::expression::SqlLiteral<diesel::sql_types::Bool> {
    diesel::dsl::sql(sql)
}

#[derive(Debug, PartialEq)]
struct OidOf(u32);

impl<ST> FromSql<ST, Pg> for OidOf {
    fn from_sql(value: PgValue<'_>) -> diesel::deserialize::Result<Self> {
        Ok(Self(value.get_oid().get()))
    }
}

#[derive(QueryableByName, Debug, PartialEq)]
struct Typed {
    #[diesel(sql_type = Integer)]
    shown: OidOf,
}

#[tokio::test]
async fn a_column_of_a_domain_has_the_type_below_it() {
    let neon = start().await;
    neon.sql("CREATE DOMAIN positive AS int CHECK (VALUE > 0)")
        .await
        .unwrap();
    let query = || sql_query("SELECT 1::positive AS shown");
    let theirs: Vec<Typed> = query().load(&mut connect(&neon.url()).await).await.unwrap();
    let ours: Vec<Typed> = query().load(&mut https(&neon)).await.unwrap();
    assert_eq!((ours[0].shown.0, ours), (23, theirs));
}

#[tokio::test]
async fn transaction_control_is_found_behind_what_means_nothing() {
    let neon = start().await;
    let mut http = https(&neon);
    for sql in ["; COMMIT", ";;/* ; */ -- ;\n;BEGIN", "; ROLLBACK;"] {
        for error in [
            http.batch_execute(sql).await.unwrap_err(),
            sql_query(sql).execute(&mut http).await.unwrap_err(),
        ] {
            let Error::QueryBuilderError(error) = &error else {
                panic!("{sql}: {error:?}");
            };
            assert!(error.is::<TransactionUnsupported>(), "{sql}: {error}");
        }
        let mut batch = http.batch();
        let _ticket = batch.add_execute(sql_query(sql));
        batch.send().await.unwrap_err();
    }
}

#[tokio::test]
async fn a_ticket_is_one_batchs() {
    let neon = start().await;
    let http = https(&neon);
    let mut batches = [http.batch(), http.batch()];
    let tickets = batches
        .each_mut()
        .map(|batch| batch.add_load::<i32, _>(diesel::select(7.into_sql::<Integer>())));
    let [first, _second] = batches;
    let mut results = first.send().await.unwrap();
    let [of_first, of_second] = tickets;
    assert_eq!(results.take(of_second), Err(Error::NotFound));
    assert_eq!(results.take(of_first), Ok(vec![7]));
}

/// A role's own time zone changes what SQL means; over TCP each session is in UTC.
#[tokio::test]
async fn statements_are_in_utc() {
    let neon = start().await;
    let role = url_user(&neon);
    neon.sql(&format!(
        "ALTER ROLE {role} SET timezone TO 'America/New_York'"
    ))
    .await
    .unwrap();
    let mut tcp = connect(&neon.url()).await;
    let http = https(&neon);
    async fn zone<C: AsyncConnection<Backend = Pg>>(connection: &mut C) -> Vec<Shown> {
        let midnight = "SELECT '2020-01-01 00:00'::timestamptz::text AS shown UNION ALL SELECT current_setting('TimeZone')";
        sql_query(midnight).load(connection).await.unwrap()
    }
    let theirs = zone(&mut tcp).await;
    assert_eq!(theirs[0].shown, "2020-01-01 00:00:00+00");
    for _ in 0..2 {
        assert_eq!(zone(&mut http.clone()).await, theirs);
    }
    let insert = "INSERT INTO users (name) VALUES ('2020-01-01 00:00'::timestamptz::text)";
    for number in 0..2 {
        // The first statement of a connection, too.
        let mut http = https(&neon);
        let insert = sql_query(insert).execute(&mut http).await;
        assert_eq!(insert, Ok(1));
        let mut batch = https(&neon).clone().batch_of_two(number).await;
        assert_eq!(batch.pop().unwrap(), theirs);
        let gone = diesel::delete(users::table.filter(users::name.eq(&theirs[0].shown)));
        assert_eq!(gone.execute(&mut http).await, Ok(1));
    }
    http.clone()
        .batch_execute(
            "INSERT INTO users (name) VALUES ('2020-01-01 00:00'::timestamptz::text); SELECT 1",
        )
        .await
        .unwrap();
    let count = users::table
        .filter(users::name.eq(&theirs[0].shown))
        .count();
    assert_eq!(count.get_result(&mut http.clone()).await, Ok(1_i64));
}

trait BatchOfTwo {
    async fn batch_of_two(&self, number: i32) -> Vec<Vec<Shown>>;
}

impl BatchOfTwo for HttpConnection {
    async fn batch_of_two(&self, number: i32) -> Vec<Vec<Shown>> {
        let mut batch = self.batch();
        let midnight = "SELECT '2020-01-01 00:00'::timestamptz::text AS shown UNION ALL SELECT current_setting('TimeZone')";
        let seven = batch.add_load::<i32, _>(diesel::select(number.into_sql::<Integer>()));
        let zone = batch.add_load::<Shown, _>(sql_query(midnight));
        let mut results = batch.send().await.unwrap();
        assert_eq!(results.take(seven), Ok(vec![number]));
        vec![results.take(zone).unwrap()]
    }
}

fn url_user(neon: &NeonSim) -> String {
    let url = diesel_neon::DatabaseUrl::parse(&neon.url()).unwrap();
    url.user().unwrap().to_owned()
}
