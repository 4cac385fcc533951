//! diesel-async's manager, with the TLS that its examples have.

use diesel::ConnectionError;
use diesel_async::AsyncPgConnection;
use diesel_async::pooled_connection::{
    AsyncDieselConnectionManager, ManagerConfig, RecyclingMethod,
};
use diesel_neon::DatabaseUrl;
use futures_util::FutureExt;
use tokio_postgres::NoTls;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{CONNECT, Configuration, Settings, words};

/// Takes the URL with this crate's parser, since tokio-postgres refuses parts of what Neon prints.
pub fn manager(url: &str, settings: Settings) -> AsyncDieselConnectionManager<AsyncPgConnection> {
    let parsed = DatabaseUrl::parse(url).expect("a URL");
    let tls = parsed.to_rustls().expect("a certificate");
    let mut config = parsed.to_tokio_postgres();
    if settings.configuration == Configuration::Serverless {
        config.connect_timeout(CONNECT);
    }
    let mut manager = ManagerConfig::default();
    if settings.configuration == Configuration::Unchecked {
        manager.recycling_method = RecyclingMethod::Fast;
    }
    manager.custom_setup = Box::new(move |_| {
        let (config, tls) = (config.clone(), tls.clone());
        let connect = async move {
            let refused = |error| ConnectionError::BadConnection(words(error));
            match tls {
                None => {
                    let (client, driver) = config.connect(NoTls).await.map_err(refused)?;
                    AsyncPgConnection::try_from_client_and_connection(client, driver).await
                }
                Some(tls) => {
                    let tls = MakeRustlsConnect::new(tls);
                    let (client, driver) = config.connect(tls).await.map_err(refused)?;
                    AsyncPgConnection::try_from_client_and_connection(client, driver).await
                }
            }
        };
        connect.boxed()
    });
    AsyncDieselConnectionManager::new_with_config(url, manager)
}
