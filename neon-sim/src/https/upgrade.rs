//! From a request for a WebSocket to the end of what is spoken in it.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{
    CONNECTION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::server::TlsStream;

use super::websocket::WebSocket;
use crate::control::websocket_fault::WebSocketFault;
use crate::proxy::attend::{attend, purpose};
use crate::proxy::door::Door;
use crate::proxy::link::Link;
use crate::proxy::shared::Shared;

/// What RFC 6455 appends to a client's key.
const APPENDIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Returns whether a client asks for a WebSocket, on whatever path.
pub(super) fn is_upgrade(request: &Request<Incoming>) -> bool {
    let headers = request.headers();
    lists(headers, &CONNECTION, "upgrade") && lists(headers, &UPGRADE, "websocket")
}

fn lists(headers: &HeaderMap, name: &HeaderName, wanted: &str) -> bool {
    let values = headers.get_all(name).into_iter();
    let mut values = values.filter_map(|value| value.to_str().ok());
    values.any(|value| {
        let mut values = value.split(',');
        values.any(|value| value.trim().eq_ignore_ascii_case(wanted))
    })
}

/// Grants a WebSocket, which must have said what it is for by the deadline.
pub(super) async fn upgrade(
    shared: &Arc<Shared>,
    mut request: Request<Incoming>,
    deadline: Instant,
) -> Response<Full<Bytes>> {
    let headers = request.headers();
    let is_known = |value| value == "13";
    let key = headers.get(SEC_WEBSOCKET_KEY).map(|key| key.as_bytes());
    let key = key.filter(|_| headers.get(SEC_WEBSOCKET_VERSION).is_some_and(is_known));
    let Some(key) = key else {
        let complaint = r#"{"msg":"Sec-WebSocket-Key or Sec-WebSocket-Version is missing"}"#;
        return respond(400, &[(CONTENT_TYPE, "application/json")], complaint);
    };
    let mut accepted = accepted(key);
    let fault = shared.faults.next_websocket_fault();
    match &fault {
        Some(WebSocketFault::NoAnswer) => std::future::pending().await,
        Some(WebSocketFault::Answer { status, body }) => {
            return respond(*status, &[(CONTENT_TYPE, "text/html")], body);
        }
        Some(WebSocketFault::WrongAccept) => accepted = self::accepted(b"another key"),
        _ => {}
    }
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let host = host.and_then(|host| host.split(':').next());
    let door = Door::WebSocket(host.map(Into::into));
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(serve(Arc::clone(shared), upgraded, door, fault, deadline));
    let headers = [
        (CONNECTION, "upgrade"),
        (UPGRADE, "websocket"),
        (SEC_WEBSOCKET_ACCEPT, &accepted),
    ];
    respond(101, &headers, "")
}

/// Returns the answer to a client's key.
fn accepted(key: &[u8]) -> String {
    let text = [key, APPENDIX.as_bytes()].concat();
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &text))
}

fn respond(status: u16, headers: &[(HeaderName, &str)], body: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body.to_owned()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    for (name, value) in headers {
        let value = value.parse().expect("it is a header's value");
        response.headers_mut().insert(name, value);
    }
    response
}

async fn serve(
    shared: Arc<Shared>,
    upgraded: OnUpgrade,
    door: Door,
    fault: Option<WebSocketFault>,
    deadline: Instant,
) {
    let Ok(Some((stream, read))) = upgraded.await.map(parts) else {
        return;
    };
    let mut socket = WebSocket::new(stream, &read);
    // An error from here on is a client that has left, or is closed for what it sent.
    if let Some(fault) = fault
        && socket.disturb(fault).is_ok_and(|goes_on| !goes_on)
    {
        let _ = socket.shutdown().await;
        return;
    }
    if let Ok(Ok(purpose)) = timeout_at(deadline, purpose(&mut socket)).await {
        let _ = attend(&shared, socket, door, purpose).await;
    }
}

/// Returns the connection below HTTP, and what the client has sent behind its request.
fn parts(upgraded: Upgraded) -> Option<(TlsStream<Link>, Bytes)> {
    let parts = upgraded.downcast::<TokioIo<TlsStream<Link>>>().ok()?;
    Some((parts.io.into_inner(), parts.read_buf))
}
