//! Diesel, on this crate's connection and on AsyncPgConnection.

use diesel::prelude::*;
use diesel::sql_types::{Integer, Text};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use diesel_neon::{Connection, DatabaseUrl};
use tokio_postgres::NoTls;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{AUTHOR, JOIN, NOTE, OK, Operation, Peer, RATING, ROWS, TITLE};

/// Both of Diesel's connections are given the same lines.
macro_rules! run_diesel {
    ($connection:expr, $operation:expr, $id:expr) => {{
        let (connection, id): (_, i32) = ($connection, $id);
        match $operation {
            Operation::LookUp => {
                let book: Book = books::table
                    .find(id)
                    .get_result(connection)
                    .await
                    .expect(OK);
                assert_eq!(book.id, id);
            }
            Operation::Insert => {
                let new = NewBook {
                    author_id: AUTHOR,
                    title: TITLE,
                    pages: id,
                    rating: RATING,
                };
                let insert = diesel::insert_into(inserted::table).values(&new);
                let book: Book = insert.get_result(connection).await.expect(OK);
                assert_eq!(book.title, TITLE);
            }
            Operation::Update => {
                let changes = Changes {
                    title: Some(TITLE),
                    pages: Some(id),
                    rating: Some(RATING),
                    note: Some(NOTE),
                };
                let update = diesel::update(books::table.find(id)).set(&changes);
                assert_eq!(update.execute(connection).await, Ok(1));
            }
            Operation::Batch => {
                let new = |n| NewBook {
                    author_id: AUTHOR,
                    title: TITLE,
                    pages: id + n,
                    rating: RATING,
                };
                let all: Vec<_> = (0..ROWS).map(new).collect();
                let insert = diesel::insert_into(inserted::table).values(&all);
                assert_eq!(insert.execute(connection).await, Ok(10));
            }
            Operation::SqlQuery => {
                let query = diesel::sql_query(JOIN).bind::<Integer, _>(1 + id % 200);
                let rows: Vec<Joined> = query.load(connection).await.expect(OK);
                assert_eq!(rows.len(), 10);
            }
            Operation::Join => {
                let rows: Vec<(String, i32, String)> = books::table
                    .inner_join(authors::table)
                    .filter(authors::id.eq(1 + id % 200))
                    .select((books::title, books::pages, authors::name))
                    .load(connection)
                    .await
                    .expect(OK);
                assert_eq!(rows.len(), 10);
            }
            Operation::Transaction => connection
                .transaction(async |connection| {
                    let update = diesel::update(books::table.find(id));
                    let update = update.set(books::pages.eq(books::pages + 1));
                    update.execute(connection).await.map(drop)
                })
                .await
                .expect(OK),
        }
    }};
}

pub struct Ours(Connection);

impl Peer for Ours {
    async fn connect(url: &str) -> Self {
        Self(Connection::establish(url).await.expect("a connection"))
    }

    async fn run(&mut self, operation: Operation, id: i32) {
        run_diesel!(&mut self.0, operation, id);
    }
}

/// AsyncPgConnection, with its cache of prepared statements.
pub struct Stock(AsyncPgConnection);

impl Peer for Stock {
    async fn connect(url: &str) -> Self {
        let url = DatabaseUrl::parse(url).expect("a URL");
        let config = url.to_tokio_postgres();
        let connection = match url.to_rustls().expect("a certificate") {
            None => {
                let (client, driver) = config.connect(NoTls).await.expect("a connection");
                AsyncPgConnection::try_from_client_and_connection(client, driver).await
            }
            Some(tls) => {
                let tls = MakeRustlsConnect::new(tls);
                let (client, driver) = config.connect(tls).await.expect("a connection");
                AsyncPgConnection::try_from_client_and_connection(client, driver).await
            }
        };
        Self(connection.expect("a connection"))
    }

    async fn run(&mut self, operation: Operation, id: i32) {
        run_diesel!(&mut self.0, operation, id);
    }
}

diesel::table! {
    authors (id) {
        id -> Integer,
        name -> Text,
    }
}

diesel::table! {
    books (id) {
        id -> Integer,
        author_id -> Integer,
        title -> Text,
        pages -> Integer,
        rating -> Double,
        note -> Nullable<Text>,
    }
}

diesel::table! {
    inserted (id) {
        id -> Integer,
        author_id -> Integer,
        title -> Text,
        pages -> Integer,
        rating -> Double,
        note -> Nullable<Text>,
    }
}

diesel::joinable!(books -> authors (author_id));
diesel::allow_tables_to_appear_in_same_query!(authors, books);

#[derive(Queryable)]
struct Book {
    id: i32,
    _author_id: i32,
    title: String,
    _pages: i32,
    _rating: f64,
    _note: Option<String>,
}

#[derive(QueryableByName)]
struct Joined {
    #[diesel(sql_type = Text, column_name = title)]
    _title: String,
    #[diesel(sql_type = Integer, column_name = pages)]
    _pages: i32,
    #[diesel(sql_type = Text, column_name = name)]
    _name: String,
}

#[derive(Insertable)]
#[diesel(table_name = inserted)]
struct NewBook<'a> {
    author_id: i32,
    title: &'a str,
    pages: i32,
    rating: f64,
}

#[derive(AsChangeset)]
#[diesel(table_name = books)]
struct Changes<'a> {
    title: Option<&'a str>,
    pages: Option<i32>,
    rating: Option<f64>,
    note: Option<&'a str>,
}
