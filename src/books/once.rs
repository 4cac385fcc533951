use diesel::dsl::sql_query;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sql_types::{Bool, Integer, Nullable, Text};
use diesel_async::{AsyncConnection, RunQueryDsl};

use super::models::{Book, NewBook};
use super::schema::book_requests;

/// Adds a book once under an idempotency key of the caller's choice, and returns it. A second call with the
/// same key and book returns the book of the first, even at the same time. Returns `None` if the key belongs to
/// a request for another book.
///
/// The call is therefore safe to repeat if the outcome of the first is unknown, as
/// [`Retry::idempotent`](crate::Retry::idempotent) does, and clients that send the same request twice. A key
/// has at most 255 characters, such as a random UUID for each book.
///
/// ```no_run
/// use diesel_neon::books::{self, Book, NewBook};
/// # use diesel_neon::{Pool, RetryError};
///
/// # async fn create(pool: &Pool) -> Result<Option<Book>, RetryError> {
/// let key = "9f0c7a52-5f0e-4a58-9a39-2a7c0d6c8a41"; // the caller's, such as the header Idempotency-Key
/// let dune = NewBook::new("Dune").author("Frank Herbert");
/// let dune = pool
///     .retry()
///     .idempotent()
///     .run(async |connection| {
///         let made = books::insert_once(connection, key, &dune).await?;
///         Ok::<_, RetryError>(made) // None if the key belongs to another book
///     })
///     .await?;
/// # Ok(dune)
/// # }
/// ```
///
/// The book comes back as it was made, even if it has been changed or deleted since. The table
/// `book_requests` keeps it until its row is deleted, after which the key is a new one: delete rows
/// whose `requested_at` is longer ago than any client tries again.
///
/// # Errors
///
/// Returns the database's errors, as [`insert`](super::insert) does.
pub async fn insert_once<C>(conn: &mut C, key: &str, book: &NewBook) -> QueryResult<Option<Book>>
where
    C: AsyncConnection<Backend = Pg>,
{
    let made = sql_query(MAKE)
        .bind::<Text, _>(key)
        .bind::<Text, _>(&book.title)
        .bind::<Nullable<Text>, _>(&book.author)
        .bind::<Nullable<Integer>, _>(book.publication_year)
        .bind::<Bool, _>(book.in_stock)
        .get_result(conn)
        .await
        .optional()?;
    match made {
        Some(book) => Ok(Some(book)),
        None => made_before(conn, key, book).await,
    }
}

/// One statement is all or nothing: a second call at the same time waits at the key for the end of the first.
/// A later call finds the key and draws no id.
const MAKE: &str = "\
    WITH request AS (
        INSERT INTO book_requests (key, book_id, title, author, publication_year, in_stock)
        SELECT $1, nextval(pg_get_serial_sequence('books', 'id')), $2, $3, $4, $5
        WHERE NOT EXISTS (SELECT FROM book_requests WHERE key = $1)
        ON CONFLICT (key) DO NOTHING
        RETURNING *
    )
    INSERT INTO books (id, title, author, publication_year, in_stock)
    SELECT book_id, title, author, publication_year, in_stock FROM request
    RETURNING *";

async fn made_before<C>(conn: &mut C, key: &str, book: &NewBook) -> QueryResult<Option<Book>>
where
    C: AsyncConnection<Backend = Pg>,
{
    use book_requests::{author, book_id, in_stock, publication_year, title};

    book_requests::table
        .find(key)
        .filter(title.eq(&book.title))
        .filter(author.is_not_distinct_from(&book.author))
        .filter(publication_year.is_not_distinct_from(book.publication_year))
        .filter(in_stock.eq(book.in_stock))
        .select((book_id, title, author, publication_year, in_stock))
        .first(conn)
        .await
        .optional()
}
