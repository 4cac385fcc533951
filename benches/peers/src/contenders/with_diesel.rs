//! Diesel, on this crate's connection and on AsyncPgConnection.

use diesel::prelude::*;
use diesel::sql_types::Integer;
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use diesel_neon::{Connection, DatabaseUrl};
use tokio_postgres::NoTls;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{AUTHOR, JOIN, NOTE, OK, Operation, Peer, RATING, ROWS, TITLE};
use crate::schema::{Book, Changes, Joined, NewBook, authors, books, inserted};

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
