use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json as JsonBody, Router};
use diesel_neon::books::{
    self, Book, BookChanges, BookList, BookPage, Cursor, NewBook, Order, PageSize,
};
use diesel_neon::{Connection, Pool, RetryError};
use serde::de::Error;
use serde::{Deserialize, Deserializer};

use crate::extract::{IdempotencyKey, Json, Path, Query};
use crate::problem::Problem;
use crate::{App, Db};

pub(crate) fn routes() -> Router<App> {
    Router::new().route("/books", get(list).post(create)).route(
        "/books/{id}",
        get(show).put(replace).patch(change).delete(remove),
    )
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListParams {
    /// The `next` of the previous page.
    after: Option<Cursor>,
    sort: Option<Order>,
    #[serde(default, deserialize_with = "page_size")]
    limit: PageSize,
    author: Option<String>,
    /// Text anywhere in the title, in upper or lower case.
    title: Option<String>,
    in_stock: Option<bool>,
    #[serde(default, deserialize_with = "year")]
    published_from: Option<i32>,
    #[serde(default, deserialize_with = "year")]
    published_to: Option<i32>,
}

fn page_size<'de, D: Deserializer<'de>>(text: D) -> Result<PageSize, D::Error> {
    let size = String::deserialize(text)?.parse().unwrap_or(0);
    PageSize::try_from(size).map_err(D::Error::custom)
}

/// Reads a year; the error is in words for the client, as the standard library's are for programmers.
fn year<'de, D: Deserializer<'de>>(text: D) -> Result<Option<i32>, D::Error> {
    let year = String::deserialize(text)?.parse();
    year.map(Some)
        .map_err(|_| D::Error::custom("a year is a whole number, such as 1965"))
}

async fn list(
    State(pool): State<Pool>,
    Query(params): Query<ListParams>,
) -> Result<JsonBody<BookPage>, Problem> {
    let list = match (params.after, params.sort) {
        (None, sort) => BookList::new(sort.unwrap_or_default()),
        (Some(after), sort) if sort.is_none_or(|sort| sort == after.order()) => {
            BookList::after(after)
        }
        _ => {
            let detail = "`after` comes from a page in another order than `sort`.";
            return Err(Problem::new(StatusCode::BAD_REQUEST, detail));
        }
    };
    let list = list
        .limit(params.limit)
        .author(params.author.as_deref())
        .title_contains(params.title.as_deref())
        .in_stock(params.in_stock)
        .published_from(params.published_from)
        .published_to(params.published_to);
    let load =
        async |conn: &mut Connection| list.clone().load(conn).await.map_err(RetryError::from);
    // Reading may be done again: a compute that is suspended in the middle of it costs the client nothing.
    let page = pool.retry().idempotent().run(load).await?;
    Ok(JsonBody(page))
}

async fn create(
    State(pool): State<Pool>,
    IdempotencyKey(key): IdempotencyKey,
    Json(book): Json<NewBook>,
) -> Result<impl IntoResponse, Problem> {
    let book = book.validated()?;
    let book = match key {
        None => books::insert(&mut pool.get().await?, &book).await?,
        Some(key) => create_once(&pool, &key, &book).await?,
    };
    let location = [(header::LOCATION, format!("/books/{}", book.id))];
    Ok((StatusCode::CREATED, location, JsonBody(book)))
}

/// Creates a book under a key, which makes the request safe to repeat: for the pool and for the client.
async fn create_once(pool: &Pool, key: &str, book: &NewBook) -> Result<Book, Problem> {
    let work = async |conn: &mut Connection| {
        let made = books::insert_once(conn, key, book).await;
        made.map_err(RetryError::from)
    };
    let made = pool.retry().idempotent().run(work).await?;
    made.ok_or_else(|| {
        let detail = "The Idempotency-Key belongs to a request for another book.";
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
    })
}

async fn show(State(pool): State<Pool>, Path(id): Path<i32>) -> Result<JsonBody<Book>, Problem> {
    let find = async |conn: &mut Connection| books::find(conn, id).await.map_err(RetryError::from);
    let book = pool.retry().idempotent().run(find).await?;
    found(id, book).map(JsonBody)
}

async fn replace(
    State(pool): State<Pool>,
    Path(id): Path<i32>,
    Json(book): Json<NewBook>,
) -> Result<JsonBody<Book>, Problem> {
    update(&pool, id, book.validated()?.into()).await
}

async fn change(
    State(pool): State<Pool>,
    Path(id): Path<i32>,
    Json(changes): Json<BookChanges>,
) -> Result<JsonBody<Book>, Problem> {
    update(&pool, id, changes.validated()?).await
}

async fn update(pool: &Pool, id: i32, changes: BookChanges) -> Result<JsonBody<Book>, Problem> {
    let book = books::update(&mut pool.get().await?, id, &changes).await?;
    found(id, book).map(JsonBody)
}

async fn remove(Path(id): Path<i32>, mut db: Db) -> Result<StatusCode, Problem> {
    let book = books::delete(&mut db, id).await?;
    found(id, book).map(|_| StatusCode::NO_CONTENT)
}

fn found(id: i32, book: Option<Book>) -> Result<Book, Problem> {
    book.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, format!("There is no book {id}.")))
}
