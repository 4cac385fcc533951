//! tokio-postgres, with statements that are prepared before they run for the first time.

use std::pin::pin;

use futures_util::SinkExt;
use futures_util::future::join_all;
use tokio::sync::OnceCell;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Statement};

use super::operations::{
    AUTHOR, BATCH, BATCH_ROWS, Book, COPY, INCREMENT, INSERT, JOIN, LINES, LOOK_UP, LOOK_UPS, Line,
    MANY, NOTE, Operation, Peer, RATING, SET_PAGES, TITLE, UPDATE, nth_book, pieces, same,
};
use crate::suites::dial::{self, Failed};

pub struct TokioPostgres {
    client: Client,
    look_up: Prepared,
    insert: Prepared,
    update: Prepared,
    batch: Prepared,
    join: Prepared,
    increment: Prepared,
    set_pages: Prepared,
    lines: Prepared,
    copy: Prepared,
}

impl Peer for TokioPostgres {
    async fn connect(url: &str) -> Result<Self, Failed> {
        Ok(Self {
            client: dial::tokio_postgres(url).await?,
            look_up: Prepared::new(LOOK_UP),
            insert: Prepared::new(INSERT),
            update: Prepared::new(UPDATE),
            batch: Prepared::new(BATCH),
            join: Prepared::new(JOIN),
            increment: Prepared::new(INCREMENT),
            set_pages: Prepared::new(SET_PAGES),
            lines: Prepared::new(LINES),
            copy: Prepared::new(COPY),
        })
    }

    async fn run(&mut self, operation: Operation, id: i32) -> Result<(), Failed> {
        let client = &mut self.client;
        match operation {
            Operation::LookUp => {
                let look_up = self.look_up.on(client).await?;
                let row = client.query_one(look_up, &[&id]).await?;
                same(book(&row).0, id)?;
            }
            Operation::Insert => {
                let values: [&(dyn ToSql + Sync); 4] = [&AUTHOR, &TITLE, &id, &RATING];
                let insert = self.insert.on(client).await?;
                let row = client.query_one(insert, &values).await?;
                same(book(&row).2, TITLE)?;
            }
            Operation::Update => {
                let values: [&(dyn ToSql + Sync); 5] = [&TITLE, &id, &RATING, &NOTE, &id];
                let update = self.update.on(client).await?;
                same(client.execute(update, &values).await?, 1)?;
            }
            Operation::Batch => {
                let pages: Vec<i32> = (0..BATCH_ROWS).map(|n| id + n).collect();
                let mut values: Vec<&(dyn ToSql + Sync)> = Vec::new();
                for pages in &pages {
                    values.extend([&AUTHOR as &(dyn ToSql + Sync), &TITLE, pages, &RATING]);
                }
                let batch = self.batch.on(client).await?;
                same(client.execute(batch, &values).await?, 10)?;
            }
            Operation::Join | Operation::SqlQuery => {
                let join = self.join.on(client).await?;
                let rows = client.query(join, &[&(1 + id % 200)]).await?;
                let rows: Vec<_> = rows.iter().map(joined).collect();
                same(rows.len(), 10)?;
            }
            Operation::Transaction => {
                let increment = self.increment.on(client).await?;
                let transaction = client.transaction().await?;
                same(transaction.execute(increment, &[&id]).await?, 1)?;
                transaction.commit().await?;
            }
            Operation::ReadAndUpdate => {
                let look_up = self.look_up.on(client).await?;
                let set_pages = self.set_pages.on(client).await?;
                let transaction = client.transaction().await?;
                let book = book(&transaction.query_one(look_up, &[&id]).await?);
                same(book.0, id)?;
                let values: [&(dyn ToSql + Sync); 2] = [&(book.3 + 1), &id];
                same(transaction.execute(set_pages, &values).await?, 1)?;
                transaction.commit().await?;
            }
            Operation::ManyRows => {
                let lines = self.lines.on(client).await?;
                let rows = client.query(lines, &[]).await?;
                let rows: Vec<Line> = rows.iter().map(line).collect();
                same(rows.len(), MANY)?;
            }
            Operation::CopyIn => copy_in(client, self.copy.on(client).await?).await?,
            Operation::Pipeline => {
                let (client, look_up) = (&*client, self.look_up.on(client).await?);
                let look_ups = (0..LOOK_UPS).map(|n| async move {
                    let id = nth_book(id, n);
                    let row = client.query_one(look_up, &[&id]).await?;
                    same(book(&row).0, id)?;
                    Ok::<_, Failed>(())
                });
                for look_up in join_all(look_ups).await {
                    look_up?;
                }
            }
        }
        Ok(())
    }
}

/// A statement, prepared once.
struct Prepared {
    text: &'static str,
    statement: OnceCell<Statement>,
}

impl Prepared {
    fn new(text: &'static str) -> Self {
        Self {
            text,
            statement: OnceCell::new(),
        }
    }

    async fn on(&self, client: &Client) -> Result<&Statement, tokio_postgres::Error> {
        let prepare = || client.prepare(self.text);
        self.statement.get_or_try_init(prepare).await
    }
}

pub async fn copy_in<T>(client: &Client, copy: &T) -> Result<(), Failed>
where
    T: ?Sized + tokio_postgres::ToStatement,
{
    let mut sink = pin!(client.copy_in::<_, &'static [u8]>(copy).await?);
    for piece in pieces() {
        sink.send(piece).await?;
    }
    same(sink.finish().await?, MANY as u64)?;
    Ok(())
}

pub fn book(row: &Row) -> Book {
    (
        row.get(0),
        row.get(1),
        row.get(2),
        row.get(3),
        row.get(4),
        row.get(5),
    )
}

pub fn joined(row: &Row) -> (String, i32, String) {
    (row.get(0), row.get(1), row.get(2))
}

pub fn line(row: &Row) -> Line {
    (row.get(0), row.get(1), row.get(2))
}
