//! Postgres over port 443: what is different there. Sessions, transactions, COPY and cancels run over a WebSocket in the tests
//! of all routes.

mod common;

use std::process::Stdio;
use std::time::Duration;

use common::{
    HANG, behind_a_firewall, connect, counted, example, neon, over_websocket, pool, refusing_port,
    start, users,
};
use diesel::prelude::*;
use diesel_async::{RunQueryDsl, SimpleAsyncConnection};
use diesel_neon::{
    ConnectErrorKind, Connection, DatabaseUrl, Pool, PoolError, TransportMode, UrlError,
};
use futures_util::future::join_all;
use neon_sim::{HttpProxy, NeonSim, Suspension, WebSocketFault};
use tokio::time::timeout;

async fn get(pool: &Pool) -> Result<diesel_neon::PooledConnection<'_>, PoolError> {
    timeout(HANG, pool.get()).await.expect("no hang")
}

async fn count(connection: &mut Connection) -> i64 {
    users::table.count().get_result(connection).await.unwrap()
}

/// Returns the error of a connect that fails.
async fn failure(pool: &Pool) -> diesel_neon::ConnectError {
    let error = get(pool).await.map(drop).unwrap_err();
    match pool.status().last_failure {
        Some(failure) => failure,
        None => panic!("{error:?}"),
    }
}

#[tokio::test]
async fn login_and_upgrade_share_a_flight() {
    let neon = start().await;
    for url in [neon.url(), neon.pooled_url()] {
        let url = over_websocket(&neon, url);
        let before = neon.counters();
        let mut connection = connect(&url).await;
        assert_eq!(count(&mut connection).await, 0);
        let counted = counted(&neon, &url, before);
        // TLS, then the request for the WebSocket with the startup message and the password, then the statement.
        assert_eq!(
            (counted.handshake_flights, counted.flights),
            (2, 1),
            "{url}"
        );
    }
}

#[tokio::test]
async fn a_pool_lives_through_each_kind_of_suspension() {
    let neon = start().await;
    for suspension in [Suspension::Normal, Suspension::Reset, Suspension::Silent] {
        for url in [neon.url(), neon.pooled_url()] {
            let pool = pool(&over_websocket(&neon, url), |policy| {
                policy.validation_bypass(Duration::ZERO)
            });
            drop(get(&pool).await.unwrap());
            neon.suspend(suspension).await;
            let mut connection = get(&pool).await.unwrap();
            assert_eq!(count(&mut connection).await, 0);
            drop(connection);
            assert_eq!(pool.status().transport, TransportMode::WebSocket);
            pool.close(Duration::from_secs(5)).await.unwrap();
        }
    }
}

#[tokio::test]
async fn large_values_pass_in_both_directions() {
    let neon = start().await;
    let mut connection = connect(&over_websocket(&neon, neon.url())).await;
    for length in [0_usize, 125, 126, 65_535, 65_536, 3_000_000] {
        let text = "x".repeat(length);
        let back = diesel::select(text.clone().into_sql::<diesel::sql_types::Text>());
        let back: String = back.get_result(&mut connection).await.unwrap();
        assert!(back == text, "{length}");
    }
}

#[tokio::test]
async fn whatever_a_server_may_send_in_frames_is_understood() {
    let neon = start().await;
    let url = over_websocket(&neon, neon.url());
    for fault in [
        WebSocketFault::Fragmented,
        WebSocketFault::Ping(vec![7; 125]),
    ] {
        neon.disturb_websockets(1, fault);
        assert_eq!(count(&mut connect(&url).await).await, 0);
    }
}

#[tokio::test]
async fn each_failure_is_told_in_its_own_words_and_class() {
    let neon = start().await;
    let url = over_websocket(&neon, neon.url());
    let impatient = |url: &str| {
        let limit = Duration::from_millis(2500);
        pool(url, |policy| {
            policy.connect_timeout(limit).checkout_timeout(2 * limit)
        })
    };
    let answer = |status, body: &str| WebSocketFault::Answer {
        status,
        body: body.to_owned(),
    };
    let close = |code, reason: &str| WebSocketFault::Close {
        code,
        reason: reason.to_owned(),
    };
    let cases = [
        (
            answer(403, "not from here"),
            ConnectErrorKind::Forbidden,
            "403",
        ),
        (answer(429, ""), ConnectErrorKind::TooManyConnections, "429"),
        (answer(503, "soon"), ConnectErrorKind::Unavailable, "503"),
        (
            answer(200, "<html>hello"),
            ConnectErrorKind::Configuration,
            "200",
        ),
        (
            close(1011, "no compute"),
            ConnectErrorKind::Unavailable,
            "1011 no compute",
        ),
        (
            close(1013, ""),
            ConnectErrorKind::Unavailable,
            "try again later",
        ),
        (
            WebSocketFault::WrongAccept,
            ConnectErrorKind::Configuration,
            "to another request",
        ),
        (
            WebSocketFault::Text("hello".to_owned()),
            ConnectErrorKind::Configuration,
            "text",
        ),
    ];
    let told = cases.chunks(3).map(async |cases| {
        let neon = start().await;
        let url = over_websocket(&neon, neon.url());
        for (fault, kind, words) in cases {
            neon.disturb_websockets(u64::MAX, fault.clone());
            let error = failure(&impatient(&url)).await;
            neon.clear_faults();
            assert!(error.reason().contains(words), "{fault:?}: {error:?}");
            // What passes is tried until the time is up.
            let expected = [*kind, ConnectErrorKind::TimedOut];
            assert!(expected.contains(&error.kind()), "{fault:?}: {error:?}");
            assert!(!error.reason().contains("<html>"), "{error:?}");
        }
    });
    join_all(told).await;
    neon.disturb_websockets(u64::MAX, WebSocketFault::NoAnswer);
    let error = failure(&impatient(&url)).await;
    assert_eq!(error.kind(), ConnectErrorKind::TimedOut);
    neon.clear_faults();
    let wrong = url.replacen(neon.password(), "s3cret", 1);
    let error = failure(&impatient(&wrong)).await;
    assert_eq!(error.kind(), ConnectErrorKind::Authentication, "{error:?}");
    assert_eq!(error.attempts(), 1);
    assert!(!format!("{error:?}").contains("s3cret"));
}

#[tokio::test]
async fn channel_binding_that_cannot_hold_is_refused() {
    let neon = neon().await;
    let url = format!("{}&transport=websocket", neon.url());
    let error = DatabaseUrl::parse(&url).unwrap_err();
    assert!(matches!(error, UrlError::ChannelBinding { .. }), "{error}");
    let words = error.to_string();
    assert!(words.contains("channel_binding=prefer"), "{words}");
    let url = DatabaseUrl::parse(&neon.url()).unwrap();
    for mode in [TransportMode::WebSocket, TransportMode::Auto] {
        url.with_transport(mode).unwrap_err();
    }
    url.with_transport(TransportMode::Tcp).unwrap();
}

#[tokio::test]
async fn the_certificate_is_verified_and_no_switch_changes_that() {
    let neon = neon().await;
    let url = over_websocket(&neon, neon.url());
    let (before, roots) = url.split_once("sslrootcert=").unwrap();
    let after = roots.split_once('&').map_or("", |(_, after)| after);
    let pool = pool(&format!("{before}{after}"), |policy| policy);
    let error = failure(&pool).await;
    assert_eq!(error.kind(), ConnectErrorKind::Tls, "{error:?}");
    let code = error.diagnosis().code();
    assert_eq!(code, "certificate-unknown-issuer", "{error:?}");
}

#[tokio::test]
async fn auto_takes_the_way_that_is_open_and_remembers_it() {
    let neon = start().await;
    let auto = |url: String| {
        let url = over_websocket(&neon, url);
        url.replace("transport=websocket", "transport=auto")
    };
    let open = pool(&auto(neon.url()), |policy| policy);
    drop(get(&open).await.unwrap());
    assert_eq!(open.status().transport, TransportMode::Tcp);

    let blocked = auto(neon.url());
    let port = format!(":{}/", neon.port());
    let (_refusing, refusing) = refusing_port();
    let blocked = blocked.replace(&port, &format!(":{refusing}/"));
    let pool = pool(&blocked, |policy| policy);
    assert_eq!(pool.status().transport, TransportMode::Auto);
    for _ in 0..2 {
        let mut connection = get(&pool).await.unwrap();
        connection.batch_execute("SELECT 1").await.unwrap();
        assert_eq!(pool.status().transport, TransportMode::WebSocket);
        drop(connection);
        pool.invalidate_all();
    }
}

/// A port that swallows what it is sent, as a firewall does.
#[tokio::test]
async fn auto_does_not_wait_long_for_a_port_that_is_silent() {
    let neon = start().await;
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = over_websocket(&neon, neon.url());
    let url = url.replace("transport=websocket", "transport=auto");
    let port = silent.local_addr().unwrap().port();
    let url = url.replace(&format!(":{}/", neon.port()), &format!(":{port}/"));
    let pool = pool(&url, |policy| policy);
    assert_eq!(count(&mut get(&pool).await.unwrap()).await, 0);
    assert_eq!(pool.status().transport, TransportMode::WebSocket);
}

/// Runs the quickstart behind a firewall.
async fn quickstart(neon: &NeonSim, proxy: &str) -> (bool, String) {
    let url = behind_a_firewall(neon, neon.pooled_url()).replace("&transport=websocket", "");
    let mut command = example("quickstart");
    command
        .args(["--transport", "websocket"])
        .env("DATABASE_URL", url)
        .env("HTTPS_PROXY", proxy)
        .current_dir(neon.ca_path().parent().unwrap())
        .stdin(Stdio::null());
    let output = timeout(HANG, command.output()).await.expect("no hang");
    let output = output.unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

#[tokio::test]
async fn behind_a_proxy_that_is_all_there_is_the_quickstart_works_also_after_a_suspension() {
    let neon = neon().await;
    let proxy = HttpProxy::start().await.unwrap();
    let target = format!("{}:443", neon.pooled_host());
    proxy.route(&target, neon.https_port());
    for _ in 0..2 {
        let (succeeded, text) = quickstart(&neon, &proxy.url()).await;
        assert!(succeeded && text.contains("Deleted the book"), "{text}");
        neon.suspend(Suspension::Normal).await;
    }
    let requests = proxy.requests();
    assert!(!requests.is_empty());
    assert!(
        requests.iter().all(|request| request.target == target),
        "{requests:?}"
    );

    proxy.demand_credentials("us er", "p@ss");
    let (succeeded, text) = quickstart(&neon, &proxy.url()).await;
    assert!(
        !succeeded && text.contains("it demands credentials"),
        "{text}"
    );
    assert!(
        text.contains("HTTPS_PROXY: http://user:password@proxy:port"),
        "{text}"
    );
    let with = |user: &str| proxy.url().replace("://", &format!("://{user}@"));
    let (succeeded, text) = quickstart(&neon, &with("us%20er:p%40ss")).await;
    assert!(succeeded, "{text}");
    let (succeeded, text) = quickstart(&neon, &with("somebody:geheim")).await;
    assert!(!succeeded && text.contains("other credentials"), "{text}");
    assert!(!text.contains("geheim"), "{text}");
}

/// tokio-postgres drives these sessions over the stream of the login.
#[tokio::test]
async fn what_follows_the_login_is_sent_byte_by_byte() {
    let neon = start().await;
    let url = over_websocket(&neon, neon.url());
    let pool = common::pool_of::<diesel_async::AsyncPgConnection>(&url, |policy| policy);
    let mut connection = timeout(HANG, pool.get()).await.unwrap().unwrap();
    let text = "p".repeat(200_000);
    let back = diesel::select(text.clone().into_sql::<diesel::sql_types::Text>());
    let back = timeout(HANG, back.get_result::<String>(&mut *connection)).await;
    assert!(back.expect("no hang").unwrap() == text);
}

#[tokio::test]
async fn auto_gives_up_no_sooner_than_tcp_alone_would() {
    let neon = start().await;
    let url = over_websocket(&neon, neon.url());
    let url = url.replace("transport=websocket", "transport=auto");
    let port = format!(":{}/", neon.port());
    let (_refusing, refusing) = refusing_port();
    let blocked = url.replace(&port, &format!(":{refusing}/"));
    let forbidden = WebSocketFault::Answer {
        status: 403,
        body: String::new(),
    };
    neon.disturb_websockets(1, forbidden);
    let pool = pool(&blocked, |policy| policy);
    assert_eq!(count(&mut get(&pool).await.unwrap()).await, 0);
}
