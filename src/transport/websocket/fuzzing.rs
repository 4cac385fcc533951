//! Reads bytes as a server's frames, and panics if how they are cut makes a difference.

use bytes::BytesMut;
use tokio::io::ReadBuf;

use super::frames::{FrameReader, Stop};
use super::upgrade::Upgrade;

/// What a stream of frames holds.
#[derive(Debug, Default, PartialEq, Eq)]
struct Held {
    payload: Vec<u8>,
    pings: Vec<Vec<u8>>,
    close: Option<Option<(u16, String)>>,
    error: Option<String>,
}

pub(in super::super) fn frames(stream: &[u8], piece: usize) {
    let whole = read(stream, stream.len().max(1), 64 * 1024);
    for room in [1, piece, 4096] {
        let cut = read(stream, piece, room);
        assert_eq!(cut, whole, "how the stream is cut makes a difference");
    }
    assert!(whole.payload.len() <= stream.len());
}

/// Reads frames that arrive in pieces, with so much room for payload at a time.
fn read(stream: &[u8], piece: usize, room: usize) -> Held {
    let (mut reader, mut input) = (FrameReader::default(), BytesMut::new());
    let (mut held, mut rest) = (Held::default(), stream);
    let mut bytes = vec![0; room];
    loop {
        let mut payload = ReadBuf::new(&mut bytes);
        let stop = reader.read(&mut input, &mut payload);
        held.payload.extend_from_slice(payload.filled());
        match stop {
            Ok(Stop::Full) => {}
            Ok(Stop::Ping(body)) => held.pings.push(body.to_vec()),
            Ok(Stop::Close(reason)) => {
                held.close = Some(reason);
                return held;
            }
            Ok(Stop::Starved) if payload.remaining() == 0 => {}
            Ok(Stop::Starved) => {
                assert!(input.len() <= MOST_KEPT, "{} bytes are kept", input.len());
                if rest.is_empty() {
                    return held;
                }
                let (now, later) = rest.split_at(piece.min(rest.len()));
                input.extend_from_slice(now);
                rest = later;
            }
            Err(error) => {
                held.error = Some(error.to_string());
                return held;
            }
        }
    }
}

/// Reads bytes as the answer to a request for a WebSocket.
pub(in super::super) fn answer(stream: &[u8]) {
    let upgrade = Upgrade::request("localhost", &mut BytesMut::new());
    let mut input = BytesMut::from(stream);
    if upgrade.take_answer(&mut input) == Ok(true) {
        panic!("the answer to another request is taken");
    }
}

/// A header and a control frame: all that is kept until it is complete.
const MOST_KEPT: usize = 14 + 125;
