//! Reads bytes as what a server says on port 443, and panics on a defect.

use bytes::BytesMut;

use super::http_head::{HttpHead, NotHttp};
use super::websocket;

/// Reads bytes as WebSocket frames, which arrive in pieces of at most `piece` bytes.
pub(crate) fn frames(stream: &[u8], piece: usize) {
    websocket::fuzzing::frames(stream, piece);
}

/// Reads bytes as the head of an answer, and as the answer to a request for a WebSocket.
pub(crate) fn heads(stream: &[u8], piece: usize) {
    let whole = head(stream, stream.len().max(1));
    let cut = head(stream, piece);
    // A head that is complete at once may be longer than one that is waited for.
    if stream.len() < LONG {
        assert_eq!(whole, cut, "how the stream is cut makes a difference");
    }
    if let Ok(Some((head, body))) = &cut {
        assert!(body.len() <= stream.len());
        let words = head.words(body);
        assert!(words.len() <= stream.len() + MOST_ADDED, "{}", words.len());
    }
    websocket::fuzzing::answer(stream);
}

type Taken = Result<Option<(HttpHead, Vec<u8>)>, NotHttp>;

/// Takes the head of a stream off, and returns all that is behind it.
fn head(stream: &[u8], piece: usize) -> Taken {
    let (mut input, mut rest) = (BytesMut::new(), stream);
    loop {
        if let Some(head) = HttpHead::take(&mut input)? {
            return Ok(Some((head, [&input, rest].concat())));
        }
        if rest.is_empty() {
            return Ok(None);
        }
        let (now, later) = rest.split_at(piece.min(rest.len()));
        input.extend_from_slice(now);
        rest = later;
    }
}

const LONG: usize = 16 * 1024;
/// A status is shown as a number, and what is not UTF-8 as a sign of three bytes.
const MOST_ADDED: usize = 1024;
