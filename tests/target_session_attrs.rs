//! `target_session_attrs`, by TCP, TLS and Unix sockets alike.

#[path = "common/addresses.rs"]
mod addresses;
mod common;

use diesel::sql_types::Integer;
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use diesel_neon::{ConnectErrorKind, DatabaseUrl, PoolError};
use neon_sim::NeonSim;
use tokio::time::timeout;

use addresses::{Addresses, Behaviour::Trickles};
use common::{HANG, neon, pool, pool_of};

const READ_ONLY: &str = "options=-c%20default_transaction_read_only%3Don";

fn port(url: &str) -> u16 {
    DatabaseUrl::parse(url).unwrap().hosts()[0].port
}

/// Returns the server's Unix socket, as `folder:port`.
async fn socket(neon: &NeonSim) -> String {
    let rows = neon.sql("SHOW unix_socket_directories").await.unwrap();
    let folder = rows[0][0].clone().unwrap().replace('/', "%2F");
    format!("{folder}:{}", port(&neon.postgres_url()))
}

async fn routes(neon: &NeonSim) -> Vec<String> {
    let mut routes = vec![neon.postgres_url(), neon.url()];
    if cfg!(unix) {
        let (password, socket) = (neon.password(), socket(neon).await);
        routes.push(format!(
            "postgresql://neondb_owner:{password}@{socket}/neondb?"
        ));
    }
    routes
}

#[tokio::test]
async fn a_server_of_the_other_kind_is_refused_in_words_of_its_own() {
    let neon = neon().await;
    for url in routes(&neon).await {
        for (ask, says) in [
            (
                format!("target_session_attrs=read-write&{READ_ONLY}"),
                "the server is read-only, and target_session_attrs=read-write asks for one that takes writes",
            ),
            (
                "target_session_attrs=read-only".to_owned(),
                "the server takes writes, and target_session_attrs=read-only asks for one that is read-only",
            ),
        ] {
            let pool = pool(&format!("{url}&{ask}").replace("?&", "?"), |p| p);
            match timeout(HANG, pool.get()).await.unwrap() {
                Err(PoolError::Connect(error)) => {
                    assert_eq!(error.kind(), ConnectErrorKind::TargetSessionAttrs);
                    let error = error.to_string();
                    assert!(error.starts_with(says), "{url}: {error}");
                    assert!(!error.contains("firewall"), "{error}");
                }
                other => panic!("{url}: {:?}", other.map(|_| "a connection")),
            }
        }
    }
}

#[tokio::test]
async fn a_server_of_the_kind_asked_for_is_used() {
    let neon = neon().await;
    for url in routes(&neon).await {
        for ask in [
            "target_session_attrs=read-write".to_owned(),
            format!("target_session_attrs=read-only&{READ_ONLY}"),
        ] {
            let url = format!("{url}&{ask}").replace("?&", "?");
            let ours = pool(&url, |p| p);
            let mut connection = timeout(HANG, ours.get()).await.unwrap().unwrap();
            connection.batch_execute("SELECT 1").await.unwrap();

            let theirs = pool_of::<AsyncPgConnection>(&url, |policy| policy);
            let mut connection = timeout(HANG, theirs.get()).await.unwrap().unwrap();
            connection.batch_execute("SELECT 1").await.unwrap();
        }
    }
}

#[tokio::test]
async fn the_servers_answer_may_come_in_pieces() {
    let neon = neon().await;
    let addresses = Addresses::new(&[Trickles(port(&neon.postgres_url()))]).await;
    let url = addresses.url(&neon.postgres_url(), "localhost");
    for _ in 0..3 {
        let pool = pool(&format!("{url}&target_session_attrs=read-write"), |p| p);
        let mut connection = timeout(HANG, pool.get()).await.unwrap().unwrap();
        connection.batch_execute("SELECT 1").await.unwrap();
    }
}

#[tokio::test]
async fn of_several_hosts_the_one_that_fits_is_used() {
    let (replica, primary) = (neon().await, neon().await);
    let read_only = "ALTER ROLE neondb_owner SET default_transaction_read_only = on";
    replica.sql(read_only).await.unwrap();
    let same = format!("ALTER ROLE neondb_owner PASSWORD '{}'", replica.password());
    primary.sql(&same).await.unwrap();

    let tcp = |neon: &NeonSim| format!("127.0.0.1:{}", port(&neon.postgres_url()));
    let mut pairs = vec![(tcp(&replica), tcp(&primary))];
    if cfg!(unix) {
        pairs.push((socket(&replica).await, socket(&primary).await));
    }
    for (first, second) in pairs {
        for (attrs, fits) in [
            ("read-write", &primary),
            ("read-only", &replica),
            ("any", &replica),
        ] {
            let url = format!(
                "postgresql://neondb_owner:{}@{first},{second}/neondb?target_session_attrs={attrs}",
                replica.password()
            );
            let pool = pool(&url, |p| p);
            let mut connection = timeout(HANG, pool.get()).await.unwrap().unwrap();
            let found = diesel::select(diesel::dsl::sql::<Integer>("current_setting('port')::int"));
            let found: i32 = found.get_result(&mut *connection).await.unwrap();
            assert_eq!(
                found,
                i32::from(port(&fits.postgres_url())),
                "{attrs}: {url}"
            );
        }
    }
}
