//! From an accepted socket to the requests of a connection.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout_at};

use super::upgrade::{is_upgrade, upgrade};
use crate::proxy::accept::accept;
use crate::proxy::link::Link;
use crate::proxy::shared::Shared;
use crate::proxy::tls::HTTP_2;
use crate::sql::answer::respond;
use crate::sql::caller::Caller;
use crate::sql::service::SqlService;

/// What requests are answered with.
struct Port {
    shared: Arc<Shared>,
    sql: SqlService,
}

/// Serves every client that connects to the port of HTTPS; `tokens` are those that are accepted in place of a password.
pub(crate) async fn serve_https(shared: Arc<Shared>, tokens: Vec<String>, listener: TcpListener) {
    let sql = SqlService::new(Arc::clone(&shared), tokens);
    let port = Arc::new(Port { shared, sql });
    accept(listener, |stream| serve_one(Arc::clone(&port), stream)).await;
}

async fn serve_one(port: Arc<Port>, stream: TcpStream) -> io::Result<()> {
    let shared = &port.shared;
    let deadline = Instant::now() + shared.timing.handshake;
    let link = Link::new(stream, shared.latency.clone());
    let stream = timeout_at(deadline, shared.tls.accept_https(link)).await??;
    let (link, session) = stream.get_ref();
    let is_http_2 = session.alpn_protocol() == Some(HTTP_2.as_bytes());
    let caller = Arc::new(Caller::new(link.turns(), is_http_2));
    let stream = TokioIo::new(stream);
    let service = service_fn(|request| {
        let (port, caller) = (Arc::clone(&port), Arc::clone(&caller));
        async move { Ok::<_, Infallible>(answer(&port, &caller, request, deadline).await) }
    });
    let serving = async {
        match is_http_2 {
            true => {
                let server = http2::Builder::new(TokioExecutor::new());
                server.serve_connection(stream, service).await
            }
            false => {
                let server = http1::Builder::new();
                let connection = server.serve_connection(stream, service);
                connection.with_upgrades().await
            }
        }
    };
    tokio::select! {
        served = serving => served.map_err(io::Error::other),
        () = caller.until_ended() => Ok(()),
    }
}

/// Answers a request; a WebSocket must have said what it is for by the deadline.
async fn answer(
    port: &Port,
    caller: &Caller,
    request: Request<Incoming>,
    deadline: Instant,
) -> Response<Full<Bytes>> {
    if is_upgrade(&request) {
        return upgrade(&port.shared, request, deadline).await;
    }
    match (request.method(), request.uri().path()) {
        (&Method::POST, "/sql") => port.sql.answer(caller, request).await,
        _ => respond(400, "\"query is not supported\"".into()),
    }
}
