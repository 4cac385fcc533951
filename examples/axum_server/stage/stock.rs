//! bb8 with diesel-async, as their own documentation has it.

use std::error::Error;

use diesel::ConnectionError;
use diesel_async::AsyncPgConnection;
use diesel_async::pooled_connection::bb8::Pool;
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, ManagerConfig};
use diesel_neon::{DatabaseUrl, books};
use futures_util::FutureExt;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::Failure;

/// A pool with all settings as they are by default: 10 connections, each asked before it is handed out.
pub(super) struct Stock(Pool<AsyncPgConnection>);

impl Stock {
    pub(super) fn new(url: &DatabaseUrl) -> Result<Self, Failure> {
        // tokio-postgres does not take the URL as Neon prints it.
        let database = url.to_tokio_postgres();
        let Some(tls) = url.to_rustls()? else {
            let words = "DATABASE_URL is not the stand-in's, which has TLS";
            return Err(Failure(words.into()));
        };
        let tls = MakeRustlsConnect::new(tls);
        let mut config = ManagerConfig::default();
        config.custom_setup = Box::new(move |_| {
            let (database, tls) = (database.clone(), tls.clone());
            let connect = async move {
                let connected = database.connect(tls).await;
                let (client, connection) =
                    connected.map_err(|error| ConnectionError::BadConnection(error.to_string()))?;
                AsyncPgConnection::try_from_client_and_connection(client, connection).await
            };
            connect.boxed()
        });
        let manager = AsyncDieselConnectionManager::new_with_config("", config);
        Ok(Self(Pool::builder().build_unchecked(manager)))
    }

    pub(super) async fn ask(&self) -> Result<(), Box<dyn Error + Send + Sync>> {
        let mut connection = self.0.get().await?;
        books::find(&mut *connection, 1).await?;
        Ok(())
    }
}
