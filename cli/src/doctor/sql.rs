//! Queries that any pooler passes on.

use tokio_postgres::{Client, Error, SimpleQueryMessage, SimpleQueryRow};

pub(crate) async fn rows(client: &Client, sql: &str) -> Result<Vec<SimpleQueryRow>, Error> {
    // By the simple protocol, statements have no name.
    let messages = client.simple_query(sql).await?;
    let rows = messages.into_iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    Ok(rows.collect())
}

pub(crate) fn text(row: Option<&SimpleQueryRow>, column: usize) -> String {
    let text = row.and_then(|row| row.get(column));
    text.unwrap_or_default().to_owned()
}
