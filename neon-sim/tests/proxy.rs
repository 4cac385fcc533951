//! The proxy of HTTP, as companies have one between their machines and 443.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::raw::{message, startup, tag};
use common::websocket::{binary, head, opcode, read_frame, request};
use common::{bounded, tls};
use neon_sim::{HttpProxy, NeonSim};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const TARGET: &str = "ep-quiet-lake-123456.neon.localhost:443";

async fn start() -> NeonSim {
    bounded(NeonSim::builder().never_suspend().start())
        .await
        .unwrap()
}

async fn tcp(proxy: &HttpProxy) -> TcpStream {
    let connecting = TcpStream::connect(("127.0.0.1", proxy.port()));
    bounded(connecting).await.unwrap()
}

async fn under_tls<S: AsyncRead + AsyncWrite + Unpin>(
    neon: &NeonSim,
    name: &str,
    stream: S,
) -> TlsStream<S> {
    let mut config = tls(neon.ca_path());
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream);
    bounded(connecting).await.unwrap()
}

/// Asks for a tunnel; returns the status of the answer.
async fn connect(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), headers: &str) -> u16 {
    let request = format!("CONNECT {TARGET} HTTP/1.1\r\nHost: {TARGET}\r\n{headers}\r\n");
    bounded(stream.write_all(request.as_bytes())).await.unwrap();
    bounded(stream.flush()).await.unwrap();
    head(stream).await.0
}

/// Logs in through a tunnel.
async fn log_in(neon: &NeonSim, tunnel: impl AsyncRead + AsyncWrite + Unpin) {
    let mut client = under_tls(neon, &neon.host(), tunnel).await;
    let owner = startup(0, &[("user", "neondb_owner"), ("database", "neondb")]);
    let password = format!("{}\0", neon.password());
    let login = [owner, message(tag::PASSWORD, password.as_bytes())].concat();
    let bytes = [request(&neon.host(), "/v2"), binary(&login)].concat();
    client.write_all(&bytes).await.unwrap();
    client.flush().await.unwrap();
    assert_eq!(head(&mut client).await.0, 101);
    let mut said = Vec::new();
    while !said.ends_with(b"Z\0\0\0\x05I") {
        let frame = bounded(read_frame(&mut client)).await.unwrap();
        assert_eq!(frame.opcode, opcode::BINARY);
        said.extend(frame.payload);
    }
}

/// A target that no name server knows is reached by CONNECT, whether the proxy itself is spoken to in plain text or under TLS,
/// and the bytes behind the request are not lost.
#[tokio::test]
async fn a_tunnel_leads_where_it_is_told() {
    let neon = start().await;
    let plain = HttpProxy::start().await.unwrap();
    let encrypted = neon.start_https_proxy().await.unwrap();
    for proxy in [&plain, &encrypted] {
        proxy.route(TARGET, neon.https_port());
    }
    assert_eq!(plain.url(), format!("http://localhost:{}", plain.port()));
    let mut stream = tcp(&plain).await;
    assert_eq!(connect(&mut stream, "").await, 200);
    log_in(&neon, stream).await;
    assert!(encrypted.url().starts_with("https://localhost:"));
    let mut stream = under_tls(&neon, "localhost", tcp(&encrypted).await).await;
    assert_eq!(connect(&mut stream, "").await, 200);
    log_in(&neon, stream).await;
    assert_eq!(neon.counters().direct.connections, 2);
}

#[tokio::test]
async fn credentials_are_demanded_and_every_request_is_recorded() {
    let neon = start().await;
    let proxy = HttpProxy::start().await.unwrap();
    proxy.route(TARGET, neon.https_port());
    proxy.demand_credentials("Aladdin", "open sesame");
    let mut stream = tcp(&proxy).await;
    let asking = format!("CONNECT {TARGET} HTTP/1.1\r\nHost: {TARGET}\r\n\r\n");
    stream.write_all(asking.as_bytes()).await.unwrap();
    let (status, lines) = head(&mut stream).await;
    assert_eq!(status, 407);
    assert!(
        lines.contains("proxy-authenticate: basic realm="),
        "{lines}"
    );
    // RFC 7617's example.
    let right = "Proxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n";
    let mut stream = tcp(&proxy).await;
    assert_eq!(connect(&mut stream, right).await, 200);
    log_in(&neon, stream).await;
    let requests = proxy.requests();
    assert_eq!(requests.len(), 2);
    for request in &requests {
        assert_eq!((&*request.method, &*request.target), ("CONNECT", TARGET));
        assert_eq!(request.header("host"), Some(TARGET));
    }
    assert_eq!(requests[0].header("proxy-authorization"), None);
    let given = requests[1].header("proxy-authorization");
    assert_eq!(given, Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="));
}

#[tokio::test]
async fn a_proxy_refuses_hangs_and_breaks_off_on_request() {
    let neon = start().await;
    let proxy = HttpProxy::start().await.unwrap();
    assert_eq!(
        connect(&mut tcp(&proxy).await, "").await,
        502,
        "an unknown target"
    );
    proxy.route(TARGET, neon.https_port());

    proxy.refuse(1, 403);
    proxy.refuse(1, 503);
    for status in [403, 503] {
        assert_eq!(connect(&mut tcp(&proxy).await, "").await, status);
    }
    proxy.drop_requests(1);
    let mut stream = tcp(&proxy).await;
    stream
        .write_all(b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(bounded(stream.read_to_end(&mut vec![])).await.unwrap(), 0);

    proxy.hang(1);
    let asking = async { connect(&mut tcp(&proxy).await, "").await };
    let answer = tokio::time::timeout(Duration::from_secs(4), asking).await;
    assert!(answer.is_err(), "nothing should answer");

    proxy.cut_off_after(1, 10);
    let mut stream = tcp(&proxy).await;
    assert_eq!(connect(&mut stream, "").await, 200);
    let mut config = tls(neon.ca_path());
    config.alpn_protocols.clear();
    let name = ServerName::try_from(neon.host()).unwrap();
    let handshake = TlsConnector::from(Arc::new(config)).connect(name, stream);
    let broken_off = bounded(handshake).await.unwrap_err();
    assert_eq!(broken_off.kind(), std::io::ErrorKind::UnexpectedEof);

    let mut stream = tcp(&proxy).await;
    assert_eq!(connect(&mut stream, "").await, 200);
    proxy.break_tunnels();
    assert_eq!(bounded(stream.read_to_end(&mut vec![])).await.unwrap(), 0);

    let mut stream = tcp(&proxy).await;
    assert_eq!(connect(&mut stream, "").await, 200);
    proxy.stop();
    assert_eq!(bounded(stream.read_to_end(&mut vec![])).await.unwrap(), 0);
    let refused = TcpStream::connect(("127.0.0.1", proxy.port())).await;
    assert!(refused.is_err(), "nobody listens");

    let proxy = HttpProxy::start().await.unwrap();
    proxy.route(TARGET, neon.https_port());
    proxy.hang(1);
    proxy.clear_faults();
    let mut stream = tcp(&proxy).await;
    assert_eq!(connect(&mut stream, "").await, 200);
    log_in(&neon, stream).await;
}
