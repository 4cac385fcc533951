//! bb8 with diesel-async's manager.

use diesel::QueryDsl;
use diesel_async::pooled_connection::bb8;
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::diesel_async_manager::manager;
use super::{Configuration, IDLE, Pool, Settings, words};
use crate::schema::{Book, books};

#[derive(Clone)]
pub struct Bb8(pub bb8::Pool<AsyncPgConnection>);

impl Pool for Bb8 {
    async fn build(url: &str, settings: Settings) -> Self {
        let mut builder = bb8::Pool::builder()
            .max_size(settings.max_size)
            .connection_timeout(settings.patience);
        match settings.configuration {
            Configuration::Default => {}
            Configuration::Serverless => {
                builder = builder.idle_timeout(Some(IDLE));
            }
            Configuration::Unchecked => builder = builder.test_on_check_out(false),
        }
        Self(builder.build(manager(url, settings)).await.expect("a pool"))
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
