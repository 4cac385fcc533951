//! From an accepted socket to the requests of a connection.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout_at};

use super::upgrade::{is_upgrade, upgrade};
use crate::proxy::accept::accept;
use crate::proxy::link::Link;
use crate::proxy::shared::Shared;
use crate::proxy::tls::HTTP_2;

/// Serves every client that connects to the port of HTTPS.
pub(crate) async fn serve_https(shared: Arc<Shared>, listener: TcpListener) {
    accept(listener, |stream| serve_one(Arc::clone(&shared), stream)).await;
}

async fn serve_one(shared: Arc<Shared>, stream: TcpStream) -> io::Result<()> {
    let deadline = Instant::now() + shared.timing.handshake;
    let link = Link::new(stream, shared.latency.clone());
    let stream = timeout_at(deadline, shared.tls.accept_https(link)).await??;
    let is_http_2 = stream.get_ref().1.alpn_protocol() == Some(HTTP_2.as_bytes());
    let stream = TokioIo::new(stream);
    let service = service_fn(|request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(answer(&shared, request, deadline).await) }
    });
    let served = match is_http_2 {
        true => {
            let server = http2::Builder::new(TokioExecutor::new());
            server.serve_connection(stream, service).await
        }
        false => {
            let server = http1::Builder::new();
            let connection = server.serve_connection(stream, service);
            connection.with_upgrades().await
        }
    };
    served.map_err(io::Error::other)
}

/// Answers a request; a WebSocket must have said what it is for by the deadline.
async fn answer(
    shared: &Arc<Shared>,
    request: Request<Incoming>,
    deadline: Instant,
) -> Response<Full<Bytes>> {
    if is_upgrade(&request) {
        return upgrade(shared, request, deadline).await;
    }
    let mut response = Response::new(Full::from("\"query is not supported\""));
    *response.status_mut() = StatusCode::BAD_REQUEST;
    let json = "application/json".parse().expect("it is a header's value");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}
