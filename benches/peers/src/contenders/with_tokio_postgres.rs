//! tokio-postgres, with statements that were prepared beforehand.

use diesel_neon::DatabaseUrl;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls, Row, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{
    AUTHOR, BATCH, Book, INCREMENT, INSERT, JOIN, LOOK_UP, NOTE, OK, Operation, Peer, RATING, ROWS,
    TITLE, UPDATE,
};

pub struct TokioPostgres {
    client: Client,
    look_up: Statement,
    insert: Statement,
    update: Statement,
    batch: Statement,
    join: Statement,
    increment: Statement,
}

impl Peer for TokioPostgres {
    async fn connect(url: &str) -> Self {
        let url = DatabaseUrl::parse(url).expect("a URL");
        let config = url.to_tokio_postgres();
        let client = match url.to_rustls().expect("a certificate") {
            None => {
                let (client, driver) = config.connect(NoTls).await.expect("a connection");
                tokio::spawn(driver);
                client
            }
            Some(tls) => {
                let tls = MakeRustlsConnect::new(tls);
                let (client, driver) = config.connect(tls).await.expect("a connection");
                tokio::spawn(driver);
                client
            }
        };
        Self {
            look_up: client.prepare(LOOK_UP).await.expect(OK),
            insert: client.prepare(INSERT).await.expect(OK),
            update: client.prepare(UPDATE).await.expect(OK),
            batch: client.prepare(BATCH).await.expect(OK),
            join: client.prepare(JOIN).await.expect(OK),
            increment: client.prepare(INCREMENT).await.expect(OK),
            client,
        }
    }

    async fn run(&mut self, operation: Operation, id: i32) {
        let client = &mut self.client;
        match operation {
            Operation::LookUp => {
                let row = client.query_one(&self.look_up, &[&id]).await.expect(OK);
                assert_eq!(book(&row).0, id);
            }
            Operation::Insert => {
                let row = client
                    .query_one(&self.insert, &[&AUTHOR, &TITLE, &id, &RATING])
                    .await
                    .expect(OK);
                assert_eq!(book(&row).2, TITLE);
            }
            Operation::Update => {
                let updated = client
                    .execute(&self.update, &[&TITLE, &id, &RATING, &NOTE, &id])
                    .await
                    .expect(OK);
                assert_eq!(updated, 1);
            }
            Operation::Batch => {
                let pages: Vec<i32> = (0..ROWS).map(|n| id + n).collect();
                let mut values: Vec<&(dyn ToSql + Sync)> = Vec::new();
                for pages in &pages {
                    values.extend([&AUTHOR as &(dyn ToSql + Sync), &TITLE, pages, &RATING]);
                }
                let inserted = client.execute(&self.batch, &values).await.expect(OK);
                assert_eq!(inserted, 10);
            }
            Operation::Join | Operation::SqlQuery => {
                let rows = client
                    .query(&self.join, &[&(1 + id % 200)])
                    .await
                    .expect(OK);
                let rows: Vec<(String, i32, String)> = rows
                    .iter()
                    .map(|row| (row.get(0), row.get(1), row.get(2)))
                    .collect();
                assert_eq!(rows.len(), 10);
            }
            Operation::Transaction => {
                let transaction = client.transaction().await.expect(OK);
                let updated = transaction
                    .execute(&self.increment, &[&id])
                    .await
                    .expect(OK);
                assert_eq!(updated, 1);
                transaction.commit().await.expect(OK);
            }
        }
    }
}

fn book(row: &Row) -> Book {
    (
        row.get(0),
        row.get(1),
        row.get(2),
        row.get(3),
        row.get(4),
        row.get(5),
    )
}
