//! One connection of a client to the proxy, and the requests in it.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{HeaderValue, PROXY_AUTHENTICATE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::state::{Fault, ProxyRequest, State};
use super::tunnel::tunnel;

/// Answers the requests of a connection.
pub(super) async fn serve(
    state: Arc<State>,
    tls: Option<TlsAcceptor>,
    stream: TcpStream,
) -> io::Result<()> {
    match tls {
        Some(tls) => serve_stream(state, tls.accept(stream).await?).await,
        None => serve_stream(state, stream).await,
    }
}

async fn serve_stream(
    state: Arc<State>,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> io::Result<()> {
    let service = service_fn(|request| answer(Arc::clone(&state), request));
    let server = http1::Builder::new();
    let connection = server.serve_connection(TokioIo::new(stream), service);
    let served = connection.with_upgrades().await;
    served.map_err(io::Error::other)
}

/// Answers a request; an error closes its connection.
async fn answer(
    state: Arc<State>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, io::Error> {
    let asked = recorded(&request);
    let target = asked.target.clone();
    let is_admitted = state.admits(&asked);
    state.record(asked);
    let fault = state.faults.next();
    let end = match fault {
        Some(Fault::Refuse(status)) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
            return Ok(refusal(status));
        }
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::Drop) => return Err(io::ErrorKind::ConnectionAborted.into()),
        Some(Fault::CutOff(bytes)) => bytes,
        None => u64::MAX,
    };
    if !is_admitted {
        let mut response = refusal(StatusCode::PROXY_AUTHENTICATION_REQUIRED);
        let challenge = HeaderValue::from_static("Basic realm=\"neon-sim\"");
        response.headers_mut().insert(PROXY_AUTHENTICATE, challenge);
        return Ok(response);
    }
    if request.method() != Method::CONNECT {
        return Ok(refusal(StatusCode::METHOD_NOT_ALLOWED));
    }
    let Some(port) = state.port_of(&target) else {
        return Ok(refusal(StatusCode::BAD_GATEWAY));
    };
    let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else {
        return Ok(refusal(StatusCode::BAD_GATEWAY));
    };
    let client = hyper::upgrade::on(request);
    tokio::spawn(async move {
        tokio::select! {
            () = tunnel(client, server, end) => {}
            () = state.breaking.notified() => {}
        }
    });
    Ok(Response::default())
}

fn recorded(request: &Request<Incoming>) -> ProxyRequest {
    let headers = request.headers().iter().map(|(name, value)| {
        let value = String::from_utf8_lossy(value.as_bytes());
        (name.to_string(), value.into_owned())
    });
    ProxyRequest {
        method: request.method().to_string(),
        target: request.uri().to_string(),
        headers: headers.collect(),
    }
}

/// Returns a page, as proxies show it to people.
fn refusal(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(format!("<html>{status}</html>\n")));
    *response.status_mut() = status;
    response
}
