//! What `RunQueryDsl` does, on every route.

use diesel::connection::{DefaultLoadingMode, LoadConnection, SimpleConnection};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error};
use diesel::sql_types::{Array, Integer, Text};
use diesel_neon::DatabaseErrorExt;
use diesel_neon::blocking::PgConnection;
use diesel_neon::books::schema::books;
use diesel_neon::books::{Book, BookChanges, NewBook};

use super::common::{routes, users};
use super::{pool, start};

#[derive(AsChangeset, Clone, Copy, Debug, Identifiable)]
#[diesel(table_name = users)]
struct Renamed<'a> {
    id: i32,
    name: &'a str,
}

#[derive(Debug, PartialEq, Queryable, QueryableByName)]
#[diesel(table_name = users)]
struct User {
    id: i32,
    name: String,
}

#[test]
fn a_library_is_kept_as_with_libpq() {
    let sim = start();
    for (route, url) in routes(&sim) {
        sim.sql("TRUNCATE books RESTART IDENTITY");
        let pool = pool(&url, |policy| policy);
        let conn = &mut pool.get().unwrap();

        let catcher: Book = diesel::insert_into(books::table)
            .values(NewBook::new("The Catcher in the Rye").publication_year(1951))
            .returning(Book::as_returning())
            .get_result(conn)
            .unwrap();
        assert_eq!(catcher.id, 1, "{route}");
        let more = ["The Hobbit", "1984", "Dune"].map(NewBook::new);
        let added = diesel::insert_into(books::table)
            .values(&more[..])
            .execute(conn);
        assert_eq!(added, Ok(3), "{route}");

        let changed: Book = diesel::update(books::table.find(2))
            .set(BookChanges::new().in_stock(false))
            .returning(Book::as_returning())
            .get_result(conn)
            .unwrap();
        assert!(!changed.in_stock, "{route}");
        let titles: Vec<String> = books::table
            .filter(books::in_stock)
            .order(books::title.asc())
            .select(books::title)
            .load(conn)
            .unwrap();
        assert_eq!(
            titles,
            ["1984", "Dune", "The Catcher in the Rye"],
            "{route}"
        );

        let gone = diesel::delete(books::table.filter(books::title.like("%ob%"))).execute(conn);
        assert_eq!(gone, Ok(1), "{route}");
        let gone: QueryResult<Book> = books::table.find(2).select(Book::as_select()).first(conn);
        assert_eq!(gone.optional(), Ok(None), "{route}");
        assert_eq!(books::table.count().get_result(conn), Ok(3_i64), "{route}");
    }
}

#[test]
fn rows_come_one_by_one_and_may_be_left() {
    let sim = start();
    for (route, url) in routes(&sim) {
        let conn = &mut PgConnection::establish(&url).unwrap();
        let numbers = || {
            diesel::sql_query("SELECT i AS id, 'n' || i AS name FROM generate_series(1, 20000) i")
        };
        let all: QueryResult<Vec<User>> = numbers()
            .load_iter::<User, DefaultLoadingMode>(conn)
            .unwrap()
            .collect();
        assert_eq!(all.unwrap().len(), 20_000, "{route}");
        conn.transaction(|conn| {
            for read in [0, 1, 5] {
                let mut rows = numbers().load_iter::<User, DefaultLoadingMode>(conn)?;
                for i in 1..=read {
                    let name = format!("n{i}");
                    assert_eq!(rows.next().unwrap().unwrap(), User { id: i, name });
                }
                drop(rows);
                // Neither the connection nor the transaction has suffered.
                let added = diesel::insert_into(users::table)
                    .values(users::name.eq(format!("{route} {read}")))
                    .execute(conn);
                assert_eq!(added, Ok(1), "{route}");
            }
            QueryResult::Ok(())
        })
        .unwrap();
    }
    assert_eq!(users_of(&sim), routes(&sim).len() * 3);
}

fn users_of(sim: &super::Sim) -> usize {
    sim.sql("SELECT count(*) FROM users")
        .unwrap()
        .parse()
        .unwrap()
}

#[test]
fn changes_are_saved() {
    let sim = start();
    let pool = pool(&sim.pooled_url(), |policy| policy);
    let conn = &mut pool.get().unwrap();
    let id: i32 = diesel::insert_into(users::table)
        .values(users::name.eq("Ann"))
        .returning(users::id)
        .get_result(conn)
        .unwrap();
    let renamed = Renamed { id, name: "Anna" };
    assert_eq!(*renamed.id(), id);
    let saved: User = renamed.save_changes(conn).unwrap();
    let name = "Anna".to_owned();
    assert_eq!(saved, User { id, name });
    let nobody = Renamed { id: -1, name: "" };
    assert_eq!(nobody.save_changes::<User>(conn), Err(Error::NotFound));
}

/// Compiles for what says no more of a connection than Diesel's own users do.
fn names<C>(conn: &mut C) -> QueryResult<Vec<String>>
where
    C: LoadConnection<Backend = Pg>,
{
    users::table.select(users::name).order(users::id).load(conn)
}

#[test]
fn code_for_any_connection_to_postgres_takes_it() {
    let sim = start();
    let conn = &mut PgConnection::establish(&sim.url()).unwrap();
    conn.batch_execute(
        "INSERT INTO users (name) VALUES ('Ann'); INSERT INTO users (name) VALUES ('Bob')",
    )
    .unwrap();
    assert_eq!(names(conn).unwrap(), ["Ann", "Bob"]);
    let both = diesel::sql_query("SELECT * FROM users WHERE name = ANY($1) AND id > $2")
        .bind::<Array<Text>, _>(vec!["Ann", "Bob"])
        .bind::<Integer, _>(0);
    assert_eq!(both.load::<User>(conn).unwrap().len(), 2);
    // Diesel looks up nothing by itself that only libpq's connection could.
    sim.sql("CREATE TYPE mood AS ENUM ('fine')");
    let mood = diesel::dsl::sql::<Text>("SELECT 'fine'::mood::text").get_result::<String>(conn);
    assert_eq!(mood.unwrap(), "fine");
    assert_eq!(conn.parameter("client_encoding").as_deref(), Some("UTF8"));
}

#[test]
fn errors_are_of_the_kinds_that_libpq_gives() {
    let sim = start();
    let conn = &mut PgConnection::establish(&sim.url()).unwrap();
    conn.batch_execute("CREATE TABLE kinds (id INTEGER PRIMARY KEY REFERENCES users, n INTEGER NOT NULL CHECK (n > 0))")
        .unwrap();
    conn.batch_execute(
        "INSERT INTO users (id, name) VALUES (1, 'Ann'); INSERT INTO kinds VALUES (1, 1)",
    )
    .unwrap();
    use DatabaseErrorKind as Kind;
    for (sql, kind, sqlstate) in [
        (
            "INSERT INTO kinds VALUES (1, 1)",
            Kind::UniqueViolation,
            "23505",
        ),
        (
            "INSERT INTO kinds VALUES (9, 1)",
            Kind::ForeignKeyViolation,
            "23503",
        ),
        (
            "INSERT INTO kinds (id) VALUES (1)",
            Kind::NotNullViolation,
            "23502",
        ),
        (
            "INSERT INTO kinds VALUES (1, 0)",
            Kind::CheckViolation,
            "23514",
        ),
        ("SELECT 1 / 0", Kind::Unknown, "22012"),
    ] {
        let error = diesel::sql_query(sql).execute(conn).unwrap_err();
        assert_eq!(error.sqlstate(), Some(sqlstate), "{error}");
        let Error::DatabaseError(found, information) = error else {
            panic!("{error:?}");
        };
        assert_eq!(format!("{found:?}"), format!("{kind:?}"));
        let is_constraint = sqlstate.starts_with("23");
        assert_eq!(
            information.table_name(),
            is_constraint.then_some("kinds"),
            "{sql}"
        );
    }
    let first = users::table.filter(users::name.eq("Zoe")).select(users::id);
    assert_eq!(first.first::<i32>(conn), Err(Error::NotFound));

    let ended = conn
        .batch_execute("SELECT pg_terminate_backend(pg_backend_pid())")
        .unwrap_err();
    assert!(
        ended.is_connection_lost() && ended.sqlstate() == Some("57P01"),
        "{ended:?}"
    );
    assert!(matches!(
        ended,
        Error::DatabaseError(Kind::ClosedConnection, _)
    ));

    for (url, kind) in [
        ("mysql://localhost/db".to_owned(), "InvalidConnectionUrl"),
        (sim.url().replace(sim.password(), "wrong"), "BadConnection"),
    ] {
        let error = PgConnection::establish(&url).map(drop).unwrap_err();
        assert!(format!("{error:?}").starts_with(kind), "{error:?}");
    }
}
