//! This crate's pool, with a hook at each checkout, and with statements looked after.

use std::time::Duration;

use diesel::QueryDsl;
use diesel_async::RunQueryDsl;
use futures_util::FutureExt;

use crate::pools::{Pool, Settings};
use crate::schema::{Book, books};

#[derive(Clone)]
pub struct Watched(diesel_neon::Pool);

impl Pool for Watched {
    async fn build(url: &str, settings: Settings) -> Self {
        let builder = diesel_neon::Pool::builder(url)
            .max_size(settings.max_size)
            .checkout_timeout(settings.patience)
            .validation_bypass(Duration::from_secs(100))
            .silence_threshold(Duration::from_secs(1))
            .before_acquire(|_, _| async { Ok(true) }.boxed());
        Self(builder.build().expect("a pool"))
    }

    async fn look_up(&self, id: i32) -> Result<i32, String> {
        let mut connection = self.0.get().await.map_err(|error| error.to_string())?;
        let book = books::table.find(id).get_result(&mut connection).await;
        let book: Book = book.map_err(|error| error.to_string())?;
        Ok(book.id)
    }

    async fn hold<F: Future<Output = ()> + Send>(&self, meanwhile: F) -> Result<(), String> {
        let _connection = self.0.get().await.map_err(|error| error.to_string())?;
        meanwhile.await;
        Ok(())
    }
}
