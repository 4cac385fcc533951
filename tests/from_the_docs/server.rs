//! A server in a process of its own, and HTTP by hand. `examples/actix` is tested with it too.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// Only a test that hangs takes so long.
pub(crate) const HANG: Duration = Duration::from_secs(120);

pub(crate) struct Server {
    pub(crate) address: String,
    /// Ends when it is dropped.
    _process: Child,
}

impl Server {
    /// Starts a server that prints where it listens.
    pub(crate) async fn start(mut command: Command) -> Self {
        let mut process = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(process.stdout.take().unwrap()).lines();
        let line = timeout(HANG, stdout.next_line()).await.expect("no hang");
        let line = line.unwrap().expect("it starts");
        let address = line.strip_prefix("listening on http://").unwrap();
        Self {
            address: address.to_owned(),
            _process: process,
        }
    }
}

pub(crate) async fn get(address: &str, path: &str) -> (u16, String) {
    send(address, &format!("GET {path}"), "").await
}

/// Sends a request, such as `POST /books`, and returns the status and the body of the answer.
pub(crate) async fn send(address: &str, request: &str, body: &str) -> (u16, String) {
    let length = body.len();
    let request = format!(
        "{request} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        response
    };
    let response = timeout(HANG, exchange).await.expect("the server answers");
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}
