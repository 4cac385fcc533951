//! diesel-async's manager, with the TLS that its examples have.

use diesel::result::{ConnectionError, Error, QueryResult};
use diesel::sql_types::Integer;
use diesel::{IntoSql, select};
use diesel_async::pooled_connection::{
    AsyncDieselConnectionManager, ManagerConfig, RecyclingMethod,
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use diesel_neon::DatabaseUrl;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::timeout;
use tokio_postgres::NoTls;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{CHECK, CONNECT, Configuration, Settings, words};

/// Takes the URL with this crate's parser, since tokio-postgres refuses parts of what Neon prints.
pub fn manager(url: &str, settings: Settings) -> AsyncDieselConnectionManager<AsyncPgConnection> {
    let parsed = DatabaseUrl::parse(url).expect("a URL");
    let tls = parsed.to_rustls().expect("a certificate");
    let mut config = parsed.to_tokio_postgres();
    let mut manager = ManagerConfig::default();
    match settings.configuration {
        Configuration::Default => {}
        Configuration::Serverless => {
            config.connect_timeout(CONNECT);
            manager.recycling_method = RecyclingMethod::CustomFunction(Box::new(check));
        }
        Configuration::Unchecked => manager.recycling_method = RecyclingMethod::Fast,
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

/// Asks what the manager asks as it comes, with a limit.
fn check(connection: &mut AsyncPgConnection) -> BoxFuture<'_, QueryResult<()>> {
    let ask = select(1.into_sql::<Integer>()).get_result::<i32>(connection);
    async {
        let late = |_| Err(Error::BrokenTransactionManager);
        timeout(CHECK, ask).await.unwrap_or_else(late).map(drop)
    }
    .boxed()
}
