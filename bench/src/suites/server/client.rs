//! A client of HTTP/1.1 that keeps its connection, and knows what the right answer is.

use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

pub struct Request {
    bytes: Vec<u8>,
    status: u16,
    /// What the body must have.
    part: String,
}

impl Request {
    pub fn show(id: usize) -> Self {
        Self {
            bytes: format!("GET /books/{id} HTTP/1.1\r\nhost: localhost\r\n\r\n").into(),
            status: 200,
            part: format!(r#"{{"id":{id},"title":"Book {id}","#),
        }
    }

    pub fn create(number: usize) -> Self {
        let part = format!(r#""title":"New {number}","author":"Some One""#);
        let body = format!(r#"{{{part},"publication_year":1965}}"#);
        let head = "POST /books HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json";
        Self {
            bytes: format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into(),
            status: 201,
            part,
        }
    }
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    #[allow(dead_code, reason = "a wrong one is shown")]
    body: String,
    is_right: bool,
}

impl Answer {
    pub fn is_right(&self) -> bool {
        self.is_right
    }
}

pub struct Client(BufReader<TcpStream>);

impl Client {
    pub async fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    pub async fn ask(&mut self, request: &Request) -> Result<Answer> {
        self.0.write_all(&request.bytes).await?;
        let mut line = String::new();
        self.line(&mut line).await?;
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| invalid("no status"))?;
        let mut length = None;
        while !line.is_empty() {
            self.line(&mut line).await?;
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse().ok();
            }
        }
        let mut body = vec![0; length.ok_or_else(|| invalid("no content-length"))?];
        self.0.read_exact(&mut body).await?;
        let body = String::from_utf8(body).map_err(|_| invalid("no text"))?;
        let is_right = status == request.status && body.contains(&request.part);
        Ok(Answer {
            status,
            body,
            is_right,
        })
    }

    /// Reads a line of the head, without its end.
    async fn line(&mut self, line: &mut String) -> Result<()> {
        line.clear();
        if self.0.read_line(line).await? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        line.truncate(line.trim_end().len());
        Ok(())
    }
}

fn invalid(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, what)
}
