//! Clients for the tests, and bounds on how long anything may take.
#![allow(dead_code, reason = "no test needs all of it")]

pub(crate) mod http;
pub(crate) mod raw;
pub(crate) mod websocket;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::task::JoinHandle;
use tokio_postgres::config::SslNegotiation;
use tokio_postgres::error::DbError;
use tokio_postgres::{Client, Config, Error};
use tokio_postgres_rustls::MakeRustlsConnect;

/// Fails instead of hanging.
pub(crate) async fn bounded<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future)
        .await
        .expect("this takes too long")
}

/// Waits for something that another task brings about.
pub(crate) async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waiting)
        .await
        .unwrap_or_else(|_| panic!("this never happens: {what}"));
}

pub(crate) fn tls(ca: &Path) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(ca).unwrap())
        .unwrap();
    let mut config =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    config
}

/// Returns a URL of the stand-in as tokio-postgres's configuration.
pub(crate) fn config(url: &str) -> Config {
    url.split("&sslrootcert").next().unwrap().parse().unwrap()
}

pub(crate) fn direct_negotiation(url: &str) -> Config {
    let mut config = config(url);
    config.ssl_negotiation(SslNegotiation::Direct);
    config
}

pub(crate) type Driver = JoinHandle<Result<(), Error>>;

pub(crate) async fn try_connect(config: &Config, ca: &Path) -> Result<(Client, Driver), Error> {
    let connector = MakeRustlsConnect::new(tls(ca));
    let (client, connection) = bounded(config.connect(connector)).await?;
    Ok((client, tokio::spawn(connection)))
}

pub(crate) async fn connect(url: &str, ca: &Path) -> (Client, Driver) {
    try_connect(&config(url), ca).await.unwrap()
}

/// Returns the error that the server has sent.
pub(crate) fn told<T>(result: Result<T, Error>) -> DbError {
    match result {
        Ok(_) => panic!("this should have failed"),
        Err(error) => match error.as_db_error() {
            Some(told) => told.clone(),
            None => panic!("the server has not said why: {error:?}"),
        },
    }
}

/// Returns the message of an error of the connection phase; its other fields are always the same.
pub(crate) fn refusal<T>(result: Result<T, Error>) -> String {
    let told = told(result);
    assert_eq!(told.severity(), "ERROR");
    assert_eq!(told.code().code(), "XX000");
    assert_eq!(told.detail(), None);
    told.message().to_owned()
}

/// Returns what psql prints, or its error.
pub(crate) async fn psql(
    url: &str,
    sql: &str,
    environment: &[(&str, &str)],
) -> Result<String, String> {
    let mut command = tokio::process::Command::new("psql");
    command
        .args(["--no-psqlrc", "--no-password", "-tA", "-d", url, "-c", sql])
        .envs(environment.iter().copied())
        .kill_on_drop(true);
    let output = bounded(command.output()).await.expect("psql is installed");
    if output.status.success() {
        Ok(String::from_utf8(output.stdout).unwrap().trim().to_owned())
    } else {
        Err(String::from_utf8(output.stderr).unwrap().trim().to_owned())
    }
}
