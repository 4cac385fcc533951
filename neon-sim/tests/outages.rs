//! What the proxy waits for, caches and limits. Each test quotes the fact about Neon's proxy that it holds.

mod common;

use std::fs;
use std::time::{Duration, Instant};

use common::raw::{direct_tls, fields, own_error, read, startup, tag, tcp, until_closed};
use common::{bounded, config, connect, refusal, try_connect};
use neon_sim::{Builder, NeonSim, Suspension};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_postgres::NoTls;
use tokio_postgres::config::{ChannelBinding, SslMode};
use tokio_rustls::client::TlsStream;

async fn start(builder: Builder) -> NeonSim {
    let builder = builder.never_suspend().cold_start(Duration::ZERO);
    bounded(builder.start()).await.unwrap()
}

const DISABLED: &str = "Control plane request failed: endpoint is disabled";

/// "The proxy caches a *final* wake-up error for 30 s, so quick tries on it cannot succeed."
#[tokio::test]
async fn a_final_error_of_a_wake_up_is_remembered() {
    let neon = start(NeonSim::builder()).await;
    neon.suspend(Suspension::Normal).await;
    neon.fail_wakes(1, DISABLED);
    for url in [neon.url(), neon.pooled_url(), neon.url()] {
        let failed = try_connect(&config(&url), neon.ca_path()).await;
        assert_eq!(refusal(failed), DISABLED);
    }
    // Even if it is awake by now.
    neon.wake().await;
    let failed = try_connect(&config(&neon.url()), neon.ca_path()).await;
    assert_eq!(refusal(failed), DISABLED);
    neon.clear_faults();
    connect(&neon.url(), neon.ca_path()).await;
}

/// "For 30 s": afterwards the next connection is tried again.
#[tokio::test]
async fn a_final_error_of_a_wake_up_is_forgotten_in_the_end() {
    let neon = start(NeonSim::builder().wake_error_cache_ttl(Duration::from_millis(300))).await;
    neon.suspend(Suspension::Normal).await;
    neon.fail_wakes(1, DISABLED);
    let attempt = async || try_connect(&config(&neon.url()), neon.ca_path()).await;
    assert_eq!(refusal(attempt().await), DISABLED);
    common::eventually("it is forgotten", async || attempt().await.is_ok()).await;
}

/// "Access control is cached for 240 s."
#[tokio::test]
async fn a_password_that_was_changed_is_accepted_for_a_while() {
    let neon = start(NeonSim::builder()).await;
    let forgetful = start(NeonSim::builder().access_control_cache_ttl(Duration::ZERO)).await;
    for (neon, accepted) in [(&neon, true), (&forgetful, false)] {
        connect(&neon.url(), neon.ca_path()).await;
        let other = "ALTER ROLE neondb_owner PASSWORD 'another'";
        neon.sql(other).await.unwrap();
        let attempt = try_connect(&config(&neon.url()), neon.ca_path()).await;
        assert_eq!(attempt.is_ok(), accepted);
    }
}

/// "`role \"…\" is not permitted to log in`" comes from PostgreSQL, once the password has been accepted.
#[tokio::test]
async fn a_role_that_may_not_log_in_is_told_by_postgres() {
    let neon = start(NeonSim::builder()).await;
    neon.sql("ALTER ROLE neondb_owner NOLOGIN").await.unwrap();
    let refused = try_connect(&config(&neon.url()), neon.ca_path()).await;
    assert_eq!(
        refusal(refused),
        "role \"neondb_owner\" is not permitted to log in"
    );
}

/// "Compute unreachable (the proxy tried for about 3 s itself): `Couldn't connect to compute node`."
#[tokio::test]
async fn a_compute_that_cannot_be_reached_is_waited_for() {
    let patient = NeonSim::builder().compute_connect_timeout(Duration::from_secs(60));
    let patient = start(patient).await;
    let hasty = start(NeonSim::builder().compute_connect_timeout(Duration::from_millis(50))).await;
    for (neon, served, down) in [(&patient, true, 1), (&hasty, false, 5)] {
        // The session's end says that the pooler is down.
        let (_client, driver) = connect(&neon.pooled_url(), neon.ca_path()).await;
        let attempt = async {
            bounded(driver).await.unwrap().unwrap_err();
            try_connect(&config(&neon.pooled_url()), neon.ca_path()).await
        };
        let (restarted, attempt) = tokio::join!(
            bounded(neon.restart_pgbouncer(Duration::from_secs(down))),
            attempt
        );
        restarted.unwrap();
        match served {
            true => drop(attempt.unwrap()),
            false => assert_eq!(refusal(attempt), "Couldn't connect to compute node"),
        }
    }
}

/// "For up to 15 s (`server_login_retry`)."
#[tokio::test]
async fn the_pooler_can_be_as_slow_to_forgive_as_neons() {
    let neon = start(NeonSim::builder().server_login_retry(Duration::from_secs(15))).await;
    let configured = neon.pgbouncer_command("SHOW CONFIG").await.unwrap();
    let retry = |row: &&Vec<Option<String>>| row[0].as_deref() == Some("server_login_retry");
    let retry = configured.iter().find(retry).unwrap();
    assert_eq!(retry[1].as_deref(), Some("15"));
}

/// "Every error of the connection phase arrives as ERROR, XX000, and only a message: even 57P03", with which PostgreSQL
/// says: "the database system is starting up".
#[tokio::test]
async fn a_database_that_starts_up_loses_its_sqlstate() {
    let neon = start(NeonSim::builder()).await;
    let attempt = async || try_connect(&config(&neon.url()), neon.ca_path()).await;
    attempt().await.unwrap();
    // Its recovery waits for an archive's answer, which comes once the client has been refused.
    let place = |name| neon.ca_path().with_file_name(name);
    let (asked, answer, signal) = (
        place("asked"),
        place("answer"),
        place("data/recovery.signal"),
    );
    neon.sql(&format!("COPY (SELECT) TO '{}'", signal.display()))
        .await
        .unwrap();
    // It ends with the stand-in, whose directory is removed.
    let restore = format!(
        "touch {asked}; while test -e {asked} -a ! -e {answer}; do sleep 0.02; done; false",
        asked = asked.display(),
        answer = answer.display()
    );
    neon.sql(&format!("ALTER SYSTEM SET restore_command = '{restore}'"))
        .await
        .unwrap();
    let told = async {
        common::eventually("the archive is asked", async || asked.exists()).await;
        assert_eq!(
            refusal(attempt().await),
            "the database system is starting up"
        );
        fs::write(&answer, "").unwrap();
    };
    let (restarted, ()) = tokio::join!(bounded(neon.restart_postgres(Duration::ZERO)), told);
    restarted.unwrap();
    attempt().await.unwrap();
}

const TOO_MANY: &str = "Too many connections to this endpoint. Please try again later.";
const AT_ONCE: usize = 500;
const A_SECOND: f64 = 200.0;

/// So many come at once that a busy machine, which lets more of them in by being slow, refuses some.
const CROWD: usize = 800;

/// "Attempts limited: `Too many connections to this endpoint. Please try again later.`" And they pass again when the bucket has
/// leaked.
#[tokio::test]
async fn an_endpoint_takes_five_hundred_logins_at_once_and_others_a_little_later() {
    allow_many_files();
    let neon = start(NeonSim::builder().limit_attempts()).await;
    // TLS takes its time, and is there before the first attempt.
    let mut crowd = under_tls(&neon, CROWD).await;
    let mut late = under_tls(&neon, 100).await;

    let began = Instant::now();
    for stream in &mut crowd {
        attempt(stream).await;
    }
    // A client comes behind as many as take what has leaked meanwhile.
    let mut refused = None;
    while refused.is_none() {
        assert!(!late.is_empty(), "no client is refused");
        let mut few = late.split_off(late.len() - 10);
        let stream = few.pop().unwrap();
        for stream in &mut few {
            attempt(stream).await;
        }
        let mut config = config(&neon.url());
        config
            .ssl_mode(SslMode::Disable)
            .channel_binding(ChannelBinding::Disable);
        let connected = bounded(config.connect_raw(stream, NoTls)).await;
        refused = connected.is_err().then(|| refusal(connected));
    }
    assert_eq!(refused.as_deref(), Some(TOO_MANY));

    let mut admitted = 0;
    for stream in &mut crowd {
        match read(stream).await {
            (tag::AUTHENTICATION, _) => admitted += 1,
            (tag::ERROR_RESPONSE, body) => {
                assert_eq!(fields(&body), own_error(TOO_MANY));
                assert_eq!(until_closed(stream).await.0, b"");
            }
            other => panic!("not an answer: {other:?}"),
        }
    }
    let leaked = began.elapsed().as_secs_f64() * A_SECOND;
    assert!(admitted >= AT_ONCE, "{admitted} were admitted");
    assert!(
        admitted as f64 <= AT_ONCE as f64 + leaked + 1.0,
        "{admitted} were admitted, though only {leaked} have leaked"
    );

    for url in [neon.url(), neon.pooled_url()] {
        common::eventually("there is a place again", async || {
            let Ok((client, _driver)) = try_connect(&config(&url), neon.ca_path()).await else {
                return false;
            };
            bounded(client.batch_execute("SELECT 1")).await.is_ok()
        })
        .await;
    }
}

/// Sends what is counted as an attempt, and does not wait for the answer.
async fn attempt(stream: &mut TlsStream<TcpStream>) {
    let login = startup(0, &[("user", "neondb_owner"), ("database", "neondb")]);
    bounded(stream.write_all(&login)).await.unwrap();
    bounded(stream.flush()).await.unwrap();
}

async fn under_tls(neon: &NeonSim, streams: usize) -> Vec<TlsStream<TcpStream>> {
    let mut all = Vec::new();
    for _ in 0..streams {
        all.push(direct_tls(neon, tcp(neon).await, Some(neon.host())).await);
    }
    all
}

/// Both ends of each connection are this process's.
fn allow_many_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
}
