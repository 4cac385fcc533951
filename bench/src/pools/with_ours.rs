//! This crate's pool.

use std::time::Duration;

use diesel::QueryDsl;
use diesel_async::RunQueryDsl;

use super::{Configuration, Pool, Settings, words};
use crate::schema::{Book, books};

#[derive(Clone)]
pub struct Ours(pub diesel_neon::Pool);

impl Pool for Ours {
    async fn build(url: &str, settings: Settings) -> Self {
        let mut builder = diesel_neon::Pool::builder(url)
            .max_size(settings.max_size)
            .checkout_timeout(settings.patience);
        if settings.configuration == Configuration::Unchecked {
            builder = builder.validation_bypass(Duration::from_secs(100));
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
