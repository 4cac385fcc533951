use diesel::dsl::sql_query;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sql_types::{Bool, Integer, Nullable, Text};
use diesel_async::{AsyncConnection, RunQueryDsl};

use super::models::{Book, NewBook};
use super::schema::book_requests;

/// Adds a book under an idempotency key of the caller's choice, once: whoever asks for the same again gets the
/// book that the first one made, also where both ask at the same time. `None` if the key belongs to a request
/// for another book.
///
/// That makes it safe to do again where nobody knows whether the first time counted, so it goes well with
/// [`Pool::idempotent`](crate::Pool::idempotent), and with clients that send the same request twice. A key
/// has at most 255 characters; a random UUID for each book that is wanted will do.
///
/// ```no_run
/// use diesel_neon::books::{self, Book, NewBook};
/// # use diesel_neon::{Pool, RetryError};
///
/// # async fn create(pool: &Pool) -> Result<Option<Book>, RetryError> {
/// let key = "9f0c7a52-5f0e-4a58-9a39-2a7c0d6c8a41"; // the caller's, such as the header Idempotency-Key
/// let dune = NewBook::new("Dune").author("Frank Herbert");
/// let dune = pool
///     .idempotent()
///     .run(async |connection| {
///         let made = books::insert_once(connection, key, &dune).await?;
///         Ok::<_, RetryError>(made) // None where the key belongs to another book
///     })
///     .await?;
/// # Ok(dune)
/// # }
/// ```
///
/// The answer is the book as it was made, even if it has been changed or deleted since. The table
/// `book_requests` keeps it until somebody deletes the row, after which the key is a new one: delete those
/// whose `requested_at` is longer ago than anybody tries again.
///
/// # Errors
///
/// Those of the database, as [`insert`](super::insert).
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

/// One statement, hence all or nothing: whoever comes second waits for the first one's end at the key.
/// Whoever comes later finds the key, and draws no id; only those who come at the same time do.
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
