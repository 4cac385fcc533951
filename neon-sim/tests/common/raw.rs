//! The protocol byte by byte, for what no client library does or shows.

use std::io;
use std::sync::Arc;

use neon_sim::NeonSim;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, duplex};
use tokio::net::TcpStream;
use tokio_postgres::{Client, NoTls};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{bounded, tls};

pub(crate) async fn tcp(neon: &NeonSim) -> TcpStream {
    let connecting = TcpStream::connect(("127.0.0.1", neon.port()));
    bounded(connecting).await.unwrap()
}

/// The tags of messages, by name.
pub(crate) mod tag {
    pub(crate) const AUTHENTICATION: u8 = b'R';
    pub(crate) const ERROR_RESPONSE: u8 = b'E';
    pub(crate) const NEGOTIATE_PROTOCOL_VERSION: u8 = b'v';
    pub(crate) const PASSWORD: u8 = b'p';
    pub(crate) const QUERY: u8 = b'Q';
    pub(crate) const READY_FOR_QUERY: u8 = b'Z';
    /// The answers to a request for encryption.
    pub(crate) const ENCRYPTED: u8 = b'S';
    pub(crate) const NOT_ENCRYPTED: u8 = b'N';
}

/// Starts TLS without an SSLRequest, with or without a server's name.
pub(crate) async fn direct_tls(
    neon: &NeonSim,
    stream: TcpStream,
    name: Option<String>,
) -> TlsStream<TcpStream> {
    let mut config = tls(neon.ca_path());
    config.enable_sni = name.is_some();
    let name = ServerName::try_from(name.unwrap_or_else(|| neon.host())).unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    bounded(connector.connect(name, stream)).await.unwrap()
}

/// Returns a startup packet of protocol 3.`minor`.
pub(crate) fn startup(minor: u8, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = vec![0, 3, 0, minor];
    for (name, value) in parameters {
        body.extend(format!("{name}\0{value}\0").bytes());
    }
    body.push(0);
    [&(body.len() as u32 + 4).to_be_bytes()[..], &body].concat()
}

pub(crate) fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    [&[tag][..], &(body.len() as u32 + 4).to_be_bytes(), body].concat()
}

/// Sends bytes, and reads the next message.
pub(crate) async fn ask(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    bytes: &[u8],
) -> (u8, Vec<u8>) {
    bounded(stream.write_all(bytes)).await.unwrap();
    bounded(stream.flush()).await.unwrap();
    read(stream).await
}

/// Reads the next message.
pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> (u8, Vec<u8>) {
    let reading = async {
        let tag = stream.read_u8().await?;
        let length = stream.read_u32().await?;
        let mut body = vec![0; length as usize - 4];
        stream.read_exact(&mut body).await?;
        io::Result::Ok((tag, body))
    };
    bounded(reading).await.unwrap()
}

/// Opens a session of `neondb_owner`, at the endpoint that the password names, up to its first ReadyForQuery.
pub(crate) async fn log_in(neon: &NeonSim, endpoint: &str) -> TlsStream<TcpStream> {
    let mut stream = direct_tls(neon, tcp(neon).await, None).await;
    let packet = startup(0, &[("user", "neondb_owner"), ("database", "neondb")]);
    assert_eq!(
        ask(&mut stream, &packet).await,
        (tag::AUTHENTICATION, vec![0, 0, 0, 3])
    );
    let password = format!("endpoint={endpoint};{}\0", neon.password());
    let mut answer = ask(&mut stream, &message(tag::PASSWORD, password.as_bytes())).await;
    while answer.0 != tag::READY_FOR_QUERY {
        assert_ne!(answer.0, tag::ERROR_RESPONSE, "{:?}", fields(&answer.1));
        answer = read(&mut stream).await;
    }
    stream
}

/// Returns the CancelRequest for this client's statement; the client must not insist on TLS.
pub(crate) async fn cancel_request(client: &Client) -> Vec<u8> {
    let (ours, mut theirs) = duplex(64);
    let token = client.cancel_token();
    bounded(token.cancel_query_raw(ours, NoTls)).await.unwrap();
    let mut request = Vec::new();
    theirs.read_to_end(&mut request).await.unwrap();
    request
}

/// How a stream under TLS ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum End {
    BareFin,
    CloseNotify,
}

/// Reads to the end.
pub(crate) async fn until_closed(stream: &mut (impl AsyncRead + Unpin)) -> (Vec<u8>, End) {
    let mut read = Vec::new();
    let end = match bounded(stream.read_to_end(&mut read)).await {
        Ok(_) => End::CloseNotify,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => End::BareFin,
        Err(error) => panic!("the stream ends with {error}"),
    };
    (read, end)
}

/// Returns the fields of each ErrorResponse among these messages.
pub(crate) fn errors(mut messages: &[u8]) -> Vec<Vec<(char, String)>> {
    let mut errors = Vec::new();
    while let Some((head, rest)) = messages.split_first_chunk::<5>() {
        let [kind, length @ ..] = *head;
        let (body, rest) = rest.split_at(u32::from_be_bytes(length) as usize - 4);
        if kind == tag::ERROR_RESPONSE {
            errors.push(fields(body));
        }
        messages = rest;
    }
    errors
}

pub(crate) fn fields(body: &[u8]) -> Vec<(char, String)> {
    body.split(|byte| *byte == 0)
        .filter_map(|field| field.split_first())
        .map(|(name, value)| (char::from(*name), String::from_utf8_lossy(value).into()))
        .collect()
}

/// Returns all the fields of an error of the proxy's own.
pub(crate) fn own_error(message: &str) -> Vec<(char, String)> {
    [('S', "ERROR"), ('C', "XX000"), ('M', message)]
        .map(|(name, value)| (name, value.to_owned()))
        .to_vec()
}
