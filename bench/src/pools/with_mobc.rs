//! mobc with diesel-async's manager.

use diesel::QueryDsl;
use diesel_async::pooled_connection::mobc;
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::diesel_async_manager::manager;
use super::{Configuration, IDLE, Pool, Settings, words};
use crate::schema::{Book, books};

#[derive(Clone)]
pub struct Mobc(pub mobc::Pool<AsyncPgConnection>);

impl Pool for Mobc {
    async fn build(url: &str, settings: Settings) -> Self {
        let mut builder = mobc::Pool::builder()
            .max_open(settings.max_size.into())
            .get_timeout(Some(settings.patience));
        match settings.configuration {
            Configuration::Default => builder = builder.max_idle(settings.max_size.into()),
            Configuration::Serverless => {
                builder = builder
                    .max_idle(settings.max_size.into())
                    .max_idle_lifetime(Some(IDLE));
            }
            Configuration::Unchecked => {
                builder = builder
                    .max_idle(settings.max_size.into())
                    .test_on_check_out(false);
            }
        }
        Self(builder.build(manager(url, settings)))
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
