//! A client of `POST /sql`, by hyper over HTTP/2.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::header::HOST;
use hyper::{Method, Request};
use hyper_util::rt::{TokioExecutor, TokioIo};
use neon_sim::NeonSim;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::bounded;
use super::websocket::https;

/// A connection for requests; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Sql {
    sender: SendRequest<Full<Bytes>>,
    /// The host that requests are sent to.
    pub(crate) host: String,
    pub(crate) headers: Vec<(&'static str, String)>,
}

/// The status of an answer, and its body.
pub(crate) type Answer = (u16, String);

impl Sql {
    /// Connects for requests of `neondb_owner` to the direct endpoint.
    pub(crate) async fn connect(neon: &NeonSim) -> Self {
        Self::connect_with_driver(neon).await.0
    }

    pub(crate) async fn connect_with_driver(
        neon: &NeonSim,
    ) -> (Self, JoinHandle<hyper::Result<()>>) {
        let stream = TokioIo::new(https(neon, &["h2"]).await);
        let connecting = handshake(TokioExecutor::new(), stream);
        let (sender, connection) = bounded(connecting).await.unwrap();
        let driver = tokio::spawn(connection);
        let connection_string = ("neon-connection-string", neon.url());
        let client = Self {
            sender,
            host: neon.host(),
            headers: vec![connection_string],
        };
        (client, driver)
    }

    /// Returns this client with another value of a header.
    pub(crate) fn with(&self, name: &'static str, value: impl Into<String>) -> Self {
        let mut client = self.clone();
        client.headers.retain(|(known, _)| *known != name);
        client.headers.push((name, value.into()));
        client
    }

    pub(crate) async fn send(&self, method: Method, path: &str, body: impl Into<Bytes>) -> Answer {
        let uri = format!("https://{}{path}", self.host);
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        let request = request.header(HOST, &self.host);
        let request = request.body(Full::new(body.into())).unwrap();
        let mut sender = self.sender.clone();
        let answering = async {
            let response = sender.send_request(request).await.unwrap();
            let status = response.status().as_u16();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            (status, String::from_utf8(body.to_vec()).unwrap())
        };
        bounded(answering).await
    }

    /// Asks for whatever this body says.
    pub(crate) async fn ask(&self, body: &Value) -> (u16, Value) {
        let (status, body) = self.send(Method::POST, "/sql", body.to_string()).await;
        let parsed = serde_json::from_str(&body);
        (
            status,
            parsed.unwrap_or_else(|_| panic!("this is JSON: {body}")),
        )
    }

    /// Runs a statement.
    pub(crate) async fn query(&self, sql: &str) -> (u16, Value) {
        self.ask(&json!({ "query": sql })).await
    }

    /// Returns the rows of a statement that succeeds.
    pub(crate) async fn rows(&self, sql: &str) -> Value {
        let (status, mut answer) = self.query(sql).await;
        assert_eq!(status, 200, "{sql}: {answer}");
        answer["rows"].take()
    }
}
