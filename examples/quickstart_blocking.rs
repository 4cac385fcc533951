//! Creates, reads, updates and deletes four books with synchronous Diesel, as the example `quickstart` does.
//!
//! Put the connection string from Neon's console into `.env` as `DATABASE_URL`, pooled or direct,
//! then:
//!
//! ```sh
//! cargo run --example quickstart_blocking --features blocking,books
//! ```
//!
//! Like Neon's guides, the example starts by dropping the table `books`: give it a database without one that
//! you need.

use std::error::Error;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel_neon::blocking::{PgConnection, Pool};
use diesel_neon::books::schema::books;
use diesel_neon::books::{Book, NewBook};

const CREATE_TABLE: &str = include_str!("../migrations/2026-01-05-090000_create_books/up.sql");

fn main() -> Result<(), Box<dyn Error>> {
    let pool = Pool::from_env()?;
    let conn = &mut pool.get()?;
    println!("Connection established");

    conn.batch_execute("DROP TABLE IF EXISTS books")?;
    println!("Finished dropping table (if it existed).");
    conn.batch_execute(CREATE_TABLE)?;
    println!("Finished creating table.");

    let catcher = NewBook::new("The Catcher in the Rye")
        .author("J.D. Salinger")
        .publication_year(1951);
    diesel::insert_into(books::table)
        .values(&catcher)
        .execute(conn)?;
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
    let more: Vec<Book> = diesel::insert_into(books::table)
        .values(&more[..])
        .returning(Book::as_returning())
        .get_results(conn)?;
    println!("Inserted {} rows of data.", more.len());
    print_library(conn)?;

    let (nineteen_eighty_four, dune) = (&more[1], &more[2]);
    diesel::update(dune)
        .set(books::in_stock.eq(true))
        .execute(conn)?;
    println!("Updated stock status for '{}'.", dune.title);
    print_library(conn)?;

    diesel::delete(nineteen_eighty_four).execute(conn)?;
    println!(
        "Deleted the book '{}' from the table.",
        nineteen_eighty_four.title
    );
    print_library(conn)?;
    Ok(())
}

fn print_library(conn: &mut PgConnection) -> Result<(), Box<dyn Error>> {
    println!("\n--- Book Library ---");
    let library = books::table
        .select(Book::as_select())
        .order(books::publication_year)
        .load(conn)?;
    for book in &library {
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
