//! sqlx, with its own cache of prepared statements.

use sqlx::{Connection as _, PgConnection};

use super::{
    AUTHOR, BATCH, Book, INCREMENT, INSERT, JOIN, LOOK_UP, NOTE, OK, Operation, Peer, RATING, ROWS,
    TITLE, UPDATE,
};

pub struct Sqlx(PgConnection);

impl Peer for Sqlx {
    async fn connect(url: &str) -> Self {
        Self(PgConnection::connect(url).await.expect("a connection"))
    }

    async fn run(&mut self, operation: Operation, id: i32) {
        let connection = &mut self.0;
        match operation {
            Operation::LookUp => {
                let row = sqlx::query_as(LOOK_UP).bind(id).fetch_one(connection);
                let book: Book = row.await.expect(OK);
                assert_eq!(book.0, id);
            }
            Operation::Insert => {
                let insert = sqlx::query_as(INSERT).bind(AUTHOR).bind(TITLE).bind(id);
                let row = insert.bind(RATING).fetch_one(connection);
                let book: Book = row.await.expect(OK);
                assert_eq!(book.2, TITLE);
            }
            Operation::Update => {
                let update = sqlx::query(UPDATE).bind(TITLE).bind(id).bind(RATING);
                let updated = update.bind(NOTE).bind(id).execute(connection);
                assert_eq!(updated.await.expect(OK).rows_affected(), 1);
            }
            Operation::Batch => {
                let mut insert = sqlx::query(BATCH);
                for n in 0..ROWS {
                    insert = insert.bind(AUTHOR).bind(TITLE).bind(id + n).bind(RATING);
                }
                let inserted = insert.execute(connection).await.expect(OK);
                assert_eq!(inserted.rows_affected(), 10);
            }
            Operation::Join | Operation::SqlQuery => {
                let rows = sqlx::query_as(JOIN)
                    .bind(1 + id % 200)
                    .fetch_all(connection);
                let rows: Vec<(String, i32, String)> = rows.await.expect(OK);
                assert_eq!(rows.len(), 10);
            }
            Operation::Transaction => {
                let mut transaction = connection.begin().await.expect(OK);
                let updated = sqlx::query(INCREMENT).bind(id).execute(&mut *transaction);
                assert_eq!(updated.await.expect(OK).rows_affected(), 1);
                transaction.commit().await.expect(OK);
            }
        }
    }
}
