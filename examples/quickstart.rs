//! Creates, reads, updates and deletes four books, as Neon's language guides do.
//!
//! Put the connection string from Neon's console into `.env` as `DATABASE_URL`, pooled or direct,
//! then:
//!
//! ```sh
//! cargo run --example quickstart --features books
//! ```
//!
//! `-- --transport websocket` and `-- --transport https` go over port 443, with the features `websocket` and `http`.
//!
//! Like the guides, the example starts by dropping the table `books`: give it a database without one that
//! you need.

use std::error::Error;

use diesel::pg::Pg;
use diesel_async::AsyncConnection;
use diesel_neon::books::{self, Book, BookChanges, BookList, NewBook, Order};
use diesel_neon::{Pool, env};

const CREATE_TABLE: &str = include_str!("../migrations/2026-01-05-090000_create_books/up.sql");

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [] => {
            let pool = Pool::from_env()?;
            run(&mut pool.get().await?).await
        }
        #[cfg(feature = "http")]
        ["--transport", "https"] => {
            env::load_dotenv()?;
            let url = env::app_url()?.url;
            run(&mut diesel_neon::http::HttpConnection::new(url)?).await
        }
        ["--transport", way] => {
            env::load_dotenv()?;
            let url = env::app_url()?.url.with_transport(way.parse()?)?;
            let pool = Pool::builder(url).build()?;
            run(&mut pool.get().await?).await
        }
        _ => Err("usage: quickstart [--transport tcp|websocket|auto|https]".into()),
    }
}

async fn run(conn: &mut impl AsyncConnection<Backend = Pg>) -> Result<(), Box<dyn Error>> {
    println!("Connection established");

    conn.batch_execute("DROP TABLE IF EXISTS books").await?;
    println!("Finished dropping table (if it existed).");
    conn.batch_execute(CREATE_TABLE).await?;
    println!("Finished creating table.");

    let catcher = NewBook::new("The Catcher in the Rye")
        .author("J.D. Salinger")
        .publication_year(1951);
    books::insert(conn, &catcher).await?;
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
    let more = books::insert_many(conn, &more).await?;
    println!("Inserted {} rows of data.", more.len());
    print_library(conn).await?;

    let (nineteen_eighty_four, dune) = (&more[1], &more[2]);
    books::update(conn, dune.id, &BookChanges::new().in_stock(true)).await?;
    println!("Updated stock status for '{}'.", dune.title);
    print_library(conn).await?;

    books::delete(conn, nineteen_eighty_four.id).await?;
    println!(
        "Deleted the book '{}' from the table.",
        nineteen_eighty_four.title
    );
    print_library(conn).await?;
    Ok(())
}

async fn print_library(
    conn: &mut impl AsyncConnection<Backend = Pg>,
) -> Result<(), Box<dyn Error>> {
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
