//! deadpool with diesel-async's manager.

use deadpool_postgres::Runtime;
use diesel::QueryDsl;
use diesel_async::pooled_connection::deadpool;
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::diesel_async_manager::manager;
use super::{CHECK, CONNECT, Configuration, Pool, Settings, words};
use crate::schema::{Book, books};

#[derive(Clone)]
pub struct Deadpool(deadpool::Pool<AsyncPgConnection>);

impl Pool for Deadpool {
    async fn build(url: &str, settings: Settings) -> Self {
        let mut builder = deadpool::Pool::builder(manager(url, settings))
            .max_size(settings.max_size as usize)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(settings.patience));
        if settings.configuration == Configuration::Serverless {
            builder = builder
                .recycle_timeout(Some(CHECK))
                .create_timeout(Some(CONNECT));
        }
        Self(builder.build().expect("a pool"))
    }

    async fn look_up(&self, id: i32) -> Result<i32, String> {
        let mut connection = self.0.get().await.map_err(words)?;
        let book = books::table.find(id).get_result(&mut connection).await;
        let book: Book = book.map_err(words)?;
        Ok(book.id)
    }

    async fn hold<F: Future<Output = ()> + Send>(&self, meanwhile: F) -> Result<(), String> {
        let _connection = self.0.get().await.map_err(words)?;
        meanwhile.await;
        Ok(())
    }
}
