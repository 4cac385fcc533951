//! sqlx, with its own cache of prepared statements or without.

use sqlx::postgres::PgArguments;
use sqlx::postgres::PgRow;
use sqlx::query::{Query, QueryAs};
use sqlx::{ConnectOptions, Connection as _, FromRow, PgConnection, Postgres};

use super::operations::{
    AUTHOR, BATCH, BATCH_ROWS, Book, COPY, INCREMENT, INSERT, JOIN, LINES, LOOK_UP, LOOK_UPS, Line,
    MANY, NOTE, Operation, Peer, RATING, SET_PAGES, TITLE, UPDATE, nth_book, pieces, same,
};
use crate::pools::connect_options;
use crate::suites::dial::Failed;

pub struct Sqlx<const CACHES: bool>(PgConnection);

impl<const CACHES: bool> Sqlx<CACHES> {
    fn sql(text: &'static str) -> Query<'static, Postgres, PgArguments> {
        sqlx::query(text).persistent(CACHES)
    }

    fn rows<T: for<'r> FromRow<'r, PgRow>>(
        text: &'static str,
    ) -> QueryAs<'static, Postgres, T, PgArguments> {
        sqlx::query_as(text).persistent(CACHES)
    }
}

impl<const CACHES: bool> Peer for Sqlx<CACHES> {
    async fn connect(url: &str) -> Result<Self, Failed> {
        let mut options = connect_options(url);
        if !CACHES {
            options = options.statement_cache_capacity(0);
        }
        Ok(Self(options.connect().await?))
    }

    async fn run(&mut self, operation: Operation, id: i32) -> Result<(), Failed> {
        let connection = &mut self.0;
        match operation {
            Operation::LookUp => {
                let row = Self::rows(LOOK_UP).bind(id).fetch_one(connection);
                let book: Book = row.await?;
                same(book.0, id)?;
            }
            Operation::Insert => {
                let insert = Self::rows(INSERT).bind(AUTHOR).bind(TITLE).bind(id);
                let row = insert.bind(RATING).fetch_one(connection);
                let book: Book = row.await?;
                same(book.2, TITLE)?;
            }
            Operation::Update => {
                let update = Self::sql(UPDATE).bind(TITLE).bind(id).bind(RATING);
                let updated = update.bind(NOTE).bind(id).execute(connection);
                same(updated.await?.rows_affected(), 1)?;
            }
            Operation::Batch => {
                let mut insert = Self::sql(BATCH);
                for n in 0..BATCH_ROWS {
                    insert = insert.bind(AUTHOR).bind(TITLE).bind(id + n).bind(RATING);
                }
                let inserted = insert.execute(connection).await?;
                same(inserted.rows_affected(), 10)?;
            }
            Operation::Join | Operation::SqlQuery => {
                let rows = Self::rows(JOIN).bind(1 + id % 200).fetch_all(connection);
                let rows: Vec<(String, i32, String)> = rows.await?;
                same(rows.len(), 10)?;
            }
            Operation::Transaction => {
                let mut transaction = connection.begin().await?;
                let updated = Self::sql(INCREMENT).bind(id).execute(&mut *transaction);
                same(updated.await?.rows_affected(), 1)?;
                transaction.commit().await?;
            }
            Operation::ReadAndUpdate => {
                let mut transaction = connection.begin().await?;
                let book = Self::rows(LOOK_UP).bind(id).fetch_one(&mut *transaction);
                let book: Book = book.await?;
                same(book.0, id)?;
                let update = Self::sql(SET_PAGES).bind(book.3 + 1).bind(id);
                let updated = update.execute(&mut *transaction).await?;
                same(updated.rows_affected(), 1)?;
                transaction.commit().await?;
            }
            Operation::ManyRows => {
                let rows: Vec<Line> = Self::rows(LINES).fetch_all(connection).await?;
                same(rows.len(), MANY)?;
            }
            Operation::CopyIn => {
                let mut copy = connection.copy_in_raw(COPY).await?;
                for piece in pieces() {
                    copy.send(piece).await?;
                }
                same(copy.finish().await?, MANY as u64)?;
            }
            Operation::Pipeline => {
                for n in 0..LOOK_UPS {
                    let id = nth_book(id, n);
                    let row = Self::rows(LOOK_UP).bind(id).fetch_one(&mut *connection);
                    let book: Book = row.await?;
                    same(book.0, id)?;
                }
            }
        }
        Ok(())
    }
}
