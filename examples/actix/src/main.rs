//! The books of a library over HTTP, by Actix and synchronous Diesel.

use actix_web::error::{ErrorInternalServerError, ErrorServiceUnavailable};
use actix_web::{App, HttpResponse, HttpServer, Responder, get, post, web};
use diesel::prelude::*;
use diesel_migrations::{EmbeddedMigrations, embed_migrations};
use diesel_neon::RetryError;
use diesel_neon::blocking::{PgConnection, Pool};
use diesel_neon::migration::Migrator;
use serde::{Deserialize, Serialize};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!();

diesel::table! {
    books {
        id -> Integer,
        title -> Text,
    }
}

#[derive(Queryable, Selectable, Serialize)]
struct Book {
    id: i32,
    title: String,
}

#[derive(Deserialize, Insertable)]
#[diesel(table_name = books)]
struct NewBook {
    title: String,
}

fn all(connection: &mut PgConnection) -> QueryResult<Vec<Book>> {
    let books = books::table.select(Book::as_select()).order(books::id);
    books.load(connection)
}

fn insert(connection: &mut PgConnection, book: &NewBook) -> QueryResult<Book> {
    let insert = diesel::insert_into(books::table).values(book);
    insert
        .returning(Book::as_returning())
        .get_result(connection)
}

#[get("/books")]
async fn list(pool: web::Data<Pool>) -> actix_web::Result<impl Responder> {
    let work = move || Ok(all(&mut pool.get()?)?);
    let books = web::block(work).await?.map_err(refuse)?;
    Ok(web::Json(books))
}

#[post("/books")]
async fn add(pool: web::Data<Pool>, book: web::Json<NewBook>) -> actix_web::Result<impl Responder> {
    let work = move || pool.transaction(|connection| Ok(insert(connection, &book)?));
    let book = web::block(work).await?.map_err(refuse)?;
    Ok(HttpResponse::Created().json(book))
}

/// Logs the reason, and tells the client no more than whether to try again.
fn refuse(error: RetryError) -> actix_web::Error {
    eprintln!("no answer from the database: {error:?}");
    match error {
        RetryError::Pool(error) if error.is_transient() => ErrorServiceUnavailable("try again"),
        _ => ErrorInternalServerError("sorry"),
    }
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    Migrator::from_env(MIGRATIONS)?.run_pending().await?;
    let pool = web::Data::new(Pool::from_env()?);
    let app = move || App::new().app_data(pool.clone()).service(list).service(add);
    let port = std::env::var("PORT").unwrap_or_else(|_| "3000".to_owned());
    let server = HttpServer::new(app).bind(format!("127.0.0.1:{port}"))?;
    println!("listening on http://{}", server.addrs()[0]);
    server.run().await?;
    Ok(())
}
