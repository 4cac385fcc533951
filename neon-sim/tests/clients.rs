//! How clients find their endpoint, get in, and are turned away.

mod common;

use std::sync::Arc;

use common::raw::tag;
use common::{bounded, config, direct_negotiation, psql, refusal, tls, try_connect};
use neon_sim::NeonSim;
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, HandshakeKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_postgres::config::ChannelBinding;
use tokio_rustls::TlsConnector;

const ENDPOINT: &str = "ep-quiet-lake-123456";

const UNSUPPORTED: &str = "unsupported startup parameter in options: work_mem. Please use unpooled \
    connection or remove this parameter from the startup package. More details: \
    https://neon.tech/docs/connect/connection-errors#unsupported-startup-parameter";

/// One for all tests here: they do not disturb each other.
async fn neon() -> &'static NeonSim {
    static NEON: OnceCell<NeonSim> = OnceCell::const_new();
    let start = async || bounded(NeonSim::builder().never_suspend().start()).await;
    NEON.get_or_try_init(start).await.unwrap()
}

/// "SCRAM-SHA-256-PLUS and SCRAM-SHA-256." "TLS 1.2 and 1.3."
#[tokio::test]
async fn psql_accepts_both_urls() {
    let neon = neon().await;
    for url in [neon.url(), neon.pooled_url()] {
        assert_eq!(
            psql(&url, "SELECT current_user", &[]).await.unwrap(),
            "neondb_owner"
        );
        let strict = url.replace("sslmode=require", "sslmode=verify-full");
        assert_eq!(psql(&strict, "SELECT 1", &[]).await.unwrap(), "1");
        let old = format!("{url}&ssl_max_protocol_version=TLSv1.2");
        assert_eq!(psql(&old, "SELECT 1", &[]).await.unwrap(), "1");
        let unbound = url.replace("channel_binding=require", "channel_binding=disable");
        assert_eq!(psql(&unbound, "SELECT 1", &[]).await.unwrap(), "1");
    }
}

/// Of the stand-in's own: whoever shares the machine does not get into the servers.
#[tokio::test]
async fn the_servers_behind_want_a_password() {
    let neon = neon().await;
    for url in [neon.postgres_url(), neon.pgbouncer_url()] {
        assert_eq!(psql(&url, "SELECT 1", &[]).await.unwrap(), "1");
        let wrong = url.replace(neon.password(), "wrong");
        assert!(psql(&wrong, "SELECT 1", &[]).await.is_err());
    }
}

/// "Without SNI: `options=endpoint=<id>` (or `project=<id>`) works and keeps SCRAM."
#[tokio::test]
async fn without_sni_the_options_name_the_endpoint() {
    let neon = neon().await;
    let unnamed = format!("{}&sslsni=0", neon.url());
    for option in [
        format!("endpoint%3D{ENDPOINT}"),
        format!("project%3D{ENDPOINT}"),
        format!("endpoint%3D{ENDPOINT}-pooler"),
    ] {
        let url = format!("{unnamed}&options={option}");
        assert_eq!(psql(&url, "SELECT 1", &[]).await.unwrap(), "1");
    }
    let pooled = format!("{unnamed}&options=endpoint%3D{ENDPOINT}-pooler%20-c%20work_mem%3D1MB");
    let refused = psql(&pooled, "SELECT 1", &[]).await.unwrap_err();
    assert!(refused.contains(UNSUPPORTED), "{refused}");
}

/// "Otherwise the proxy asks for a cleartext password and expects `endpoint=<id>;<password>` or
/// `endpoint=<id>$<password>`."
#[tokio::test]
async fn without_sni_and_options_the_password_names_the_endpoint() {
    let neon = neon().await;
    let url = neon
        .url()
        .replace(&format!(":{}@", neon.password()), "@")
        .replace("channel_binding=require", "sslsni=0");
    for separator in [';', '$'] {
        let password = format!("endpoint={ENDPOINT}{separator}{}", neon.password());
        let answer = psql(&url, "SELECT 1", &[("PGPASSWORD", &password)]).await;
        assert_eq!(answer.unwrap(), "1");
        let wrong = format!("endpoint={ENDPOINT}{separator}wrong");
        let refused = psql(&url, "SELECT 1", &[("PGPASSWORD", &wrong)]).await;
        assert!(
            refused
                .unwrap_err()
                .contains("password authentication failed")
        );
    }
    let refused = psql(&url, "SELECT 1", &[("PGPASSWORD", neon.password())]).await;
    let refused = refused.unwrap_err();
    assert!(
        refused.contains("ERROR:  Endpoint ID is not specified."),
        "{refused}"
    );
    assert!(refused.contains("https://neon.tech/sni"), "{refused}");
}

/// "When both SNI and the option are given they must be equal, `-pooler` included."
#[tokio::test]
async fn sni_and_options_must_agree() {
    let neon = neon().await;
    let with_option = |url: String, option: &str| {
        let mut config = config(&url);
        config.options(option);
        config
    };
    let right = with_option(neon.url(), &format!("endpoint={ENDPOINT}"));
    try_connect(&right, neon.ca_path()).await.unwrap();
    let wrong = with_option(neon.pooled_url(), &format!("endpoint={ENDPOINT}"));
    assert_eq!(
        refusal(try_connect(&wrong, neon.ca_path()).await),
        format!(
            "Inconsistent project name inferred from SNI ('{ENDPOINT}-pooler') and project \
             option ('{ENDPOINT}')."
        )
    );
}

/// "SSLRequest, or direct TLS (`sslnegotiation=direct`)."
#[tokio::test]
async fn tokio_postgres_connects_by_request_and_directly() {
    let neon = neon().await;
    for url in [neon.url(), neon.pooled_url()] {
        for config in [config(&url), direct_negotiation(&url)] {
            assert_eq!(config.get_channel_binding(), ChannelBinding::Require);
            let (client, _) = try_connect(&config, neon.ca_path()).await.unwrap();
            let row = client.query_typed("SELECT 40 + 2", &[]).await.unwrap();
            assert_eq!(row[0].get::<_, i32>(0), 42);
        }
    }
}

/// "Direct TLS with ALPN `postgresql` or none; another ALPN: a TLS alert."
#[tokio::test]
async fn another_alpn_is_refused_with_an_alert() {
    let neon = neon().await;
    let handshake = async |alpn: &[&[u8]]| {
        let mut config = tls(neon.ca_path());
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let stream = TcpStream::connect(("127.0.0.1", neon.port()))
            .await
            .unwrap();
        let name = ServerName::try_from(neon.host()).unwrap();
        bounded(TlsConnector::from(Arc::new(config)).connect(name, stream)).await
    };
    assert!(handshake(&[]).await.is_ok());
    assert!(handshake(&[b"postgresql"]).await.is_ok());
    let refused = handshake(&[b"h2"]).await.expect_err("it is refused");
    let alert = rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol);
    assert_eq!(refused.to_string(), alert.to_string(), "{refused:?}");
}

/// "Session resumption, no 0-RTT."
#[tokio::test]
async fn tls_sessions_are_resumed() {
    let neon = neon().await;
    let config = Arc::new(tls(neon.ca_path()));
    let mut kinds = Vec::new();
    for _ in 0..2 {
        let stream = TcpStream::connect(("127.0.0.1", neon.port()))
            .await
            .unwrap();
        let name = ServerName::try_from(neon.host()).unwrap();
        let connector = TlsConnector::from(Arc::clone(&config));
        let mut stream = bounded(connector.connect(name, stream)).await.unwrap();
        kinds.push(stream.get_ref().1.handshake_kind());
        // The tickets come with the first answer: here, that GSS is not to be had.
        let gss = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30];
        stream.write_all(&gss).await.unwrap();
        assert_eq!(bounded(stream.read_u8()).await.unwrap(), tag::NOT_ENCRYPTED);
    }
    assert_eq!(
        kinds,
        [Some(HandshakeKind::Full), Some(HandshakeKind::Resumed)]
    );
}

/// "Plain text is refused."
#[tokio::test]
async fn plain_text_is_refused_whatever_precedes_it() {
    let neon = neon().await;
    let plain = neon.url().replace(
        "sslmode=require&channel_binding=require",
        "sslmode=disable&channel_binding=disable",
    );
    let refused = psql(&plain, "SELECT 1", &[]).await.unwrap_err();
    let expected = "ERROR:  connection is insecure (try using `sslmode=require`)";
    assert!(refused.contains(expected), "{refused}");

    let mut stream = TcpStream::connect(("127.0.0.1", neon.port()))
        .await
        .unwrap();
    stream
        .write_all(&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30])
        .await
        .unwrap();
    assert_eq!(bounded(stream.read_u8()).await.unwrap(), tag::NOT_ENCRYPTED);
    stream
        .write_all(&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f])
        .await
        .unwrap();
    assert_eq!(bounded(stream.read_u8()).await.unwrap(), tag::ENCRYPTED);
}

/// "`password authentication failed for user '…'` (unknown role or endpoint too)."
#[tokio::test]
async fn wrong_credentials_all_look_the_same() {
    let neon = neon().await;
    for url in [neon.url(), neon.pooled_url()] {
        let mut wrong_password = config(&url);
        wrong_password.password("wrong");
        let mut unknown_role = config(&url);
        unknown_role.user("nobody_here");
        let unknown_endpoint = config(&url.replace(ENDPOINT, "ep-other-lake-1"));
        for (config, user) in [
            (wrong_password, "neondb_owner"),
            (unknown_role, "nobody_here"),
            (unknown_endpoint, "neondb_owner"),
        ] {
            assert_eq!(
                refusal(try_connect(&config, neon.ca_path()).await),
                format!("password authentication failed for user '{user}'")
            );
        }
    }
}

/// "Every error of the connection phase arrives as ERROR, XX000, and only a message: even 3D000."
#[tokio::test]
async fn an_unknown_database_is_named_and_does_no_harm() {
    let neon = neon().await;
    for url in [neon.url(), neon.pooled_url()] {
        let mut unknown = config(&url);
        unknown.dbname("nowhere");
        assert_eq!(
            refusal(try_connect(&unknown, neon.ca_path()).await),
            "database \"nowhere\" does not exist"
        );
        try_connect(&config(&url), neon.ca_path()).await.unwrap();
    }
}

/// "Every error of the connection phase arrives as ERROR, XX000, and only a message: even 53300."
#[tokio::test]
async fn the_database_s_own_refusals_lose_their_sqlstate() {
    let neon = neon().await;
    neon.sql("CREATE ROLE crowded LOGIN PASSWORD 'secret' CONNECTION LIMIT 0")
        .await
        .unwrap();
    let mut crowded = config(&neon.url());
    crowded.user("crowded").password("secret");
    assert_eq!(
        refusal(try_connect(&crowded, neon.ca_path()).await),
        "too many connections for role \"crowded\""
    );
}

/// "Startup parameters other than user, database, application_name, replication and options are silently dropped;
/// client_encoding is forced to UTF8. `options=-c name=value` works on direct endpoints; on a pooled one it is
/// an error."
#[tokio::test]
async fn startup_parameters_are_dropped_and_options_honoured() {
    let neon = neon().await;
    let style = [("PGDATESTYLE", "German")];
    for url in [neon.url(), neon.pooled_url()] {
        let shown = psql(&url, "SHOW datestyle", &style).await.unwrap();
        assert_eq!(shown, "ISO, MDY");
    }
    let latin = [("PGCLIENTENCODING", "LATIN1")];
    let shown = psql(&neon.url(), "SHOW client_encoding", &latin).await;
    assert_eq!(shown.unwrap(), "UTF8");
    let url = format!(
        "{}&options=-c%20work_mem%3D1MB&application_name=test",
        neon.url()
    );
    assert_eq!(psql(&url, "SHOW work_mem", &[]).await.unwrap(), "1MB");
    assert_eq!(
        psql(&url, "SHOW application_name", &[]).await.unwrap(),
        "test"
    );
    let pooled = format!("{}&options=-c%20work_mem%3D1MB", neon.pooled_url());
    let refused = psql(&pooled, "SELECT 1", &[]).await.unwrap_err();
    assert!(refused.contains(UNSUPPORTED), "{refused}");
}

/// "`neon_proxy_params_compat:true` among the options makes the proxy forward other startup parameters too."
#[tokio::test]
async fn a_client_may_ask_for_its_startup_parameters() {
    let neon = neon().await;
    let url = format!("{}&options=neon_proxy_params_compat%3Atrue", neon.url());
    for (variable, value, setting, shown) in [
        ("PGDATESTYLE", "German", "datestyle", "German, DMY"),
        ("PGCLIENTENCODING", "LATIN1", "client_encoding", "LATIN1"),
    ] {
        let show = format!("SHOW {setting}");
        let answer = psql(&url, &show, &[(variable, value)]).await;
        assert_eq!(answer.unwrap(), shown);
    }
}

/// "`password authentication failed` for an unknown role": one that was made is known at once.
#[tokio::test]
async fn roles_and_databases_made_by_a_test_are_reachable_through_both_endpoints() {
    let neon = neon().await;
    neon.create_database("odd \"name\"").await.unwrap();
    assert!(neon.create_database("odd \"name\"").await.is_err());
    neon.sql("CREATE ROLE visitor LOGIN PASSWORD 'it''s me'")
        .await
        .unwrap();
    for url in [neon.url(), neon.pooled_url()] {
        let mut visitor = config(&url);
        visitor
            .user("visitor")
            .password("it's me")
            .dbname("odd \"name\"");
        let (client, _) = try_connect(&visitor, neon.ca_path()).await.unwrap();
        let row = &client
            .query_typed("SELECT current_user::text, current_database()::text", &[])
            .await
            .unwrap()[0];
        assert_eq!(row.get::<_, &str>(0), "visitor");
        assert_eq!(row.get::<_, &str>(1), "odd \"name\"");
    }
    let rows = neon
        .sql_in("odd \"name\"", "SELECT 1, NULL; SELECT current_database()")
        .await
        .unwrap();
    assert_eq!(
        rows,
        [
            vec![Some("1".to_owned()), None],
            vec![Some("odd \"name\"".to_owned())]
        ]
    );
}

/// As on Neon, whose `neondb_owner` may create databases and roles but is no superuser.
#[tokio::test]
async fn the_owner_may_make_tables_databases_and_roles_but_is_no_superuser() {
    let neon = neon().await;
    let sql = "CREATE TABLE made (id int); DROP TABLE made";
    psql(&neon.url(), sql, &[]).await.unwrap();
    psql(&neon.url(), "CREATE DATABASE made", &[])
        .await
        .unwrap();
    psql(&neon.url(), "DROP DATABASE made", &[]).await.unwrap();
    psql(&neon.url(), "CREATE ROLE made", &[]).await.unwrap();
    let superuser = psql(&neon.url(), "SHOW is_superuser", &[]).await;
    assert_eq!(superuser.unwrap(), "off");
}
