//! sqlx's own pool.

use diesel_neon::DatabaseUrl;
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use super::{Configuration, IDLE, LOOK_UP, Pool, Settings, words};

#[derive(Clone)]
pub struct Sqlx(pub PgPool);

impl Pool for Sqlx {
    const TAKES_ADDRESSES: bool = false;
    async fn build(url: &str, settings: Settings) -> Self {
        let mut options = PgPoolOptions::new()
            .max_connections(settings.max_size)
            .acquire_timeout(settings.patience);
        match settings.configuration {
            Configuration::Default => {}
            Configuration::Serverless => options = options.idle_timeout(IDLE),
            Configuration::Unchecked => options = options.test_before_acquire(false),
        }
        Self(options.connect_lazy_with(connect_options(url)))
    }

    async fn look_up(&self, id: i32) -> Result<i32, String> {
        type Book = (i32, i32, String, i32, f64, Option<String>);
        let book = sqlx::query_as(LOOK_UP).bind(id).fetch_one(&self.0);
        let book: Book = book.await.map_err(words)?;
        Ok(book.0)
    }

    async fn hold<F: Future<Output = ()> + Send>(&self, meanwhile: F) -> Result<(), String> {
        let _connection = self.0.acquire().await.map_err(words)?;
        meanwhile.await;
        Ok(())
    }
}

/// It knows no `hostaddr`, so it dials the address and names the endpoint by an option.
pub fn connect_options(url: &str) -> PgConnectOptions {
    let parsed = DatabaseUrl::parse(url).expect("a URL");
    let host = &parsed.hosts()[0];
    let options: PgConnectOptions =
        match (parsed.to_rustls().expect("a certificate"), host.address) {
            (Some(_), Some(address)) => {
                let name = host.name.to_string();
                let endpoint = name.split('.').next().unwrap_or_default();
                let options = format!("options=endpoint%3D{endpoint}");
                format!("postgresql://{address}/?sslmode=require&{options}").parse()
            }
            (Some(_), None) => format!("postgresql://{}/?sslmode=require", host.name).parse(),
            (None, Some(address)) => format!("postgresql://{address}/?sslmode=disable").parse(),
            (None, None) => format!("postgresql://{}/?sslmode=disable", host.name).parse(),
        }
        .expect("options");
    options
        .port(host.port)
        .username(parsed.user().unwrap_or_default())
        .password(parsed.password().unwrap_or_default())
        .database(parsed.database().unwrap_or_default())
}
