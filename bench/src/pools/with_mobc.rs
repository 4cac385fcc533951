//! mobc with diesel-async's manager.

use diesel_async::AsyncPgConnection;
use diesel_async::pooled_connection::mobc;

use super::diesel_async_manager::manager;
use super::{Configuration, IDLE, Opens, Pool, Settings};

#[derive(Clone)]
pub struct Mobc(pub mobc::Pool<AsyncPgConnection>);

impl Pool for Mobc {
    // diesel-async's manager tells it of every connection that works that it is broken.
    const OPENS: Opens = Opens::OneForEach;

    async fn build(url: &str, settings: Settings) -> Self {
        let mut builder = mobc::Pool::builder()
            .max_open(settings.max_size.into())
            .max_idle(settings.max_size.into())
            .get_timeout(Some(settings.patience));
        match settings.configuration {
            Configuration::Default => {}
            Configuration::Serverless => builder = builder.max_idle_lifetime(Some(IDLE)),
            Configuration::Unchecked => builder = builder.test_on_check_out(false),
        }
        Self(builder.build(manager(url, settings)))
    }

    look_up_and_hold!();
}
