//! The same without Diesel, on deadpool-postgres.

use deadpool_postgres::{Manager, Pool};
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres_rustls::MakeRustlsConnect;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let tls = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let config = std::env::var("DATABASE_URL")?.parse()?;
    let manager = Manager::new(config, MakeRustlsConnect::new(tls));
    let pool = Pool::builder(manager).build()?;
    let connection = pool.get().await?;
    let rows = connection.query("SELECT title FROM books", &[]).await?;
    let titles: Result<Vec<String>, _> = rows.iter().map(|row| row.try_get(0)).collect();
    println!("{:?}", titles?);
    Ok(())
}
