//! A scripted server, for faults that no real server can be made to have.

use std::future::Future;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// The names that the crate itself has for the tags of messages.
#[allow(dead_code, unused_imports, reason = "no test needs all of them")]
#[path = "../../src/protocol/tag.rs"]
pub mod tag;

/// One client's session.
#[derive(Debug)]
pub struct Session {
    pub stream: TcpStream,
}

impl Session {
    /// Reads the client's next message: its tag and its body.
    pub async fn read(&mut self) -> Option<(u8, Vec<u8>)> {
        let tag = self.stream.read_u8().await.ok()?;
        let length = self.stream.read_u32().await.ok()?;
        let mut body = vec![0; length as usize - 4];
        self.stream.read_exact(&mut body).await.ok()?;
        Some((tag, body))
    }

    /// Reads messages up to one that needs an answer, and returns their SQL.
    pub async fn asked(&mut self) -> Option<String> {
        let mut sql = String::new();
        loop {
            let (tag, body) = self.read().await?;
            match tag {
                tag::frontend::QUERY => return Some(text(&body)),
                tag::frontend::PARSE => {
                    sql = text(&body[body.iter().position(|byte| *byte == 0)? + 1..])
                }
                tag::frontend::SYNC => return Some(sql),
                _ => {}
            }
        }
    }

    pub async fn say(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }
}

fn text(body: &[u8]) -> String {
    let text = body.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

/// Encodes a message of the server.
pub fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![tag];
    message.extend((body.len() as u32 + 4).to_be_bytes());
    message.extend(body);
    message
}

pub fn complete(command: &str) -> Vec<u8> {
    message(tag::COMMAND_COMPLETE, format!("{command}\0").as_bytes())
}

pub fn ready(status: u8) -> Vec<u8> {
    message(tag::READY_FOR_QUERY, &[status])
}

pub fn error(severity: &str, code: &str, text: &str) -> Vec<u8> {
    let fields = format!("S{severity}\0V{severity}\0C{code}\0M{text}\0\0");
    message(tag::ERROR_RESPONSE, fields.as_bytes())
}

/// Starts a server that logs each client in and leaves the rest to `serve`; returns its URL.
pub async fn start<F>(
    serve: impl Fn(Session, usize) -> F + Send + 'static,
) -> (String, JoinHandle<()>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        for nth in 0.. {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            startup(&mut stream).await.unwrap();
            let mut session = Session { stream };
            session.say(&greeting()).await;
            tokio::spawn(serve(session, nth));
        }
    });
    let url = format!("postgresql://u:p@127.0.0.1:{port}/d?sslmode=disable");
    (url, server)
}

/// Reads the client's startup message.
pub async fn startup(stream: &mut TcpStream) -> std::io::Result<()> {
    let length = stream.read_u32().await?;
    let mut startup = vec![0; length as usize - 4];
    stream.read_exact(&mut startup).await.map(drop)
}

/// Encodes what a server without passwords answers to the startup message.
pub fn greeting() -> Vec<u8> {
    let mut greeting = message(tag::AUTHENTICATION, &[0; 4]);
    for setting in ["TimeZone\0UTC\0", "client_encoding\0UTF8\0"] {
        greeting.extend(message(tag::PARAMETER_STATUS, setting.as_bytes()));
    }
    greeting.extend(message(tag::BACKEND_KEY_DATA, &[0, 0, 0, 1, 0, 0, 0, 2]));
    greeting.extend(ready(tag::status::IDLE));
    greeting
}

/// Starts a server that leaves each stream to `serve`; returns its port.
pub async fn listen<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> u16
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            tokio::spawn(serve(stream));
        }
    });
    port
}
