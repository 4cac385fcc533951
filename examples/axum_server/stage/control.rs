//! Orders to the stand-in, over HTTP.

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, Response, Uri, header};
use futures_util::{StreamExt, pin_mut};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long an order may take: a suspension waits for its sessions, a restart for the server.
const PATIENCE: Duration = Duration::from_secs(12);
/// Larger than any answer.
const MAX_ANSWER: usize = 64 * 1024;

/// The stand-in's control.
pub(crate) struct Control {
    address: SocketAddr,
    /// What all paths begin with. It has a secret in it.
    path: String,
}

/// A text is no address of a stand-in's control.
#[derive(Debug, thiserror::Error)]
#[error("give it as neon-sim prints it: http://127.0.0.1:<port>/<key>")]
pub(crate) struct NoControl;

impl FromStr for Control {
    type Err = NoControl;

    fn from_str(text: &str) -> Result<Self, NoControl> {
        let uri: Uri = text.parse().map_err(|_| NoControl)?;
        let address = uri.authority().and_then(|a| a.as_str().parse().ok());
        match (uri.scheme_str(), address) {
            (Some("http"), Some(SocketAddr::V4(address))) if address.ip().is_loopback() => {
                Ok(Self {
                    address: address.into(),
                    path: uri.path().trim_end_matches('/').to_owned(),
                })
            }
            _ => Err(NoControl),
        }
    }
}

/// The stand-in did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ControlError {
    #[error("the stand-in cannot be reached")]
    Io(#[from] std::io::Error),
    #[error("the stand-in gives no answer")]
    Http(#[from] hyper::Error),
    #[error("the stand-in's answer does not end well")]
    Body(#[from] axum::Error),
    #[error("the stand-in's answer is not JSON")]
    Json(#[from] serde_json::Error),
    #[error("the stand-in refuses: {0}")]
    Refused(String),
    #[error("the stand-in takes too long")]
    Late,
}

impl Control {
    /// Gives an order, and returns when it is carried out.
    pub(crate) async fn order(&self, order: &str) -> Result<(), ControlError> {
        let answer = self.whole(Method::POST, order).await?;
        drop(answer);
        Ok(())
    }

    /// Returns the state of the stand-in.
    pub(crate) async fn state(&self) -> Result<Value, ControlError> {
        let answer = self.whole(Method::GET, "state").await?;
        Ok(serde_json::from_slice(&answer)?)
    }

    /// Calls `note` with the state, and then with each event, until the stand-in ends.
    pub(crate) async fn follow(&self, note: impl Fn(&Value)) -> Result<(), ControlError> {
        let opening = timeout(PATIENCE, self.send(Method::GET, "events"));
        let response = opening.await.map_err(|_| ControlError::Late)??;
        let pieces = response.into_body().into_data_stream();
        pin_mut!(pieces);
        let mut rest = Vec::new();
        while let Some(piece) = pieces.next().await {
            rest.extend_from_slice(&piece?);
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                note(&serde_json::from_slice(&line)?);
            }
        }
        Ok(())
    }

    async fn whole(&self, method: Method, name: &str) -> Result<Vec<u8>, ControlError> {
        let exchange = async {
            let response = self.send(method, name).await?;
            let status = response.status();
            let answer = to_bytes(response.into_body(), MAX_ANSWER).await?.to_vec();
            match status.is_success() {
                true => Ok(answer),
                false => Err(ControlError::Refused(
                    String::from_utf8_lossy(&answer).trim().to_owned(),
                )),
            }
        };
        let answer = timeout(PATIENCE, exchange).await;
        answer.map_err(|_| ControlError::Late)?
    }

    async fn send(&self, method: Method, name: &str) -> Result<Response<Body>, ControlError> {
        let stream = TcpStream::connect(self.address).await?;
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
        // It ends with the answer.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(format!("{}/{name}", self.path))
            .header(header::HOST, self.address.to_string());
        let request = request.body(Body::empty()).expect("the path is one");
        Ok(sender.send_request(request).await?.map(Body::new))
    }
}
