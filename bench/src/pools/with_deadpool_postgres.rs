//! deadpool-postgres.

use deadpool_postgres::{Manager, ManagerConfig, RecyclingMethod, Runtime};
use diesel_neon::DatabaseUrl;
use tokio_postgres::NoTls;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{CHECK, CONNECT, Configuration, LOOK_UP, Pool, Settings, words};

#[derive(Clone)]
pub struct DeadpoolPostgres(deadpool_postgres::Pool);

impl Pool for DeadpoolPostgres {
    async fn build(url: &str, settings: Settings) -> Self {
        let url = DatabaseUrl::parse(url).expect("a URL");
        let mut config = url.to_tokio_postgres();
        // By default it asks whether the socket is known to be closed, and nothing else.
        let mut recycling_method = RecyclingMethod::Fast;
        if settings.configuration == Configuration::Serverless {
            recycling_method = RecyclingMethod::Verified;
            config.connect_timeout(CONNECT);
        }
        let how = ManagerConfig { recycling_method };
        let manager = match url.to_rustls().expect("a certificate") {
            None => Manager::from_config(config, NoTls, how),
            Some(tls) => Manager::from_config(config, MakeRustlsConnect::new(tls), how),
        };
        let mut builder = deadpool_postgres::Pool::builder(manager)
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
        let connection = self.0.get().await.map_err(words)?;
        let look_up = connection.prepare_cached(LOOK_UP).await.map_err(words)?;
        let row = connection
            .query_one(&look_up, &[&id])
            .await
            .map_err(words)?;
        // All of the row is read, as Diesel does.
        let _text: (String, Option<String>) = (row.get(2), row.get(5));
        let _numbers: (i32, i32, f64) = (row.get(1), row.get(3), row.get(4));
        Ok(row.get(0))
    }

    hold!();
}
