//! Suspensions and faults that WebSockets meet. Each test quotes the fact about Neon's proxy that it holds.

mod common;

use std::time::Duration;

use common::raw::{End, errors, until_closed};
use common::websocket::{
    ACCEPTED, AWAY, CLEARTEXT, ask, binary, connect, head, https, log_in, opcode, open, owner,
    query, read_frame, request, try_connect,
};
use common::{bounded, eventually, refusal};
use neon_sim::{NeonSim, Suspension, WebSocketFault};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn start() -> NeonSim {
    let builder = NeonSim::builder().never_suspend();
    let builder = builder.cold_start(Duration::from_millis(50));
    bounded(builder.start()).await.unwrap()
}

/// "Suspension of an idle direct session ends with FATAL 57P01, then close_notify"; before that, the WebSocket is closed.
#[tokio::test]
async fn a_suspension_ends_with_a_close_frame() {
    let neon = start().await;
    for (host, told) in [(neon.host(), true), (neon.pooled_host(), false)] {
        let mut client = log_in(&neon, &host).await;
        neon.suspend(Suspension::Normal).await;
        if told {
            let frame = bounded(read_frame(&mut client)).await.unwrap();
            let code = ('C', "57P01".to_owned());
            assert!(errors(&frame.payload)[0].contains(&code), "{frame:?}");
        }
        let close = bounded(read_frame(&mut client)).await.unwrap();
        assert_eq!(
            (close.opcode, &close.payload[..]),
            (opcode::CLOSE, &AWAY[..])
        );
        assert_eq!(until_closed(&mut client).await, (vec![], End::CloseNotify));
    }
    assert_eq!(neon.counters().wakes, 1);
}

/// Of the stand-in's own: resets and silence reach WebSockets too.
#[tokio::test]
async fn websockets_are_reset_or_left_silent_on_request() {
    let neon = start().await;
    for host in [neon.host(), neon.pooled_host()] {
        for suspension in [Suspension::Reset, Suspension::Silent] {
            let mut client = log_in(&neon, &host).await;
            neon.suspend(suspension).await;
            if suspension == Suspension::Reset {
                let reset = bounded(client.read_u8()).await.unwrap_err();
                assert_eq!(reset.kind(), std::io::ErrorKind::ConnectionReset);
                continue;
            }
            client.write_all(&binary(&query("SELECT 1"))).await.unwrap();
            let idle = tokio::time::timeout(Duration::from_millis(300), client.read_u8()).await;
            assert!(idle.is_err(), "nothing should answer");
        }
    }
}

/// "Over TCP (and WebSocket) every error of the connection phase arrives as severity `ERROR`, SQLSTATE `XX000`, and only a
/// message". "A suspended compute just holds the connection while it wakes."
#[tokio::test]
async fn faults_reach_websockets_too() {
    let neon = start().await;
    neon.refuse_connections(1, "Couldn't connect to compute node");
    let refused = try_connect(&neon, &neon.host()).await;
    assert_eq!(refusal(refused), "Couldn't connect to compute node");
    neon.suspend(Suspension::Normal).await;
    let final_error = "Control plane request failed: endpoint is disabled";
    neon.fail_wakes(1, final_error);
    assert_eq!(refusal(try_connect(&neon, &neon.host()).await), final_error);
    neon.clear_faults();
    connect(&neon, &neon.pooled_host()).await;
    let counters = neon.counters();
    assert_eq!((counters.wakes, counters.direct.attempts), (1, 2));
    assert_eq!(counters.pooled.connections, 1);
}

/// Of the stand-in's own: what an open session sends is lost on request, here too.
#[tokio::test]
async fn requests_and_responses_are_lost_on_request() {
    let neon = start().await;
    let calls = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM calls";
    neon.sql("CREATE SEQUENCE calls; GRANT ALL ON calls TO neondb_owner")
        .await
        .unwrap();
    for (lose, called) in [
        (NeonSim::lose_requests as fn(&NeonSim), "0"),
        (NeonSim::lose_responses, "1"),
    ] {
        let mut client = log_in(&neon, &neon.host()).await;
        lose(&neon);
        let call = binary(&query("SELECT nextval('calls')"));
        client.write_all(&call).await.unwrap();
        let silence = tokio::time::timeout(Duration::from_millis(500), client.read_u8()).await;
        assert!(silence.is_err(), "nothing should answer");
        eventually("the calls", async || {
            neon.sql(calls).await.unwrap()[0][0].as_deref() == Some(called)
        })
        .await;
    }
}

/// Of the stand-in's own: what something between a client and Neon might say.
#[tokio::test]
async fn a_request_for_a_websocket_can_be_answered_with_anything() {
    let neon = start().await;
    let upgrade = async || {
        let mut client = https(&neon, &["http/1.1"]).await;
        let request = request(&neon.host(), "/v2");
        client.write_all(&request).await.unwrap();
        client
    };
    let body = "<html>Access denied</html>".to_owned();
    neon.disturb_websockets(
        1,
        WebSocketFault::Answer {
            status: 403,
            body: body.clone(),
        },
    );
    let mut client = upgrade().await;
    assert_eq!(head(&mut client).await.0, 403);
    let mut page = vec![0; body.len()];
    bounded(client.read_exact(&mut page)).await.unwrap();
    assert_eq!(page, body.as_bytes());

    neon.disturb_websockets(1, WebSocketFault::WrongAccept);
    let (status, head_lines) = head(&mut upgrade().await).await;
    assert_eq!(status, 101);
    let right = ACCEPTED.to_ascii_lowercase();
    assert!(head_lines.contains("sec-websocket-accept: ") && !head_lines.contains(&right));

    neon.disturb_websockets(1, WebSocketFault::NoAnswer);
    let mut client = upgrade().await;
    let silence = tokio::time::timeout(Duration::from_millis(300), client.read_u8()).await;
    assert!(silence.is_err(), "nothing should answer");

    let close = WebSocketFault::Close {
        code: 1008,
        reason: "policy".into(),
    };
    neon.disturb_websockets(1, close);
    let mut client = open(&neon, &neon.host()).await;
    let close = bounded(read_frame(&mut client)).await.unwrap();
    assert_eq!(
        (close.opcode, &close.payload[2..]),
        (opcode::CLOSE, &b"policy"[..])
    );
    assert_eq!(close.payload[..2], 1008_u16.to_be_bytes());
    until_closed(&mut client).await;

    for (fault, first) in [
        (WebSocketFault::Ping(b"!".into()), opcode::PING),
        (WebSocketFault::Text("!".into()), opcode::TEXT),
    ] {
        neon.disturb_websockets(1, fault);
        let mut client = open(&neon, &neon.host()).await;
        client.write_all(&binary(&owner())).await.unwrap();
        let said = bounded(read_frame(&mut client)).await.unwrap();
        assert_eq!((said.opcode, &said.payload[..]), (first, &b"!"[..]));
        let asked = bounded(read_frame(&mut client)).await.unwrap();
        assert_eq!(asked.payload, CLEARTEXT);
    }

    neon.disturb_websockets(1, WebSocketFault::Fragmented);
    let mut client = open(&neon, &neon.host()).await;
    client.write_all(&binary(&owner())).await.unwrap();
    let begin = bounded(read_frame(&mut client)).await.unwrap();
    let end = bounded(read_frame(&mut client)).await.unwrap();
    assert_eq!((begin.opcode, begin.is_final), (opcode::BINARY, false));
    assert_eq!((end.opcode, end.is_final), (opcode::CONTINUATION, true));
    assert_eq!([begin.payload, end.payload].concat(), CLEARTEXT);
    // The next is undisturbed.
    assert_eq!(
        ask(&mut open(&neon, &neon.host()).await, &owner()).await,
        CLEARTEXT
    );
}
