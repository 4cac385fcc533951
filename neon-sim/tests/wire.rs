//! The proxy's side of the protocol, byte by byte. Each test quotes the fact about Neon's proxy that it holds.

mod common;

use std::time::Duration;

use common::bounded;
use common::raw::{self, End, ask, errors, message, own_error, startup, tag, until_closed};
use neon_sim::{Builder, Certificate, NeonSim, Suspension};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const ENDPOINT: &str = "ep-quiet-lake-123456";
const USER: (&str, &str) = ("user", "neondb_owner");

async fn start(builder: Builder) -> NeonSim {
    bounded(builder.never_suspend().start()).await.unwrap()
}

/// "Errors of the proxy's own carry S, C and M, no V." "After an error the stream ends with a bare FIN,
/// without TLS close_notify." "No `user`: `Parameter 'user' is missing in startup packet.`"
#[tokio::test]
async fn errors_of_the_proxys_own_have_three_fields_and_a_bare_fin_behind_them() {
    let neon = start(NeonSim::builder()).await;
    let inconsistent = "Inconsistent project name inferred from SNI ('ep-quiet-lake-123456') and \
        project option ('ep-other').";
    for (parameters, text) in [
        (
            vec![("database", "neondb")],
            "Parameter 'user' is missing in startup packet.",
        ),
        (vec![USER, ("options", "project=ep-other")], inconsistent),
    ] {
        let mut client = raw::direct_tls(&neon, raw::tcp(&neon).await, Some(neon.host())).await;
        client.write_all(&startup(0, &parameters)).await.unwrap();
        let (said, end) = until_closed(&mut client).await;
        assert_eq!(errors(&said), [own_error(text)]);
        assert_eq!(end, End::BareFin);
    }
}

/// "Plain text is refused: ``connection is insecure (try using `sslmode=require`)``."
#[tokio::test]
async fn plain_text_is_refused_in_the_same_form() {
    let neon = start(NeonSim::builder()).await;
    let mut client = raw::tcp(&neon).await;
    client.write_all(&startup(0, &[USER])).await.unwrap();
    let (said, _) = until_closed(&mut client).await;
    let text = "connection is insecure (try using `sslmode=require`)";
    assert_eq!(errors(&said), [own_error(text)]);
}

/// "Unknown domain in SNI: treated as no SNI", which means: the options name the endpoint, or the password.
#[tokio::test]
async fn an_unknown_domain_is_no_server_name() {
    // Its certificate is made out to that domain.
    let neon = start(NeonSim::builder().certificate(Certificate::WrongHost)).await;
    let unknown = format!("{ENDPOINT}.elsewhere.test");
    for (option, asked) in [("", 3), ("endpoint=ep-quiet-lake-123456", 10)] {
        let stream = raw::tcp(&neon).await;
        let mut client = raw::direct_tls(&neon, stream, Some(unknown.clone())).await;
        let (kind, body) = ask(&mut client, &startup(0, &[USER, ("options", option)])).await;
        assert_eq!((kind, body[3]), (tag::AUTHENTICATION, asked));
    }
}

/// "A password or SASL message over 512 bytes: `authentication protocol violation`."
#[tokio::test]
async fn a_proof_of_more_than_512_bytes_violates_the_protocol() {
    let neon = start(NeonSim::builder()).await;
    let violation = "authentication protocol violation";
    let failed = "password authentication failed for user 'neondb_owner'";
    for (name, proof, text) in [
        (Some(neon.host()), vec![b'x'; 513], violation),
        (None, vec![b'x'; 513], violation),
        (
            None,
            format!("endpoint={ENDPOINT};{:x<481}\0", "").into_bytes(),
            failed,
        ),
    ] {
        assert!(matches!(proof.len(), 512 | 513));
        let mut client = raw::direct_tls(&neon, raw::tcp(&neon).await, name).await;
        assert_eq!(
            ask(&mut client, &startup(0, &[USER])).await.0,
            tag::AUTHENTICATION
        );
        client
            .write_all(&message(tag::PASSWORD, &proof))
            .await
            .unwrap();
        let (said, end) = until_closed(&mut client).await;
        assert_eq!(errors(&said), [own_error(text)]);
        assert_eq!(end, End::BareFin);
    }
}

/// "Claiming 'I support channel binding but you do not' is refused (`SCRAM-PLUS not used`)."
#[tokio::test]
async fn a_claim_that_channel_binding_is_not_offered_is_refused() {
    let neon = start(NeonSim::builder()).await;
    let mut client = raw::direct_tls(&neon, raw::tcp(&neon).await, Some(neon.host())).await;
    let (_, offer) = ask(&mut client, &startup(0, &[USER])).await;
    assert!(offer.windows(5).any(|part| part == b"-PLUS"));
    let first = b"y,,n=,r=abc";
    let mut body = b"SCRAM-SHA-256\0".to_vec();
    body.extend((first.len() as u32).to_be_bytes());
    body.extend(first);
    client
        .write_all(&message(tag::PASSWORD, &body))
        .await
        .unwrap();
    let (said, _) = until_closed(&mut client).await;
    assert_eq!(errors(&said), [own_error("SCRAM-PLUS not used")]);
}

/// "No handshake within 15 s: closed."
#[tokio::test]
async fn whoever_says_nothing_is_closed() {
    let neon = start(NeonSim::builder().handshake_timeout(Duration::from_secs(5))).await;
    let mut silent = raw::tcp(&neon).await;
    let mut encrypted = raw::direct_tls(&neon, raw::tcp(&neon).await, Some(neon.host())).await;
    assert_eq!(until_closed(&mut silent).await.0, b"");
    assert_eq!(until_closed(&mut encrypted).await, (vec![], End::BareFin));
}

/// "No SASL answer within 15 s: `Authentication timed out`."
#[tokio::test]
async fn whoever_proves_nothing_is_told() {
    let patience = Duration::from_millis(500);
    let neon = start(NeonSim::builder().authentication_timeout(patience)).await;
    for name in [Some(neon.host()), None] {
        let mut client = raw::direct_tls(&neon, raw::tcp(&neon).await, name).await;
        assert_eq!(
            ask(&mut client, &startup(0, &[USER])).await.0,
            tag::AUTHENTICATION
        );
        let (said, end) = until_closed(&mut client).await;
        assert_eq!(errors(&said), [own_error("Authentication timed out")]);
        assert_eq!(end, End::BareFin);
    }
}

/// "`_pq_.*` at protocol 3.0 gets no NegotiateProtocolVersion."
#[tokio::test]
async fn extensions_are_negotiated_beyond_3_0_alone() {
    let neon = start(NeonSim::builder()).await;
    for (minor, answer) in [
        (0, tag::AUTHENTICATION),
        (2, tag::NEGOTIATE_PROTOCOL_VERSION),
    ] {
        let mut client = raw::direct_tls(&neon, raw::tcp(&neon).await, Some(neon.host())).await;
        let packet = startup(minor, &[USER, ("_pq_.command_tag_format", "1")]);
        assert_eq!(ask(&mut client, &packet).await.0, answer);
    }
}

/// "Suspension of an idle direct session ends with FATAL 57P01, then close_notify."
#[tokio::test]
async fn a_suspended_direct_session_ends_with_postgres_own_words_and_close_notify() {
    let neon = start(NeonSim::builder()).await;
    let mut client = raw::log_in(&neon, ENDPOINT).await;
    neon.suspend(Suspension::Normal).await;
    let (said, end) = until_closed(&mut client).await;
    let error = &errors(&said)[0];
    for field in [('S', "FATAL"), ('V', "FATAL"), ('C', "57P01")] {
        assert!(error.contains(&(field.0, field.1.into())), "{error:?}");
    }
    assert_eq!(end, End::CloseNotify);
}

/// "When a proxy dies, the stream ends with a bare FIN."
#[tokio::test]
async fn a_proxy_that_is_gone_says_nothing() {
    let neon = start(NeonSim::builder()).await;
    let mut client = raw::log_in(&neon, ENDPOINT).await;
    drop(neon);
    assert_eq!(until_closed(&mut client).await, (vec![], End::BareFin));
}

/// "A statement under way when Postgres stops gets FATAL 57P01, then FATAL 08P01 `server conn crashed?`",
/// the latter from PgBouncer.
#[tokio::test]
async fn a_statement_hears_that_postgres_stops() {
    let neon = start(NeonSim::builder()).await;
    for (endpoint, codes) in [
        (ENDPOINT.to_owned(), &["57P01"][..]),
        (format!("{ENDPOINT}-pooler"), &["57P01", "08P01"]),
    ] {
        let mut client = raw::log_in(&neon, &endpoint).await;
        let query = message(tag::QUERY, b"SELECT pg_sleep(600)\0");
        client.write_all(&query).await.unwrap();
        client.flush().await.unwrap();
        let running = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)'";
        common::eventually("it runs", async || {
            neon.sql(running).await.unwrap()[0][0].as_deref() == Some("1")
        })
        .await;
        bounded(neon.restart_postgres(Duration::ZERO))
            .await
            .unwrap();
        let (said, _) = until_closed(&mut client).await;
        let errors = errors(&said);
        let field = |error: &Vec<(char, String)>, wanted| {
            let found = error.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, value)| value.clone()).unwrap()
        };
        let heard: Vec<_> = errors.iter().map(|error| field(error, 'C')).collect();
        assert_eq!(heard, codes, "{errors:?}");
        assert!(errors.iter().all(|error| field(error, 'S') == "FATAL"));
        if let Some(last) = errors.get(1) {
            assert!(field(last, 'M').contains("server conn crashed?"));
        }
    }
}

/// "The proxy closes that socket at once", with "a bare FIN after a cancel request", known or not.
#[tokio::test]
async fn a_cancel_request_is_closed_without_a_word() {
    let neon = start(NeonSim::builder()).await;
    let request = [0, 0, 0, 16, 0x04, 0xd2, 0x16, 0x2e, 0, 0, 0, 1, 0, 0, 0, 2];
    let mut client = raw::direct_tls(&neon, raw::tcp(&neon).await, Some(neon.host())).await;
    client.write_all(&request).await.unwrap();
    assert_eq!(until_closed(&mut client).await, (vec![], End::BareFin));
    let mut plain = raw::tcp(&neon).await;
    plain.write_all(&request).await.unwrap();
    assert_eq!(bounded(plain.read(&mut [0])).await.unwrap(), 0);
}
