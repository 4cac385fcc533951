//! deadpool with diesel-async's manager.

use deadpool_postgres::Runtime;
use diesel_async::AsyncPgConnection;
use diesel_async::pooled_connection::deadpool;

use super::diesel_async_manager::manager;
use super::{CHECK, CONNECT, Configuration, Pool, Settings};

#[derive(Clone)]
pub struct Deadpool(pub deadpool::Pool<AsyncPgConnection>);

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

    look_up_and_hold!();
}
