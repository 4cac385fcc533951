//! Faults on request.

mod common;

use std::time::{Duration, Instant};

use common::{bounded, config, connect, refusal, tls, try_connect};
use neon_sim::{Certificate, NeonSim};
use tokio_postgres_rustls::MakeRustlsConnect;

async fn start() -> NeonSim {
    bounded(NeonSim::builder().never_suspend().start())
        .await
        .unwrap()
}

/// "Every error of the connection phase arrives as ERROR, XX000, and only a message", in the words that were asked for.
#[tokio::test]
async fn connections_are_refused_as_often_as_asked() {
    let neon = start().await;
    let message = "Too many connections to this endpoint. Please try again later.";
    neon.refuse_connections(1, message);
    neon.refuse_connections(1, "Couldn't connect to compute node");
    let attempt = async || try_connect(&config(&neon.url()), neon.ca_path()).await;
    assert_eq!(refusal(attempt().await), message);
    assert_eq!(refusal(attempt().await), "Couldn't connect to compute node");
    assert!(attempt().await.is_ok());
}

/// "No timeout of its own on a compute that hangs: the client needs one."
#[tokio::test]
async fn a_connection_hangs_in_authentication() {
    let neon = start().await;
    neon.hang_connections(1);
    let config = config(&neon.url());
    let hanging = config.connect(MakeRustlsConnect::new(tls(neon.ca_path())));
    let answer = tokio::time::timeout(Duration::from_secs(5), hanging).await;
    assert!(answer.is_err(), "nothing should answer");
    try_connect(&config, neon.ca_path()).await.unwrap();
    let direct = neon.counters().direct;
    assert_eq!((direct.attempts, direct.connections), (2, 1));
}

/// Statements and answers are lost on their way, without a word to either side.
#[tokio::test]
async fn what_open_sessions_send_is_lost_in_either_direction() {
    let neon = start().await;
    neon.sql("CREATE TABLE lost (way TEXT); GRANT ALL ON lost TO PUBLIC")
        .await
        .unwrap();
    for (way, arrives) in [("request", false), ("response", true)] {
        let (client, _driver) = connect(&neon.url(), neon.ca_path()).await;
        match arrives {
            false => neon.lose_requests(),
            true => neon.lose_responses(),
        }
        let insert = format!("INSERT INTO lost VALUES ('{way}')");
        let answer =
            tokio::time::timeout(Duration::from_millis(300), client.batch_execute(&insert));
        assert!(answer.await.is_err(), "nothing should answer");
        let found = format!("SELECT 1 FROM lost WHERE way = '{way}'");
        let is_found = async || neon.sql(&found).await.unwrap().len() == 1;
        match arrives {
            false => assert!(!is_found().await),
            true => common::eventually("it arrives", is_found).await,
        }
        let (other, _driver) = connect(&neon.url(), neon.ca_path()).await;
        other.batch_execute("SELECT 1").await.unwrap();
    }
}

/// "Compute unreachable: `Couldn't connect to compute node`", and nothing is lost that was committed.
#[tokio::test]
async fn servers_that_are_restarted_come_back_with_what_was_committed() {
    let impatient = NeonSim::builder().compute_connect_timeout(Duration::ZERO);
    let neon = bounded(impatient.never_suspend().start()).await.unwrap();
    let attempt = async |url: &str| try_connect(&config(url), neon.ca_path()).await;
    // For a moment PostgreSQL says that it shuts down.
    let unreachable = async |url: &str| {
        common::eventually("it cannot be reached", async || {
            let error = attempt(url).await.err();
            let told = error.as_ref().and_then(tokio_postgres::Error::as_db_error);
            told.is_some_and(|told| told.message() == "Couldn't connect to compute node")
        })
        .await;
    };
    let (direct, driver) = connect(&neon.url(), neon.ca_path()).await;
    let notes = "CREATE TABLE notes AS SELECT 1";
    direct.batch_execute(notes).await.unwrap();
    let down = Duration::from_secs(4);

    let (pooled, pooled_driver) = connect(&neon.pooled_url(), neon.ca_path()).await;
    let refused = async {
        bounded(pooled_driver).await.unwrap().unwrap_err();
        unreachable(&neon.pooled_url()).await;
    };
    let (restarted, ()) = tokio::join!(bounded(neon.restart_pgbouncer(down)), refused);
    restarted.unwrap();
    assert!(pooled.is_closed());
    assert!(attempt(&neon.pooled_url()).await.is_ok());
    direct.batch_execute("SELECT * FROM notes").await.unwrap();

    let refused = async {
        bounded(driver).await.unwrap().unwrap_err();
        unreachable(&neon.url()).await;
    };
    let (restarted, ()) = tokio::join!(bounded(neon.restart_postgres(down)), refused);
    restarted.unwrap();
    let (direct, _driver) = connect(&neon.url(), neon.ca_path()).await;
    direct.batch_execute("SELECT * FROM notes").await.unwrap();
}

/// Of the stand-in's own: a network that is far away. Logging in over SSLRequest takes 5 of its round trips.
#[tokio::test]
async fn a_delay_counts_in_both_directions_and_on_open_connections() {
    let neon = start().await;
    let (client, _) = connect(&neon.url(), neon.ca_path()).await;
    let delay = Duration::from_millis(50);
    neon.set_latency(delay);
    let started = Instant::now();
    client.simple_query("SELECT 1").await.unwrap();
    assert!(started.elapsed() >= delay * 2);
    // More than a buffer's worth arrives complete and in order.
    let long = "SELECT string_agg(i::text, ',') FROM generate_series(1, 200000) i";
    let delayed = client.query_typed(long, &[]).await.unwrap();
    neon.set_latency(Duration::ZERO);
    let direct = client.query_typed(long, &[]).await.unwrap();
    assert_eq!(
        delayed[0].get::<_, String>(0),
        direct[0].get::<_, String>(0)
    );
    neon.set_latency(delay);
    let started = Instant::now();
    connect(&neon.pooled_url(), neon.ca_path()).await;
    assert!(started.elapsed() >= delay * 2 * 5);
}

/// Of the stand-in's own: answers that are held back.
#[tokio::test]
async fn a_client_is_heard_while_its_answers_are_held_back() {
    let neon = start().await;
    let (client, _) = connect(&neon.url(), neon.ca_path()).await;
    let before = neon.counters();
    neon.hold_answers(1);
    let answer = client.simple_query("SELECT 1");
    let mut answer = std::pin::pin!(answer);
    let arrived = async {
        while (neon.counters() - before).direct.statements == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        _ = &mut answer => panic!("it is held back"),
        () = bounded(arrived) => {}
    }
    neon.release_answers();
    bounded(answer).await.unwrap();
    assert_eq!((neon.counters() - before).direct.flights, 1);
}

/// Of the stand-in's own: certificates that a client must not accept.
#[tokio::test]
async fn certificates_can_be_wrong() {
    for kind in [
        Certificate::Expired,
        Certificate::WrongHost,
        Certificate::UnknownAuthority,
    ] {
        let neon = bounded(NeonSim::builder().certificate(kind).start())
            .await
            .unwrap();
        let refused = try_connect(&config(&neon.url()), neon.ca_path()).await;
        let error = refused.expect_err("the certificate is wrong");
        let source = format!("{:?}", std::error::Error::source(&error));
        assert!(source.contains("InvalidCertificate"), "{kind:?}: {source}");
    }
}

/// "Exactly one label in front of the certificate's domain. Pooled hosts are told by `-pooler` at the end of that label."
#[tokio::test]
async fn the_domain_and_the_endpoint_can_be_chosen() {
    let neon = bounded(
        NeonSim::builder()
            .domain("us-east-2.aws.neon.tech")
            .endpoint("ep-cool-darkness-123456")
            .pgbouncer_settings([("default_pool_size", "3")])
            .postgres_settings([("max_connections", "20")])
            .start(),
    )
    .await
    .unwrap();
    assert_eq!(
        neon.pooled_host(),
        "ep-cool-darkness-123456-pooler.us-east-2.aws.neon.tech"
    );
    let (client, _) = connect(&neon.pooled_url(), neon.ca_path()).await;
    let shown = client
        .query_typed("SHOW max_connections", &[])
        .await
        .unwrap();
    assert_eq!(shown[0].get::<_, &str>(0), "20");
    let refused = NeonSim::builder().endpoint("a b").start().await;
    assert!(refused.unwrap_err().to_string().contains("ep-<name>"));
}
