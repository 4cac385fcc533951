//! The routes that are measured, on the peers' pools.

use std::error::Error;

use axum::Json as JsonBody;
use axum::Router;
use axum::http::{StatusCode, header};
use axum::routing::{get, post};
use diesel_neon::books::{self, Book, NewBook};
use serde::Serialize;

use super::example::App;
use super::example::extract::{IdempotencyKey, Json, Path};
use super::example::problem::Problem;
use crate::pools::{Bb8, Deadpool, Pool, Sqlx};

/// A pool that books can be asked for.
pub trait Shelf: Pool {
    type Book: Serialize + Send;

    fn find(&self, id: i32) -> impl Future<Output = Result<Option<Self::Book>, Problem>> + Send;

    /// Returns the new book, and its ID.
    fn insert(
        &self,
        book: &NewBook,
    ) -> impl Future<Output = Result<(i32, Self::Book), Problem>> + Send;
}

pub fn routes<S: Shelf>(shelf: S) -> Router<App> {
    let other = shelf.clone();
    let show = move |Path(id): Path<i32>| async move {
        let book = shelf.find(id).await?;
        let no_book = || Problem::new(StatusCode::NOT_FOUND, format!("There is no book {id}."));
        book.map(JsonBody).ok_or_else(no_book)
    };
    let create = move |IdempotencyKey(_): IdempotencyKey, Json(book): Json<NewBook>| async move {
        let (id, book) = other.insert(&book.validated()?).await?;
        let location = [(header::LOCATION, format!("/books/{id}"))];
        Ok::<_, Problem>((StatusCode::CREATED, location, JsonBody(book)))
    };
    Router::new()
        .route("/books", post(create))
        .route("/books/{id}", get(show))
}

/// Both have diesel-async's connection, and run what the example runs.
macro_rules! on_diesel_async {
    ($pool:ty) => {
        impl Shelf for $pool {
            type Book = Book;

            async fn find(&self, id: i32) -> Result<Option<Book>, Problem> {
                let mut connection = self.0.get().await.map_err(no_connection)?;
                Ok(books::find(&mut *connection, id).await?)
            }

            async fn insert(&self, book: &NewBook) -> Result<(i32, Book), Problem> {
                let mut connection = self.0.get().await.map_err(no_connection)?;
                let book = books::insert(&mut *connection, book).await?;
                Ok((book.id, book))
            }
        }
    };
}

on_diesel_async!(Bb8);
on_diesel_async!(Deadpool);

fn no_connection(error: impl Error + 'static) -> Problem {
    tracing::error!(error = &error as &dyn Error, "no connection");
    Problem::unavailable("The database cannot be reached.")
}

/// [`Book`], which other crates cannot make.
#[derive(Serialize)]
pub struct Row {
    id: i32,
    title: String,
    author: Option<String>,
    publication_year: Option<i32>,
    in_stock: bool,
}

type Columns = (i32, String, Option<String>, Option<i32>, bool);

impl From<Columns> for Row {
    fn from((id, title, author, publication_year, in_stock): Columns) -> Self {
        Self {
            id,
            title,
            author,
            publication_year,
            in_stock,
        }
    }
}

impl Shelf for Sqlx {
    type Book = Row;

    async fn find(&self, id: i32) -> Result<Option<Row>, Problem> {
        let found = sqlx::query_as(FIND).bind(id).fetch_optional(&self.0);
        let book: Option<Columns> = found.await.map_err(failed)?;
        Ok(book.map(Row::from))
    }

    async fn insert(&self, book: &NewBook) -> Result<(i32, Row), Problem> {
        let inserted = sqlx::query_as(INSERT)
            .bind(&book.title)
            .bind(&book.author)
            .bind(book.publication_year)
            .bind(book.in_stock);
        let book: Columns = inserted.fetch_one(&self.0).await.map_err(failed)?;
        Ok((book.0, book.into()))
    }
}

const FIND: &str = "SELECT id, title, author, publication_year, in_stock FROM books WHERE id = $1";
const INSERT: &str = "\
    INSERT INTO books (title, author, publication_year, in_stock) VALUES ($1, $2, $3, $4) \
    RETURNING id, title, author, publication_year, in_stock";

fn failed(error: sqlx::Error) -> Problem {
    match error {
        sqlx::Error::Database(_) => {
            tracing::error!(error = &error as &dyn Error, "query failed");
            Problem::internal()
        }
        _ => no_connection(error),
    }
}
