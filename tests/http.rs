//! Diesel's calls as one-shot SQL over HTTPS: they give what they give over TCP.
#![allow(missing_debug_implementations, missing_docs, unreachable_pub)]

mod common;

use common::{HANG, connect, over_https, start, users};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::result::{DatabaseErrorInformation, Error};
use diesel::sql_query;
use diesel::sql_types::{Integer, Nullable, Text};
use diesel_async::{AsyncConnection, RunQueryDsl, SaveChangesDsl, SimpleAsyncConnection};
use diesel_neon::DatabaseErrorExt;
use diesel_neon::http::HttpConnection;
use futures_util::TryStreamExt;
use neon_sim::NeonSim;
use tokio::time::timeout;

fn https(neon: &NeonSim) -> HttpConnection {
    HttpConnection::new(over_https(neon, neon.url())).unwrap()
}

#[derive(QueryableByName, Debug, PartialEq)]
struct Named {
    #[diesel(sql_type = Integer)]
    id: i32,
    #[diesel(sql_type = Nullable<Text>)]
    name: Option<String>,
}

#[derive(Identifiable, AsChangeset, Queryable, Selectable, Clone, Debug, PartialEq)]
#[diesel(table_name = users)]
struct User {
    id: i32,
    name: String,
}

/// Returns what Diesel's calls give.
async fn calls<C>(connection: &mut C) -> Vec<String>
where
    C: AsyncConnection<Backend = Pg>,
{
    let mut told = Vec::new();
    macro_rules! tell {
        ($call:expr) => {
            told.push(format!(
                "{:?}",
                timeout(HANG, $call).await.expect("no hang")
            ))
        };
    }
    let names = ["Ada", "Bob", "Cäcilie 🦀", "d\\e\"f'", ""];
    let values: Vec<_> = names.iter().map(|name| users::name.eq(name)).collect();
    let insert = || diesel::insert_into(users::table).values(values.clone());
    tell!(insert().returning(users::id).get_results::<i32>(connection));
    tell!(insert().on_conflict_do_nothing().execute(connection));
    tell!(insert().execute(connection));
    tell!(users::table.count().get_result::<i64>(connection));
    tell!(
        users::table
            .order(users::id)
            .load::<(i32, String)>(connection)
    );
    tell!(
        users::table
            .order(users::id.desc())
            .first::<(i32, String)>(connection)
    );
    tell!(
        users::table
            .filter(users::id.eq(-1))
            .first::<(i32, String)>(connection)
            .map_err_text()
    );
    tell!(
        users::table
            .filter(users::name.eq_any(names))
            .select(users::id)
            .load::<i32>(connection)
    );
    tell!(
        users::table
            .find(1)
            .select(User::as_select())
            .get_result(connection)
    );
    tell!(
        diesel::update(users::table.find(1))
            .set(users::name.eq("Eve"))
            .execute(connection)
    );
    tell!(
        diesel::update(users::table.filter(users::id.gt(3)))
            .set(users::name.eq(users::name.concat("!")))
            .returning((users::name, users::id))
            .load::<(String, i32)>(connection)
    );
    tell!(diesel::delete(users::table.find(2)).get_result::<(i32, String)>(connection));
    tell!(diesel::delete(users::table.find(2)).execute(connection));
    tell!(diesel::select(7_i32.into_sql::<Integer>()).get_result::<i32>(connection));
    tell!(
        diesel::select(None::<i32>.into_sql::<Nullable<Integer>>())
            .get_result::<Option<i32>>(connection)
    );
    let exists = diesel::dsl::exists(users::table.find(1));
    tell!(diesel::select(exists).get_result::<bool>(connection));
    let by_name =
        sql_query("SELECT name, id, 'x' AS other FROM users WHERE id > $1 ORDER BY id;  -- all")
            .bind::<Integer, _>(0);
    tell!(by_name.load::<Named>(connection));
    tell!(sql_query("SELECT 1 AS id, NULL::text AS name WHERE false").load::<Named>(connection));
    tell!(
        sql_query("SELECT 1 AS other")
            .load::<Named>(connection)
            .map_err_text()
    );
    tell!(
        sql_query("WITH new AS (INSERT INTO users (name) VALUES ($1) RETURNING *) SELECT id + 0 AS id, name FROM new")
            .bind::<Text, _>("Zoë")
            .load::<Named>(connection)
    );
    tell!(
        sql_query("UPDATE users SET name = name || $1 WHERE id = 1")
            .bind::<Text, _>("?")
            .execute(connection)
    );
    tell!(sql_query("VALUES (1), (2), (3)").execute(connection));
    let stream = users::table
        .order(users::id)
        .load_stream::<(i32, String)>(connection)
        .await;
    let stream: Result<Vec<_>, _> = stream.unwrap().try_collect().await;
    told.push(format!("{stream:?}"));
    tell!(connection.batch_execute("CREATE TEMPORARY TABLE a (b int); DROP TABLE a; -- end"));
    told
}

/// Errors as texts, as `Debug` of a `DatabaseError` shows nothing but its message.
trait MapErrText: Sized {
    fn map_err_text(self) -> impl Future<Output = Result<String, String>>;
}

impl<F: Future<Output = Result<T, Error>>, T: std::fmt::Debug> MapErrText for F {
    async fn map_err_text(self) -> Result<String, String> {
        let done = self.await;
        done.map(|done| format!("{done:?}"))
            .map_err(|error| error.to_string())
    }
}

#[tokio::test]
async fn diesels_calls_give_what_they_give_over_tcp() {
    let (one, other) = (start().await, start().await);
    let expected = calls(&mut connect(&one.url()).await).await;
    let given = calls(&mut https(&other)).await;
    assert_eq!(given, expected);
    assert!(given.len() > 20, "{given:?}");
}

#[tokio::test]
async fn a_changeset_is_saved_and_fetched() {
    let neon = start().await;
    let mut connection = https(&neon);
    let insert = diesel::insert_into(users::table).values(users::name.eq("Ada"));
    let mut user: User = insert.get_result(&mut connection).await.unwrap();
    user.name = "Bea".into();
    let saved: User = (&user).save_changes(&mut connection).await.unwrap();
    assert_eq!(saved, user);
    // Through a shared reference.
    let names: Vec<String> = users::table
        .select(users::name)
        .load(&mut &connection)
        .await
        .unwrap();
    assert_eq!(names, ["Bea"]);
}

#[tokio::test]
async fn what_is_no_query_is_run_as_it_is() {
    #[derive(QueryableByName)]
    struct Plan {
        #[diesel(sql_type = Text, column_name = "QUERY PLAN")]
        plan: String,
    }
    #[derive(QueryableByName)]
    struct Setting {
        #[diesel(sql_type = Text)]
        search_path: String,
    }
    let neon = start().await;
    let mut connection = https(&neon);
    let plan: Vec<Plan> = sql_query("EXPLAIN (COSTS OFF) SELECT 1")
        .load(&mut connection)
        .await
        .unwrap();
    assert_eq!(plan[0].plan, "Result");
    let setting: Setting = sql_query("SHOW search_path")
        .get_result(&mut connection)
        .await
        .unwrap();
    assert_eq!(setting.search_path, "\"$user\", public");
    for (sql, count) in [
        ("CREATE TABLE t (id int)", 0),
        ("INSERT INTO t VALUES (1), (2) -- RETURNING id", 2),
        ("VACUUM t", 0),
        ("SELECT * INTO u FROM t", 2),
        (
            "WITH a AS (DELETE FROM t RETURNING *) INSERT INTO u SELECT * FROM a",
            2,
        ),
    ] {
        assert_eq!(
            sql_query(sql).execute(&mut connection).await,
            Ok(count),
            "{sql}"
        );
    }
    let none: Vec<Named> = sql_query("DELETE FROM u")
        .load(&mut connection)
        .await
        .unwrap();
    assert_eq!(none, []);
    connection.batch_execute("VACUUM t;").await.unwrap();
    assert!(
        connection
            .batch_execute("SELECT 1; SELECT wrong")
            .await
            .is_err()
    );
    connection.batch_execute("").await.unwrap();
}

/// Names that could be taken for those of what is put around a statement.
#[tokio::test]
async fn names_mean_what_they_mean_to_the_caller() {
    let neon = start().await;
    let mut connection = https(&neon);
    for create in [
        "TABLE rows_ (rows_ int, names int, types_ text)",
        "TABLE types_ (types_ int)",
        "VIEW v AS SELECT 5 AS rows_, 6 AS names",
    ] {
        connection
            .batch_execute(&format!("CREATE {create}"))
            .await
            .unwrap();
    }
    let insert = sql_query("INSERT INTO types_ VALUES ($1)").bind::<Integer, _>(3);
    assert_eq!(insert.execute(&mut connection).await, Ok(1));
    let insert = sql_query("INSERT INTO rows_ SELECT types_, types_, $1 FROM types_ RETURNING rows_ AS id, types_ AS name")
        .bind::<Text, _>("x");
    let expected = Named {
        id: 3,
        name: Some("x".into()),
    };
    assert_eq!(
        insert.get_result::<Named>(&mut connection).await.unwrap(),
        expected
    );
    let view =
        sql_query("SELECT rows_ AS id, (names + $1)::text AS name FROM v").bind::<Integer, _>(1);
    let expected = Named {
        id: 5,
        name: Some("7".into()),
    };
    assert_eq!(
        view.get_result::<Named>(&mut connection).await.unwrap(),
        expected
    );
    // The first of two columns with one name, as over TCP; a row without columns.
    let twice = "SELECT 1 AS id, 'a' AS name, 2 AS id, 'b' AS name";
    let over_tcp: Named = sql_query(twice)
        .get_result(&mut connect(&neon.url()).await)
        .await
        .unwrap();
    assert_eq!(
        sql_query(twice)
            .get_result::<Named>(&mut connection)
            .await
            .unwrap(),
        over_tcp
    );
    assert_eq!(
        sql_query("SELECT FROM v").execute(&mut connection).await,
        Ok(1)
    );
}

fn told(error: &Error) -> Vec<String> {
    let Error::DatabaseError(kind, information) = error else {
        panic!("{error:?}");
    };
    let information: &dyn DatabaseErrorInformation = &**information;
    vec![
        format!("{kind:?}"),
        format!("{:?}", error.sqlstate()),
        information.message().to_owned(),
        format!("{:?}", information.details()),
        format!("{:?}", information.hint()),
        format!("{:?}", information.table_name()),
        format!("{:?}", information.column_name()),
        format!("{:?}", information.constraint_name()),
        format!("{:?}", information.statement_position()),
        format!("{:?}", error.internal_query()),
    ]
}

#[tokio::test]
async fn errors_are_those_of_tcp() {
    let neon = start().await;
    neon.sql(
        "INSERT INTO users (name) VALUES ('Ada'); \
         CREATE TABLE pets (id int PRIMARY KEY, owner int REFERENCES users, legs int CHECK (legs < 9) NOT NULL); \
         GRANT ALL ON pets TO PUBLIC; \
         CREATE FUNCTION wrong() RETURNS int LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'SELECT 1 +'; END $$",
    )
    .await
    .unwrap();
    let mut tcp = connect(&neon.url()).await;
    let mut http = https(&neon);
    for sql in [
        "INSERT INTO users (name) VALUES ('Ada') RETURNING id, name",
        "INSERT INTO pets VALUES (1, 99, 4) RETURNING id, owner::text AS name",
        "INSERT INTO pets VALUES (1, 1, 9)",
        "INSERT INTO pets VALUES (1, 1, NULL)",
        " /* ä */ SELECT id, nam FROM users -- why",
        "SELEKT 1",
        "SELECT 1; SELECT 2",
        "WITH a AS (SELECT 1 AS id) SELECT id, nam FROM a WHERE id = $1",
        "SELECT 1 / ($1 - 7) AS id",
        "SELECT wrong() AS id",
        "SELECT id, name FROM nowhere",
        "SELECT id FROM users WHERE id = 'x'",
        "EXPLAIN SELECT nam FROM users",
        "COPY users FROM '/nowhere'",
    ] {
        let binds = usize::from(sql.contains("$1"));
        let query = || {
            let query = sql_query(sql).into_boxed::<Pg>();
            (0..binds).fold(query, |query, _| query.bind::<Integer, _>(7))
        };
        let theirs = query().load::<Named>(&mut tcp).await.unwrap_err();
        let ours = query().load::<Named>(&mut http).await.unwrap_err();
        assert_eq!(told(&ours), told(&theirs), "{sql}");
    }
}

/// On a runtime without timers.
#[tokio::test]
async fn diesels_blocking_wrapper_takes_it() {
    use diesel_async::async_connection_wrapper::AsyncConnectionWrapper;

    let neon = start().await;
    let url = over_https(&neon, neon.url());
    let counting = tokio::task::spawn_blocking(move || {
        let mut connection =
            <AsyncConnectionWrapper<HttpConnection> as diesel::Connection>::establish(&url)?;
        let mut counts = Vec::new();
        for _ in 0..3 {
            let count = users::table.count();
            counts.push(diesel::RunQueryDsl::get_result::<i64>(
                count,
                &mut connection,
            )?);
        }
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(counts)
    });
    let counts = timeout(HANG, counting).await.expect("no hang").unwrap();
    assert_eq!(counts.unwrap(), [0, 0, 0]);
    assert_eq!(neon.counters().direct.https_connections, 1);
}
