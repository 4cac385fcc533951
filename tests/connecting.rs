//! Connects that fail: the error that reaches the caller, and the failures that are retried.

mod common;

use std::time::{Duration, Instant};

use bb8::ManageConnection;
use diesel_async::SimpleAsyncConnection;
use diesel_neon::{
    ConnectError, ConnectErrorKind, ConnectionManager, DatabaseUrl, ManagerError, Policy, Pool,
    PoolError, Status,
};
use futures_util::future::{join, join_all, select_ok};
use neon_sim::{Certificate, Event, Suspension};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use common::{HANG, neon, neon_with, pool, refusing_port, until};

/// Returns the error of a connect, which reaches the caller before the caller's own time is over.
async fn refusal(url: &str) -> ConnectError {
    let pool = pool(url, |policy| policy);
    match timeout(HANG, pool.get()).await.expect("no hang") {
        Err(PoolError::Connect(error)) => error,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("a connection"),
    }
}

#[tokio::test]
async fn a_wrong_password_is_told_at_once_in_the_servers_words() {
    let neon = neon().await;
    for url in [neon.url(), neon.pooled_url()] {
        let url = url.replace(neon.password(), "wr0ng-passw0rd");
        let error = refusal(&url).await;
        assert_eq!(error.kind(), ConnectErrorKind::Authentication);
        assert_eq!(error.attempts(), 1);
        assert!(!error.is_transient());
        assert_eq!(
            error.to_string(),
            "password authentication failed for user 'neondb_owner'; check the user name and the \
             password in the database URL (special characters are percent-encoded), or reset the role's \
             password"
        );
        assert!(!format!("{error:?}").contains("wr0ng"));
    }
    let straight = neon.postgres_url();
    let error = refusal(&straight.replace(neon.password(), "wr0ng-passw0rd")).await;
    assert_eq!(error.sqlstate(), Some("28P01"));
    assert!(error.to_string().contains("(SQLSTATE 28P01)"), "{error}");
}

#[tokio::test]
async fn an_unknown_database_is_told_at_once() {
    let neon = neon().await;
    for url in [neon.url(), neon.pooled_url(), neon.postgres_url()] {
        let error = refusal(&url.replace("/neondb?", "/shelf?")).await;
        assert_eq!(error.kind(), ConnectErrorKind::Database, "{error}");
        assert!(error.to_string().contains("shelf"), "{error}");
    }
}

#[tokio::test]
async fn every_caller_that_waits_is_told() {
    let neon = neon().await;
    let pool = pool(&neon.url().replace(neon.password(), "wrong"), |policy| {
        policy
    });
    let callers: Vec<_> = (0..20)
        .map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move { timeout(HANG, pool.get()).await.unwrap().map(drop) })
        })
        .collect();
    for caller in callers {
        let error = caller.await.unwrap().unwrap_err();
        assert!(matches!(error, PoolError::Connect(_)), "{error}");
        assert!(error.to_string().contains("password authentication failed"));
    }
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_is_refused() {
    for (certificate, says, code) in [
        (
            Certificate::UnknownAuthority,
            "invalid peer certificate",
            "certificate-unknown-issuer",
        ),
        (
            Certificate::WrongHost,
            "use the host name that Neon's console shows",
            "certificate-wrong-host",
        ),
        (
            Certificate::Expired,
            "check this machine's clock",
            "certificate-expired",
        ),
    ] {
        let neon = neon_with(|neon| neon.certificate(certificate)).await;
        for url in [neon.url(), format!("{}&sslnegotiation=direct", neon.url())] {
            let error = refusal(&url).await;
            assert_eq!(error.kind(), ConnectErrorKind::Tls, "{error}");
            assert!(format!("{error:?}").contains(says), "{error}");
            assert_eq!(error.diagnosis().code(), code, "{error}");
            assert_eq!(neon.counters().direct.connections, 0);
        }
    }
}

#[tokio::test]
async fn a_private_authority_is_trusted_only_where_it_is_named() {
    let neon = neon().await;
    let ca = format!("&sslrootcert={}", neon.ca_path().display());
    let encoded = ca.replace('/', "%2F");
    let url = neon.url().replace(&ca, "").replace(&encoded, "");
    assert!(!url.contains("sslrootcert"), "{url}");
    assert_eq!(refusal(&url).await.kind(), ConnectErrorKind::Tls);

    let error =
        Pool::builder(DatabaseUrl::parse(&format!("{url}&sslrootcert=/no/ca.pem")).unwrap())
            .build()
            .unwrap_err();
    assert!(error.to_string().contains("/no/ca.pem"), "{error}");
}

#[tokio::test]
async fn a_server_without_tls_is_refused() {
    let neon = neon().await;
    let url = neon
        .postgres_url()
        .replace("sslmode=disable", "sslmode=require");
    let error = refusal(&url).await;
    assert_eq!(error.kind(), ConnectErrorKind::Tls);
    assert!(
        error.to_string().contains("does not support TLS"),
        "{error}"
    );
}

#[tokio::test]
async fn channel_binding_is_used_where_it_is_required() {
    let neon = neon().await;
    assert!(neon.url().contains("channel_binding=require"));
    for negotiation in ["postgres", "direct"] {
        let url = format!("{}&sslnegotiation={negotiation}", neon.url());
        let pool = pool(&url, |policy| policy);
        let mut connection = pool.get().await.unwrap();
        connection.batch_execute("SELECT 1").await.unwrap();
    }
}

#[tokio::test]
async fn a_login_that_cannot_be_bound_is_refused_where_binding_is_required() {
    let neon = neon_with(|neon| neon.channel_binding(false)).await;
    let before = neon.counters().direct;
    let error = refusal(&neon.url()).await;
    assert_eq!(error.attempts(), 1, "{error}");
    assert!(format!("{error:?}").contains("channel binding"), "{error}");
    assert_eq!(neon.counters().direct.connections, before.connections);
    for choice in ["prefer", "disable"] {
        let url = neon
            .url()
            .replace("binding=require", &format!("binding={choice}"));
        timeout(HANG, pool(&url, |policy| policy).get())
            .await
            .unwrap()
            .unwrap();
    }
}

#[tokio::test]
async fn a_man_in_the_middle_with_a_trusted_certificate_is_found_out() {
    let neon = neon_with(|neon| neon.certificate(Certificate::Intercepted)).await;
    for choice in ["require", "prefer"] {
        let url = neon
            .url()
            .replace("binding=require", &format!("binding={choice}"));
        let error = refusal(&url).await;
        assert!(
            error.to_string().contains("channel data mismatch"),
            "{error}"
        );
        assert_eq!(neon.counters().direct.connections, 0);
    }
    let unbound = neon.url().replace("binding=require", "binding=disable");
    timeout(HANG, pool(&unbound, |policy| policy).get())
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn neons_own_host_names_connect_by_direct_tls() {
    let neon = neon_with(|neon| neon.domain("us-east-2.aws.neon.tech")).await;
    // SSLRequest costs one more flight.
    let mut handshakes = Vec::new();
    for url in [
        neon.url(),
        format!("{}&sslnegotiation=postgres", neon.url()),
    ] {
        let before = neon.counters().direct.handshake_flights;
        drop(pool(&url, |policy| policy).get().await.unwrap());
        handshakes.push(neon.counters().direct.handshake_flights - before);
    }
    assert_eq!(handshakes[0] + 1, handshakes[1]);
}

#[tokio::test]
async fn a_host_that_does_not_resolve_is_told_at_once() {
    let error = refusal("postgresql://u:p@ep-a-1.example.invalid/db").await;
    assert_eq!(error.kind(), ConnectErrorKind::Resolve, "{error}");
}

#[tokio::test]
async fn a_refused_connection_is_told_at_once() {
    let (_refusing, port) = refusing_port();
    let error = refusal(&format!("postgresql://u:p@127.0.0.1:{port}/db")).await;
    assert_eq!(error.kind(), ConnectErrorKind::Unreachable);
    assert!(error.is_transient());
    assert!(
        format!("{error:?}").contains("Connection refused"),
        "{error}"
    );
    assert_eq!(error.diagnosis().code(), "tcp-refused");

    #[cfg(unix)]
    {
        let error = refusal("postgresql:///db?host=/no/such/folder&user=u").await;
        assert_eq!(error.kind(), ConnectErrorKind::Unreachable, "{error}");
        assert_eq!(error.diagnosis().code(), "socket-missing");
    }
}

/// Numbers resolve like names: 2130706433 to 127.0.0.1, and 0 to 0.0.0.0, which is neither a
/// loopback nor a private address, though a server on this machine answers there.
#[tokio::test]
async fn plain_text_is_held_to_the_addresses_that_names_lead_to() {
    let neon = neon().await;
    let url = |host: &str| {
        let url = neon.postgres_url().replace("@127.0.0.1:", host);
        format!("{url}&allow_plaintext_to_private_network=true")
    };
    for host in ["@127.0.0.1:", "@2130706433:", "@localhost:"] {
        let pool = pool(&url(host), |policy| policy);
        let connection = timeout(HANG, pool.get()).await.unwrap();
        assert!(connection.is_ok(), "{host}: {:?}", connection.err());
    }

    let error = refusal(&url("@0:")).await;
    assert_eq!(error.kind(), ConnectErrorKind::Configuration, "{error}");
    assert!(!error.is_transient());
    assert!(format!("{error:?}").contains("0.0.0.0"), "{error}");
    assert!(
        format!("{error:?}").contains("sslmode=verify-full"),
        "{error}"
    );
}

#[tokio::test]
async fn keepalives_beyond_what_the_system_takes_count_as_the_most() {
    let neon = neon().await;
    for parameter in [
        "keepalives_idle=32768",
        "keepalives_interval=2147483647",
        "keepalives_count=128",
        "tcp_user_timeout=2147483647",
    ] {
        let pool = pool(&format!("{}&{parameter}", neon.url()), |policy| policy);
        let connection = timeout(HANG, pool.get()).await.unwrap();
        assert!(connection.is_ok(), "{parameter}: {:?}", connection.err());
    }
}

/// Text that arrives before TLS is unauthenticated: it is not repeated.
#[tokio::test]
async fn an_answer_in_front_of_tls_is_told_by_its_kind() {
    for (answer, kind, words) in [
        (
            "Ecould not fork new process for connection: words of anybody's\n\0",
            ConnectErrorKind::Unavailable,
            "answered the request for TLS with an error",
        ),
        ("N", ConnectErrorKind::Tls, "does not support TLS"),
        (
            "HTTP/1.1 400 Bad Request: words of anybody's\r\n\r\n",
            ConnectErrorKind::Unreachable,
            "is not a Postgres server",
        ),
    ] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 8];
                stream.read_exact(&mut request).await.unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let url = format!("postgresql://u:p@127.0.0.1:{port}/d?sslmode=require");
        let policy = Policy::builder().connect_timeout(Duration::from_secs(1));
        let url = DatabaseUrl::parse(&url).unwrap();
        let manager: ConnectionManager =
            ConnectionManager::new(&url, policy.build().unwrap()).unwrap();
        let error = timeout(HANG, manager.connect()).await.unwrap();
        let ManagerError::Connect(error) = error.unwrap_err() else {
            panic!("{answer}");
        };
        assert!(error.to_string().contains(words), "{error}");
        assert!(!error.to_string().contains("anybody"), "{error}");
        assert_eq!(error.kind(), kind, "{error}");
    }
}

/// Final refusals of Neon's proxy, and advice that would be wrong for each.
const FINAL: &[(&str, ConnectErrorKind, &str)] = {
    use ConnectErrorKind::*;
    &[
        (
            "Control plane request failed: endpoint cannot be found",
            Endpoint,
            "password",
        ),
        (
            "Control plane request failed: endpoint is disabled",
            Endpoint,
            "password",
        ),
        // The proxy passes the control plane's own words on.
        (
            "The requested endpoint could not be found, or you don't have access to it. Please check the \
             provided ID and try again.",
            Endpoint,
            "password",
        ),
        (
            "The endpoint has been disabled. Enable it using Neon API and retry.",
            Endpoint,
            "password",
        ),
        (
            "Your project has exceeded the compute time quota. Upgrade your plan to increase limits.",
            Quota,
            "password",
        ),
        (
            "Compute time quota of non-primary branches is exceeded.",
            Quota,
            "password",
        ),
        (
            "This IP address 192.0.2.1 is not allowed to connect to this endpoint. Please add it to the \
             allowed list in the Neon console.",
            Forbidden,
            "password",
        ),
        (
            "This connection is trying to access this endpoint from a blocked network.",
            Forbidden,
            "allow list",
        ),
        (
            "permission denied for database \"neondb\"",
            Forbidden,
            "allow list",
        ),
        (
            "role \"app\" is not permitted to log in",
            Authentication,
            "allow list",
        ),
        ("role \"app\" does not exist", Authentication, "path"),
        (
            "database \"Too many connections\" does not exist",
            Database,
            "password",
        ),
        (
            "database \"shelf\" is not currently accepting connections",
            Database,
            "password",
        ),
        (
            "unrecognized configuration parameter \"nonsense\"",
            Configuration,
            "password",
        ),
        (
            "invalid value for parameter \"work_mem\": \"much\"",
            Configuration,
            "password",
        ),
        (
            "parameter \"shared_buffers\" cannot be changed without restarting the server",
            Configuration,
            "password",
        ),
        (
            "permission denied to set parameter \"log_statement\"",
            Configuration,
            "allow list",
        ),
        (
            "Parameter 'user' is missing in startup packet.",
            Configuration,
            "console",
        ),
    ]
};

#[tokio::test]
async fn neons_final_refusals_reach_the_caller_at_once() {
    let neon = neon().await;
    for &(message, kind, advises_not) in FINAL {
        let before = neon.counters().direct.attempts;
        neon.refuse_connections(1, message);
        let error = refusal(&neon.url()).await;
        assert_eq!(error.kind(), kind, "{error}");
        assert!(!error.is_transient(), "{error}");
        let advice = error.to_string();
        let advice = advice.strip_prefix(message).expect("its words come first");
        assert!(
            advice.len() > 10 && !advice.contains(advises_not),
            "{error}"
        );
        assert_eq!(neon.counters().direct.attempts - before, 1, "{message}");
    }
    // Only the direct endpoint takes startup options.
    let error = refusal(&format!(
        "{}&options=-c%20work_mem%3D8MB",
        neon.pooled_url()
    ))
    .await;
    assert_eq!(error.kind(), ConnectErrorKind::Configuration, "{error}");
}

#[tokio::test]
async fn postgress_own_final_refusals_reach_the_caller_at_once_through_the_proxy_and_without() {
    let neon = neon().await;
    let refused = async |url: &str, kind, words: &str| {
        let error = refusal(url).await;
        assert_eq!((error.kind(), error.attempts()), (kind, 1), "{error}");
        assert!(error.to_string().starts_with(words), "{error}");
    };
    for url in [neon.url(), neon.postgres_url()] {
        let with = |option: &str| format!("{url}&options=-c%20{option}");
        for (option, words) in [
            ("nonsense%3D1", "unrecognized configuration parameter"),
            ("work_mem%3Dmuch", "invalid value for parameter"),
            (
                "shared_buffers%3D1GB",
                "parameter \"shared_buffers\" cannot",
            ),
        ] {
            refused(&with(option), ConnectErrorKind::Configuration, words).await;
        }
    }
    neon.sql("REASSIGN OWNED BY neondb_owner TO CURRENT_USER; REVOKE ALL ON DATABASE neondb FROM PUBLIC, neondb_owner")
        .await
        .unwrap();
    for url in [neon.url(), neon.postgres_url()] {
        let words = "permission denied for database";
        refused(&url, ConnectErrorKind::Forbidden, words).await;
    }
    let straight = neon.postgres_url();
    neon.sql("ALTER ROLE neondb_owner NOLOGIN").await.unwrap();
    let words = "role \"neondb_owner\" is not permitted";
    refused(&straight, ConnectErrorKind::Authentication, words).await;
    let nobody = straight.replace("neondb_owner:", "nobody:");
    let error = refusal(&nobody).await;
    assert_eq!(error.kind(), ConnectErrorKind::Authentication, "{error}");
}

#[tokio::test]
async fn words_that_nobody_knows_are_tried_briefly() {
    for message in [
        "a text of tomorrow",
        "Control plane request failed: a text of tomorrow",
    ] {
        let neon = neon().await;
        neon.refuse_connections(1000, message);
        let began = Instant::now();
        let error = refusal(&neon.url()).await;
        assert_eq!(error.kind(), ConnectErrorKind::Other, "{error}");
        // On a busy machine the first may take as long as they are tried.
        let is_slow = began.elapsed() >= Duration::from_millis(900);
        assert!(error.attempts() > 1 || is_slow, "{error}");
        assert!(error.to_string().starts_with(message), "{error}");
    }
}

#[tokio::test]
async fn a_cold_start_is_waited_for() {
    let neon = neon_with(|neon| neon.cold_start(Duration::from_secs(2))).await;
    let mut events = neon.events();
    neon.suspend(Suspension::Normal).await;
    let pool = pool(&neon.pooled_url(), |policy| policy);
    let began = Instant::now();
    let mut connection = timeout(HANG, pool.get()).await.unwrap().unwrap();
    assert!(began.elapsed() >= Duration::from_secs(2), "it was not cold");
    connection.batch_execute("SELECT 1").await.unwrap();

    let mut seen = Vec::new();
    while let Ok(event) = events.try_recv() {
        seen.push(event);
    }
    assert!(
        seen.iter()
            .any(|event| matches!(event, Event::Woken { .. }))
    );
}

#[tokio::test]
async fn failures_that_pass_are_tried_again() {
    let neon = neon().await;
    for message in [
        "Couldn't connect to compute node",
        "the database system is starting up",
        "Control plane request failed",
        "Too many connections to this endpoint. Please try again later.",
        "Failed to acquire permit to connect to the database. Too many database connection attempts are currently ongoing.",
        "remaining connection slots are reserved for roles with the SUPERUSER attribute",
        "error communicating with the server: early eof",
    ] {
        let before = neon.counters().direct.attempts;
        neon.refuse_connections(3, message);
        let pool = pool(&neon.url(), |policy| policy);
        let mut connection = timeout(HANG, pool.get()).await.unwrap().expect(message);
        connection.batch_execute("SELECT 1").await.unwrap();
        assert_eq!(neon.counters().direct.attempts - before, 4);
        assert!(pool.status().last_failure.is_none());
    }
}

#[tokio::test]
async fn a_failure_that_may_be_a_quota_is_shown_after_a_few_tries() {
    let neon = neon().await;
    let message = "Control plane request failed: endpoint is temporarily unavailable. Check your quotas and/or contact our support.";
    neon.refuse_connections(1000, message);
    let began = Instant::now();
    let error = refusal(&neon.url()).await;
    let is_slow = began.elapsed() >= Duration::from_millis(900);
    assert!(error.attempts() > 1 || is_slow, "{error}");
    assert!(error.to_string().starts_with(message), "{error}");
}

#[tokio::test]
async fn connect_timeout_gives_up_a_connect_that_hangs_and_tries_again() {
    let neon = neon().await;
    neon.hang_connections(1);
    let pool = pool(&neon.url(), |policy| {
        policy.max_size(1).connect_timeout(Duration::from_secs(4))
    });
    let mut connection = timeout(HANG, pool.get()).await.unwrap().unwrap();
    connection.batch_execute("SELECT 1").await.unwrap();
    assert_eq!(neon.counters().direct.attempts, 2);
}

#[tokio::test]
async fn checkout_timeout_names_the_last_failure() {
    let neon = neon().await;
    neon.refuse_connections(1000, "Couldn't connect to compute node");
    let pool = pool(&neon.url(), |policy| {
        policy.checkout_timeout(Duration::from_secs(4))
    });
    let error = timeout(HANG, pool.get()).await.unwrap().unwrap_err();
    assert!(error.is_transient());
    let text = error.to_string();
    assert!(text.contains("Couldn't connect to compute node"), "{text}");
    assert!(text.starts_with("cannot connect: "), "{text}");
    match error {
        PoolError::Connecting { status, .. } => {
            let failure = status.last_failure.unwrap();
            assert_eq!(failure.kind(), ConnectErrorKind::Unavailable);
        }
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn nobody_is_told_that_the_pool_is_too_small_while_no_connection_can_be_made() {
    let neon = neon().await;
    neon.refuse_connections(u64::MAX, "Couldn't connect to compute node");
    // More callers than connections, and more connections than are made at once.
    let pool = pool(&neon.url(), |policy| policy.max_size(6).max_connecting(2));
    for ahead in [2, 5, 6, 12] {
        let others = join_all((0..ahead).map(|_| pool.get_timeout(HANG)));
        let brief = async {
            while pool.status().connects.failed == 0 {
                sleep(Duration::from_millis(1)).await;
            }
            pool.get_timeout(Duration::from_millis(1))
                .await
                .unwrap_err()
        };
        let error = tokio::select! {
            biased;
            _ = others => panic!("the callers in front wait on"),
            error = brief => error,
        };
        assert!(
            matches!(error, PoolError::Connecting { .. }),
            "{ahead}: {error}"
        );
        assert!(error.to_string().contains("Couldn't connect"), "{error}");
    }
}

#[tokio::test]
async fn checkout_timeout_names_a_failure_though_another_connect_has_succeeded_since() {
    let neon = neon().await;
    let limit = async |limit: u32| {
        let limit = format!("ALTER ROLE neondb_owner CONNECTION LIMIT {limit}");
        neon.sql(&limit).await.unwrap();
    };
    for _ in 0..5 {
        limit(0).await;
        let pool = pool(&neon.url(), |policy| policy);
        let callers = [(); 2].map(|()| Box::pin(pool.get_timeout(HANG)));
        let served = select_ok(callers);
        let letting_one_in = async {
            loop {
                let Status {
                    connects,
                    last_failure,
                    ..
                } = pool.status();
                let attempts = last_failure.map_or(0, |failure| failure.attempts());
                // Two connects have failed, and go on.
                if connects.failed > u64::from(attempts) {
                    return limit(1).await;
                }
                sleep(Duration::from_millis(1)).await;
            }
        };
        let (served, ()) = join(served, letting_one_in).await;
        let (served, waiting) = served.unwrap();
        let brief = pool.get_timeout(Duration::from_millis(1));
        let error = timeout(HANG, brief).await.unwrap().unwrap_err();
        assert!(matches!(error, PoolError::Connecting { .. }), "{error}");
        assert!(
            error.to_string().contains("too many connections"),
            "{error}"
        );
        drop((served, waiting));
        timeout(HANG, pool.close(HANG)).await.unwrap().unwrap();
        until(
            &neon,
            "SELECT count(*) FROM pg_stat_activity WHERE usename = 'neondb_owner'",
            "0",
        )
        .await;
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_unix_socket_is_watched_like_any_other() {
    let neon = neon().await;
    let rows = neon.sql("SHOW unix_socket_directories").await.unwrap();
    let folder = rows[0][0].clone().unwrap();
    let rows = neon.sql("SHOW port").await.unwrap();
    let port = rows[0][0].clone().unwrap();
    let pool = pool(
        &format!(
            "postgresql://neondb_owner:{}@{}:{port}/neondb",
            neon.password(),
            folder.replace('/', "%2F"),
        ),
        |policy| policy,
    );
    let mut connection = pool.get().await.unwrap();
    connection.batch_execute("BEGIN").await.unwrap();
    drop(connection);
    assert_eq!(pool.status().size, 0, "it came back in a transaction");
    pool.get().await.unwrap();
}
