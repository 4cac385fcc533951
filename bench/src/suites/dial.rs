//! How tokio-postgres and diesel-async reach the stand-in, with the URL and the TLS that ours makes of it.

use std::error::Error;

use diesel_async::AsyncPgConnection;
use diesel_neon::DatabaseUrl;
use tokio_postgres::{Client, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

pub type Failed = Box<dyn Error + Send + Sync>;

pub async fn tokio_postgres(url: &str) -> Result<Client, Failed> {
    let url = DatabaseUrl::parse(url)?;
    let config = url.to_tokio_postgres();
    match url.to_rustls()? {
        None => {
            let (client, driver) = config.connect(NoTls).await?;
            tokio::spawn(driver);
            Ok(client)
        }
        Some(tls) => {
            let (client, driver) = config.connect(MakeRustlsConnect::new(tls)).await?;
            tokio::spawn(driver);
            Ok(client)
        }
    }
}

pub async fn diesel_async(url: &str) -> Result<AsyncPgConnection, Failed> {
    let url = DatabaseUrl::parse(url)?;
    let config = url.to_tokio_postgres();
    let connection = match url.to_rustls()? {
        None => {
            let (client, driver) = config.connect(NoTls).await?;
            AsyncPgConnection::try_from_client_and_connection(client, driver).await
        }
        Some(tls) => {
            let (client, driver) = config.connect(MakeRustlsConnect::new(tls)).await?;
            AsyncPgConnection::try_from_client_and_connection(client, driver).await
        }
    };
    Ok(connection?)
}
