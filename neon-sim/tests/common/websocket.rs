//! The client's side of a WebSocket, frame by frame, so that nothing of the stand-in's own checks itself.

use std::io;
use std::sync::Arc;

use neon_sim::NeonSim;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::TcpStream;
use tokio_postgres::{Client, Config, Error, NoTls};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::raw::{message, startup, tag};
use super::{Driver, bounded, tls};

/// The opcodes.
pub(crate) mod opcode {
    pub(crate) const CONTINUATION: u8 = 0;
    pub(crate) const TEXT: u8 = 1;
    pub(crate) const BINARY: u8 = 2;
    pub(crate) const CLOSE: u8 = 8;
    pub(crate) const PING: u8 = 9;
    pub(crate) const PONG: u8 = 10;
}

pub(crate) type Tls = TlsStream<TcpStream>;

/// Connects to the port of HTTPS, with these protocols on offer.
pub(crate) async fn https(neon: &NeonSim, protocols: &[&str]) -> Tls {
    let connecting = TcpStream::connect(("127.0.0.1", neon.https_port()));
    let stream = bounded(connecting).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut config = tls(neon.ca_path());
    config.alpn_protocols = protocols
        .iter()
        .map(|name| name.as_bytes().into())
        .collect();
    let connector = TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from(neon.host()).unwrap();
    bounded(connector.connect(name, stream)).await.unwrap()
}

/// The key of RFC 6455's example, and its answer.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub(crate) const ACCEPTED: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Returns a request for a WebSocket.
pub(crate) fn request(host: &str, path: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    )
    .into_bytes()
}

/// Returns a frame of a client, masked.
pub(crate) fn frame(opcode: u8, is_final: bool, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![opcode | if is_final { 0x80 } else { 0 }];
    match payload.len() {
        length @ ..126 => frame.push(0x80 | length as u8),
        length @ ..0x1_0000 => {
            frame.push(0x80 | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(a, b)| a ^ b));
    frame
}

/// Returns a binary message in one frame.
pub(crate) fn binary(payload: &[u8]) -> Vec<u8> {
    frame(opcode::BINARY, true, payload)
}

/// A frame of the server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) opcode: u8,
    pub(crate) is_final: bool,
    pub(crate) payload: Vec<u8>,
}

pub(crate) async fn read_frame(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Frame> {
    let first = stream.read_u8().await?;
    assert_eq!(first & 0x70, 0, "no extension was agreed");
    let length = match stream.read_u8().await? {
        126 => u64::from(stream.read_u16().await?),
        127 => stream.read_u64().await?,
        length @ ..126 => u64::from(length),
        _ => panic!("a server does not mask"),
    };
    let mut payload = vec![0; length as usize];
    stream.read_exact(&mut payload).await?;
    Ok(Frame {
        opcode: first & 0xf,
        is_final: first & 0x80 != 0,
        payload,
    })
}

/// Reads the head of an answer: its status and its header lines in small letters.
pub(crate) async fn head(stream: &mut (impl AsyncRead + Unpin)) -> (u16, String) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(bounded(stream.read_u8()).await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_ascii_lowercase())
}

/// Opens a WebSocket to a host.
pub(crate) async fn open(neon: &NeonSim, host: &str) -> Tls {
    let mut stream = https(neon, &["http/1.1"]).await;
    stream.write_all(&request(host, "/v2")).await.unwrap();
    let (status, head) = head(&mut stream).await;
    assert_eq!(status, 101, "{head}");
    let accepted = format!("sec-websocket-accept: {}", ACCEPTED.to_ascii_lowercase());
    assert!(head.contains(&accepted), "{head}");
    stream
}

/// Sends bytes in a message, and returns those of the next frame.
pub(crate) async fn ask(stream: &mut Tls, bytes: &[u8]) -> Vec<u8> {
    stream.write_all(&binary(bytes)).await.unwrap();
    stream.flush().await.unwrap();
    let frame = bounded(read_frame(stream)).await.unwrap();
    assert_eq!((frame.opcode, frame.is_final), (opcode::BINARY, true));
    frame.payload
}

/// Carries bytes as messages; only the ends of the stream are told, not how it ends.
pub(crate) fn tunnel(stream: impl AsyncRead + AsyncWrite + Send + 'static) -> DuplexStream {
    let (ours, theirs) = duplex(64 * 1024);
    let (mut from_server, mut to_server) = tokio::io::split(stream);
    let (mut from_client, mut to_client) = tokio::io::split(theirs);
    tokio::spawn(async move {
        let mut down = tokio::spawn(async move {
            while let Ok(frame) = read_frame(&mut from_server).await {
                if frame.opcode == opcode::CLOSE
                    || to_client.write_all(&frame.payload).await.is_err()
                {
                    break;
                }
            }
        });
        let mut buffer = vec![0; 16 * 1024];
        loop {
            tokio::select! {
                _ = &mut down => break,
                read = from_client.read(&mut buffer) => match read {
                    Ok(length @ 1..) => {
                        let sent = to_server.write_all(&binary(&buffer[..length])).await;
                        if sent.is_err() || to_server.flush().await.is_err() {
                            break;
                        }
                    }
                    _ => break,
                },
            }
        }
        down.abort();
    });
    ours
}

/// Opens a session of `neondb_owner` in a WebSocket.
pub(crate) async fn try_connect(neon: &NeonSim, host: &str) -> Result<(Client, Driver), Error> {
    let stream = tunnel(open(neon, host).await);
    let mut config = Config::new();
    config
        .user("neondb_owner")
        .dbname("neondb")
        .password(neon.password());
    let (client, connection) = bounded(config.connect_raw(stream, NoTls)).await?;
    Ok((client, tokio::spawn(connection)))
}

pub(crate) async fn connect(neon: &NeonSim, host: &str) -> (Client, Driver) {
    try_connect(neon, host).await.unwrap()
}

/// The request for a password as it is.
pub(crate) const CLEARTEXT: [u8; 9] = [tag::AUTHENTICATION, 0, 0, 0, 8, 0, 0, 0, 3];

/// "Going away", without a reason.
pub(crate) const AWAY: [u8; 2] = 1001_u16.to_be_bytes();

pub(crate) fn owner() -> Vec<u8> {
    startup(0, &[("user", "neondb_owner"), ("database", "neondb")])
}

pub(crate) fn password(neon: &NeonSim) -> Vec<u8> {
    message(tag::PASSWORD, format!("{}\0", neon.password()).as_bytes())
}

pub(crate) fn query(sql: &str) -> Vec<u8> {
    message(tag::QUERY, format!("{sql}\0").as_bytes())
}

/// Reads messages until the server is ready once more.
pub(crate) async fn until_ready(stream: &mut Tls) -> Vec<u8> {
    let mut said = Vec::new();
    while !said.ends_with(b"Z\0\0\0\x05I") {
        let frame = bounded(read_frame(stream)).await.unwrap();
        assert_eq!(frame.opcode, opcode::BINARY);
        said.extend(frame.payload);
    }
    said
}

/// Opens a session of `neondb_owner`, up to its first ReadyForQuery.
pub(crate) async fn log_in(neon: &NeonSim, host: &str) -> Tls {
    let mut client = open(neon, host).await;
    let login = [owner(), password(neon)].concat();
    client.write_all(&binary(&login)).await.unwrap();
    until_ready(&mut client).await;
    client
}
