//! Diesel, on this crate's connection and on AsyncPgConnection.

use diesel::connection::CacheSize;
use diesel::prelude::*;
use diesel::sql_types::Integer;
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use diesel_neon::Connection;
use futures_util::future::join_all;

use super::operations::{
    AUTHOR, BATCH_ROWS, COPY, JOIN, LOOK_UPS, Line, MANY, NOTE, Operation, Peer, RATING, TITLE,
    nth_book, pieces, same,
};
use crate::schema::{Book, Changes, Joined, NewBook, authors, books, inserted};
use crate::suites::dial::{self, Failed};

diesel::table! {
    lines (id) {
        id -> Integer,
        number -> Double,
        line -> Text,
    }
}

/// Both of Diesel's connections are given the same lines.
macro_rules! run_diesel {
    ($connection:expr, $operation:expr, $id:expr) => {{
        let (connection, id): (_, i32) = ($connection, $id);
        match $operation {
            Operation::LookUp => {
                let book: Book = books::table.find(id).get_result(connection).await?;
                same(book.id, id)?;
            }
            Operation::Insert => {
                let new = NewBook {
                    author_id: AUTHOR,
                    title: TITLE,
                    pages: id,
                    rating: RATING,
                };
                let insert = diesel::insert_into(inserted::table).values(&new);
                let book: Book = insert.get_result(connection).await?;
                same(book.title, TITLE)?;
            }
            Operation::Update => {
                let changes = Changes {
                    title: Some(TITLE),
                    pages: Some(id),
                    rating: Some(RATING),
                    note: Some(NOTE),
                };
                let update = diesel::update(books::table.find(id)).set(&changes);
                same(update.execute(connection).await?, 1)?;
            }
            Operation::Batch => {
                let new = |n| NewBook {
                    author_id: AUTHOR,
                    title: TITLE,
                    pages: id + n,
                    rating: RATING,
                };
                let all: Vec<_> = (0..BATCH_ROWS).map(new).collect();
                let insert = diesel::insert_into(inserted::table).values(&all);
                same(insert.execute(connection).await?, 10)?;
            }
            Operation::SqlQuery => {
                let query = diesel::sql_query(JOIN).bind::<Integer, _>(1 + id % 200);
                let rows: Vec<Joined> = query.load(connection).await?;
                same(rows.len(), 10)?;
            }
            Operation::Join => {
                let rows: Vec<(String, i32, String)> = books::table
                    .inner_join(authors::table)
                    .filter(authors::id.eq(1 + id % 200))
                    .select((books::title, books::pages, authors::name))
                    .load(connection)
                    .await?;
                same(rows.len(), 10)?;
            }
            Operation::Transaction => {
                let update = connection.transaction(async |connection| {
                    let update = diesel::update(books::table.find(id));
                    let update = update.set(books::pages.eq(books::pages + 1));
                    update.execute(connection).await
                });
                same(update.await?, 1)?;
            }
            Operation::ReadAndUpdate => {
                let update = connection.transaction(async |connection| {
                    let book: Book = books::table.find(id).get_result(connection).await?;
                    let update = diesel::update(books::table.find(id));
                    let update = update.set(books::pages.eq(book.pages + 1));
                    Ok::<_, diesel::result::Error>((book.id, update.execute(connection).await?))
                });
                same(update.await?, (id, 1))?;
            }
            Operation::ManyRows => {
                let rows: Vec<Line> = lines::table.load(connection).await?;
                same(rows.len(), MANY)?;
            }
            Operation::Pipeline => {
                let shared = &*connection;
                let look_ups = (0..LOOK_UPS).map(|n| async move {
                    let (mut shared, id) = (shared, nth_book(id, n));
                    let book: Book = books::table.find(id).get_result(&mut shared).await?;
                    same(book.id, id)?;
                    Ok::<_, Failed>(())
                });
                for look_up in join_all(look_ups).await {
                    look_up?;
                }
            }
            Operation::CopyIn => unreachable!("Diesel has none"),
        }
    }};
}

pub struct Ours(Connection);

impl Peer for Ours {
    async fn connect(url: &str) -> Result<Self, Failed> {
        Ok(Self(Connection::establish(url).await?))
    }

    async fn run(&mut self, operation: Operation, id: i32) -> Result<(), Failed> {
        if operation == Operation::CopyIn {
            let mut copy = self.0.copy_in(COPY).await?;
            for piece in pieces() {
                copy.send(piece).await?;
            }
            same(copy.finish().await?, MANY)?;
            return Ok(());
        }
        run_diesel!(&mut self.0, operation, id);
        Ok(())
    }
}

/// AsyncPgConnection, with its cache of prepared statements or without.
pub struct Stock<const CACHES: bool>(AsyncPgConnection);

impl<const CACHES: bool> Peer for Stock<CACHES> {
    async fn connect(url: &str) -> Result<Self, Failed> {
        let mut connection = dial::diesel_async(url).await?;
        if !CACHES {
            connection.set_prepared_statement_cache_size(CacheSize::Disabled);
        }
        Ok(Self(connection))
    }

    fn has(operation: Operation) -> bool {
        operation != Operation::CopyIn
    }

    async fn run(&mut self, operation: Operation, id: i32) -> Result<(), Failed> {
        run_diesel!(&mut self.0, operation, id);
        Ok(())
    }
}
