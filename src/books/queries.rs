use diesel::pg::Pg;
use diesel::prelude::*;
use diesel_async::{AsyncConnection, RunQueryDsl};

use super::models::{Book, BookChanges, NewBook};
use super::schema::books;

/// A statement has at most 65,535 parameters, and a book takes four.
const ROWS_PER_INSERT: usize = 65_535 / 4;

/// Adds a book and returns it with its id.
///
/// # Errors
///
/// Returns the database's errors, such as for a title that is too long; [`NewBook::validated`] finds it first.
pub async fn insert<C>(conn: &mut C, book: &NewBook) -> QueryResult<Book>
where
    C: AsyncConnection<Backend = Pg>,
{
    diesel::insert_into(books::table)
        .values(book)
        .returning(Book::as_returning())
        .get_result(conn)
        .await
}

/// Adds any number of books, all or none, and returns them with their ids in the same order.
///
/// Runs one statement, or a transaction of several if the books exceed one statement's parameters.
///
/// # Errors
///
/// Returns the database's errors.
#[expect(
    clippy::manual_async_fn,
    reason = "an async fn with a transaction on any connection cannot be spawned (rust-lang/rust#100013)"
)]
pub fn insert_many<'a, C>(
    conn: &'a mut C,
    books: &'a [NewBook],
) -> impl Future<Output = QueryResult<Vec<Book>>> + Send + 'a
where
    C: AsyncConnection<Backend = Pg> + 'a,
{
    async move {
        if books.len() <= ROWS_PER_INSERT {
            return insert_rows(conn, books).await;
        }
        conn.transaction(async |conn| {
            let mut inserted = Vec::with_capacity(books.len());
            for rows in books.chunks(ROWS_PER_INSERT) {
                inserted.extend(insert_rows(conn, rows).await?);
            }
            Ok(inserted)
        })
        .await
    }
}

/// Returns the book with this id, if there is one.
///
/// # Errors
///
/// Returns the database's errors.
pub async fn find<C>(conn: &mut C, id: i32) -> QueryResult<Option<Book>>
where
    C: AsyncConnection<Backend = Pg>,
{
    books::table
        .find(id)
        .select(Book::as_select())
        .first(conn)
        .await
        .optional()
}

/// Changes the book with this id and returns the result, or `None` if there is no such book.
///
/// Without changes the book comes back as it is. To replace a book as a whole, make the changes from a
/// [`NewBook`].
///
/// # Errors
///
/// Returns the database's errors; [`BookChanges::validated`] finds some of them first.
pub async fn update<C>(conn: &mut C, id: i32, changes: &BookChanges) -> QueryResult<Option<Book>>
where
    C: AsyncConnection<Backend = Pg>,
{
    // Diesel refuses to build an UPDATE that sets nothing.
    if changes.is_empty() {
        return find(conn, id).await;
    }
    diesel::update(books::table.find(id))
        .set(changes)
        .returning(Book::as_returning())
        .get_result(conn)
        .await
        .optional()
}

/// Deletes the book with this id and returns it, or `None` if there is no such book.
///
/// # Errors
///
/// Returns the database's errors.
pub async fn delete<C>(conn: &mut C, id: i32) -> QueryResult<Option<Book>>
where
    C: AsyncConnection<Backend = Pg>,
{
    diesel::delete(books::table.find(id))
        .returning(Book::as_returning())
        .get_result(conn)
        .await
        .optional()
}

async fn insert_rows<C>(conn: &mut C, rows: &[NewBook]) -> QueryResult<Vec<Book>>
where
    C: AsyncConnection<Backend = Pg>,
{
    diesel::insert_into(books::table)
        .values(rows)
        .returning(Book::as_returning())
        .get_results(conn)
        .await
}
