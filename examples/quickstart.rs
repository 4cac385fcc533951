//! Creates, reads, updates and deletes four books, as Neon's language guides do.
//!
//! Put the connection string from Neon's console into `.env` as `DATABASE_URL`, pooled or direct,
//! then:
//!
//! ```sh
//! cargo run --example quickstart --features books
//! ```
//!
//! `-- --transport websocket` goes over port 443, with the feature `websocket`.
//!
//! Like the guides, the example starts by dropping the table `books`: give it a database without one that
//! you need.

use std::error::Error;

use diesel_async::SimpleAsyncConnection;
use diesel_neon::books::{self, Book, BookChanges, BookList, NewBook, Order};
use diesel_neon::{Pool, PooledConnection, env};

const CREATE_TABLE: &str = include_str!("../migrations/2026-01-05-090000_create_books/up.sql");

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let pool = pool()?;
    let mut conn = pool.get().await?;
    println!("Connection established");

    conn.batch_execute("DROP TABLE IF EXISTS books").await?;
    println!("Finished dropping table (if it existed).");
    conn.batch_execute(CREATE_TABLE).await?;
    println!("Finished creating table.");

    let catcher = NewBook::new("The Catcher in the Rye")
        .author("J.D. Salinger")
        .publication_year(1951);
    books::insert(&mut conn, &catcher).await?;
    println!("Inserted a single book.");

    let more = [
        NewBook::new("The Hobbit")
            .author("J.R.R. Tolkien")
            .publication_year(1937),
        NewBook::new("1984")
            .author("George Orwell")
            .publication_year(1949),
        NewBook::new("Dune")
            .author("Frank Herbert")
            .publication_year(1965)
            .in_stock(false),
    ];
    let more = books::insert_many(&mut conn, &more).await?;
    println!("Inserted {} rows of data.", more.len());
    print_library(&mut conn).await?;

    let (nineteen_eighty_four, dune) = (&more[1], &more[2]);
    books::update(&mut conn, dune.id, &BookChanges::new().in_stock(true)).await?;
    println!("Updated stock status for '{}'.", dune.title);
    print_library(&mut conn).await?;

    books::delete(&mut conn, nineteen_eighty_four.id).await?;
    println!(
        "Deleted the book '{}' from the table.",
        nineteen_eighty_four.title
    );
    print_library(&mut conn).await?;
    Ok(())
}

/// Builds the pool for the URL in the environment, over the way that the arguments name.
fn pool() -> Result<Pool, Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => Ok(Pool::from_env()?),
        ["--transport", way] => {
            env::load_dotenv()?;
            let url = env::app_url()?.url;
            Ok(Pool::builder(url.with_transport(way.parse()?)?).build()?)
        }
        _ => Err("usage: quickstart [--transport tcp|websocket|auto]".into()),
    }
}

async fn print_library(conn: &mut PooledConnection<'_>) -> Result<(), Box<dyn Error>> {
    println!("\n--- Book Library ---");
    let page = BookList::new(Order::PublicationYear).load(conn).await?;
    for book in &page.books {
        println!("{}", line(book));
    }
    println!("--------------------\n");
    Ok(())
}

/// Renders a book as Python prints it.
fn line(book: &Book) -> String {
    format!(
        "ID: {}, Title: {}, Author: {}, Year: {}, In Stock: {}",
        book.id,
        book.title,
        book.author.as_deref().unwrap_or("None"),
        book.publication_year
            .map_or_else(|| "None".to_owned(), |year| year.to_string()),
        if book.in_stock { "True" } else { "False" },
    )
}
