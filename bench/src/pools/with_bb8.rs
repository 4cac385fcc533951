//! bb8 with diesel-async's manager.

use diesel_async::AsyncPgConnection;
use diesel_async::pooled_connection::bb8;

use super::diesel_async_manager::manager;
use super::{Configuration, IDLE, Pool, Settings};

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

    look_up_and_hold!();
}
