//! tokio-postgres, with types instead of prepared statements, for poolers that do not track these.

use futures_util::future::join_all;
use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use super::operations::{
    AUTHOR, BATCH, BATCH_ROWS, COPY, INCREMENT, INSERT, JOIN, LINES, LOOK_UP, LOOK_UPS, Line, MANY,
    NOTE, Operation, Peer, RATING, SET_PAGES, TITLE, UPDATE, nth_book, same,
};
use super::with_tokio_postgres::{book, copy_in, joined, line};
use crate::suites::dial::{self, Failed};

pub struct Typed(Client);

type Value<'a> = (&'a (dyn ToSql + Sync), Type);

impl Peer for Typed {
    async fn connect(url: &str) -> Result<Self, Failed> {
        Ok(Self(dial::tokio_postgres(url).await?))
    }

    async fn run(&mut self, operation: Operation, id: i32) -> Result<(), Failed> {
        let client = &mut self.0;
        match operation {
            Operation::LookUp => {
                let row = client
                    .query_typed_one(LOOK_UP, &[(&id, Type::INT4)])
                    .await?;
                same(book(&row).0, id)?;
            }
            Operation::Insert => {
                let row = client.query_typed_one(INSERT, &new_book(&id)).await?;
                same(book(&row).2, TITLE)?;
            }
            Operation::Update => {
                let values: [Value<'_>; 5] = [
                    (&TITLE, Type::TEXT),
                    (&id, Type::INT4),
                    (&RATING, Type::FLOAT8),
                    (&NOTE, Type::TEXT),
                    (&id, Type::INT4),
                ];
                same(client.execute_typed(UPDATE, &values).await?, 1)?;
            }
            Operation::Batch => {
                let pages: Vec<i32> = (0..BATCH_ROWS).map(|n| id + n).collect();
                let values: Vec<Value<'_>> = pages.iter().flat_map(new_book).collect();
                same(client.execute_typed(BATCH, &values).await?, 10)?;
            }
            Operation::Join | Operation::SqlQuery => {
                let author = 1 + id % 200;
                let rows = client.query_typed(JOIN, &[(&author, Type::INT4)]).await?;
                let rows: Vec<_> = rows.iter().map(joined).collect();
                same(rows.len(), 10)?;
            }
            Operation::Transaction => {
                let transaction = client.transaction().await?;
                let values = [(&id as &(dyn ToSql + Sync), Type::INT4)];
                same(transaction.execute_typed(INCREMENT, &values).await?, 1)?;
                transaction.commit().await?;
            }
            Operation::ReadAndUpdate => {
                let transaction = client.transaction().await?;
                let values = [(&id as &(dyn ToSql + Sync), Type::INT4)];
                let book = book(&transaction.query_typed_one(LOOK_UP, &values).await?);
                same(book.0, id)?;
                let pages = book.3 + 1;
                let values: [Value<'_>; 2] = [(&pages, Type::INT4), (&id, Type::INT4)];
                same(transaction.execute_typed(SET_PAGES, &values).await?, 1)?;
                transaction.commit().await?;
            }
            Operation::ManyRows => {
                let rows = client.query_typed(LINES, &[]).await?;
                let rows: Vec<Line> = rows.iter().map(line).collect();
                same(rows.len(), MANY)?;
            }
            Operation::CopyIn => copy_in(client, COPY).await?,
            Operation::Pipeline => {
                let client = &*client;
                let look_ups = (0..LOOK_UPS).map(|n| async move {
                    let id = nth_book(id, n);
                    let values = [(&id as &(dyn ToSql + Sync), Type::INT4)];
                    let row = client.query_typed_one(LOOK_UP, &values).await?;
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

fn new_book(pages: &i32) -> [Value<'_>; 4] {
    [
        (&AUTHOR, Type::INT4),
        (&TITLE, Type::TEXT),
        (pages, Type::INT4),
        (&RATING, Type::FLOAT8),
    ]
}
