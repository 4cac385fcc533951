//! A scripted server of SQL over HTTPS.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::common::scripted::listen;

/// What a server does with a request.
#[derive(Clone)]
#[allow(dead_code, reason = "no test needs all of them")]
pub enum Reply {
    Bytes(Vec<u8>),
    /// The same, and the end of the connection.
    Last(Vec<u8>),
    /// The same as the first, after this time.
    Late(Duration, Vec<u8>),
    /// The same as the first, once this is true.
    Held(watch::Receiver<bool>, Vec<u8>),
    Hang,
}

/// `SELECT 7` of the type int4.
pub const SEVEN: &str = r#"{"fields":[{"name":"encode","dataTypeID":25}],"command":"SELECT","rowCount":1,"rows":[["AAAAAQAAABcAAAAEAAAABw=="]],"rowAsArray":true}"#;

pub fn answer(status: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

pub fn ok(body: &str) -> Reply {
    Reply::Bytes(answer("200 OK", body.as_bytes()))
}

/// Counts what a scripted server has seen.
#[derive(Default)]
pub struct Seen {
    pub connections: AtomicUsize,
    pub requests: AtomicUsize,
    /// The connections that the server has ended.
    pub ended: AtomicUsize,
    pub at_once: AtomicUsize,
    pub most_at_once: AtomicUsize,
}

pub fn read(counter: &AtomicUsize) -> usize {
    // Diesel has a `load` of its own.
    AtomicUsize::load(counter, Ordering::Relaxed)
}

/// Returns the answer to one statement as that to a statement behind two others, which look at the time zone and set it.
fn in_batch(reply: Vec<u8>) -> Vec<u8> {
    let end = reply.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    let (head, body) = reply.split_at(end.map_or(reply.len(), |end| end + 4));
    let length = format!("Content-Length: {}\r\n", body.len());
    if !head.starts_with(b"HTTP/1.1 200 OK") || !String::from_utf8_lossy(head).contains(&length) {
        return reply;
    }
    let zone = r#"{"fields":[{"name":"TimeZone","dataTypeID":25}],"command":"SHOW","rowCount":null,"rows":[["UTC"]]}"#;
    let set = r#"{"fields":[],"command":"SET","rowCount":null,"rows":[]}"#;
    let start = format!(r#"{{"results":[{zone},{set},"#);
    answer("200 OK", &[start.as_bytes(), body, b"]}"].concat())
}

/// Reads a request, and returns its body; `None` at the end of the connection.
async fn read_request(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return None,
        }
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    assert!(head.starts_with("post /sql http/1.1\r\n"), "{head}");
    assert!(
        head.contains("neon-connection-string: postgresql://u:p@127.0.0.1/d\r\n"),
        "{head}"
    );
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.unwrap().parse().unwrap()];
    stream.read_exact(&mut body).await.ok()?;
    Some(body)
}

/// Starts a server that replies to the n-th request, counted from 0, with what `reply` says; returns the URL.
pub async fn serve(reply: impl Fn(usize) -> Reply + Send + Sync + 'static) -> (String, Arc<Seen>) {
    let seen = Arc::<Seen>::default();
    let reply = Arc::new(reply);
    let counting = Arc::clone(&seen);
    let port = listen(move |mut stream: TcpStream| {
        let (seen, reply) = (Arc::clone(&counting), Arc::clone(&reply));
        async move {
            seen.connections.fetch_add(1, Ordering::Relaxed);
            while let Some(body) = read_request(&mut stream).await {
                let at_once = seen.at_once.fetch_add(1, Ordering::Relaxed) + 1;
                seen.most_at_once.fetch_max(at_once, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(1)).await;
                let reply = reply(seen.requests.fetch_add(1, Ordering::Relaxed));
                let told = match body.starts_with(br#"{"queries":["#) {
                    true => in_batch,
                    false => |reply| reply,
                };
                seen.at_once.fetch_sub(1, Ordering::Relaxed);
                match reply {
                    Reply::Bytes(bytes) => drop(stream.write_all(&told(bytes)).await),
                    Reply::Late(time, bytes) => {
                        tokio::time::sleep(time).await;
                        let _ = stream.write_all(&told(bytes)).await;
                    }
                    Reply::Held(mut released, bytes) => {
                        let _ = released.wait_for(|released| *released).await;
                        let _ = stream.write_all(&told(bytes)).await;
                    }
                    Reply::Last(bytes) => {
                        let _ = stream.write_all(&told(bytes)).await;
                        drop(stream);
                        seen.ended.fetch_add(1, Ordering::Relaxed);
                        return;
                    }
                    Reply::Hang => std::future::pending().await,
                }
            }
        }
    })
    .await;
    (url(port), seen)
}

pub fn url(port: u16) -> String {
    format!("postgresql://u:p@127.0.0.1:9/d?sslmode=disable&https_port={port}")
}
