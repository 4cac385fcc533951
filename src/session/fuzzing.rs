//! Reads bytes as a server's messages, and panics if two ways to do so disagree.

use std::ops::ControlFlow;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;

use super::input::{CHUNK, Input};
use super::status::SessionStatus;
use crate::protocol::{
    Columns, Fields, FrameScanner, MAX_PREFIX, Message, Next, ServerError, affected, tag,
};

/// Returns the messages in `stream`, which arrives in pieces of at most `piece` bytes.
pub(crate) fn messages(stream: &[u8], piece: usize) -> Vec<Message> {
    let (messages, malformed) = read(stream, piece);
    assert_eq!(
        (tags_and_bodies(&messages, usize::MAX), malformed),
        {
            let (whole, malformed) = read(stream, usize::MAX);
            (tags_and_bodies(&whole, usize::MAX), malformed)
        },
        "how the stream is cut makes a difference"
    );
    assert_eq!(
        follow(stream, piece),
        tags_and_bodies(&messages, MAX_PREFIX),
        "the scanner and the reader disagree"
    );
    let status = SessionStatus::new();
    for message in &messages {
        interpret(message, &status);
    }
    messages
}

/// Reads as a handle does. Returns whether the stream ended with a malformed message.
fn read(stream: &[u8], piece: usize) -> (Vec<Message>, bool) {
    let mut input = Input::new(BytesMut::new());
    let (mut messages, mut rest, mut taken) = (Vec::new(), stream, 0);
    loop {
        let missing = match input.next() {
            Ok(Next::Message(message)) => {
                taken += 5 + message.body.len();
                messages.push(message);
                continue;
            }
            Ok(Next::Missing(missing)) => missing,
            Err(_) => return (messages, true),
        };
        let mut now = &rest[..piece.min(rest.len())];
        let before = now.len();
        let mut cx = Context::from_waker(Waker::noop());
        match input.poll_fill(&mut cx, Pin::new(&mut now), missing) {
            Poll::Ready(Ok(0)) => return (messages, false),
            Poll::Ready(Ok(_)) => rest = &rest[before - now.len()..],
            Poll::Ready(Err(_)) | Poll::Pending => unreachable!("bytes in memory are there"),
        }
        let arrived = stream.len() - rest.len() - taken;
        assert!(
            input.capacity() <= 4 * (CHUNK + arrived),
            "{} bytes are held for {arrived}",
            input.capacity()
        );
    }
}

/// Scans as a tap does.
fn follow(stream: &[u8], piece: usize) -> Vec<(u8, Vec<u8>)> {
    let mut frames = FrameScanner::backend(|_| true);
    let mut seen = Vec::new();
    for piece in stream.chunks(piece) {
        frames.advance(piece, |tag, body| {
            seen.push((tag, body.to_vec()));
            ControlFlow::Continue(())
        });
    }
    seen
}

fn tags_and_bodies(messages: &[Message], kept: usize) -> Vec<(u8, Vec<u8>)> {
    let start = |message: &Message| message.body[..kept.min(message.body.len())].to_vec();
    messages.iter().map(|m| (m.tag, start(m))).collect()
}

/// Reads a body in every way, whatever its tag.
fn interpret(message: &Message, status: &SessionStatus) {
    let body = &*message.body;
    let _ = ServerError::parse(body);
    let _ = Columns::read(body);
    let _ = affected(body);
    let mut fields = Fields(body);
    while fields.text().is_ok() {}
    for tag in [
        message.tag,
        tag::ERROR_RESPONSE,
        tag::BACKEND_KEY_DATA,
        tag::PARAMETER_STATUS,
        tag::READY_FOR_QUERY,
    ] {
        status.received(tag, body);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// A message as a server writes it.
    fn message() -> impl Strategy<Value = (u8, Vec<u8>)> {
        let tag = prop::sample::select(&b"123ACDEGHIKNRSTWZcdnst"[..]);
        (tag, vec(any::<u8>(), 0..200))
    }

    fn written(messages: &[(u8, Vec<u8>)]) -> Vec<u8> {
        let mut stream = Vec::new();
        for (tag, body) in messages {
            stream.push(*tag);
            stream.extend((body.len() as u32 + 4).to_be_bytes());
            stream.extend(body);
        }
        stream
    }

    proptest! {
        #[test]
        fn messages_are_read_as_written_however_they_are_cut(
            sent in vec(message(), 0..20),
            piece in 1_usize..300,
        ) {
            let read = messages(&written(&sent), piece);
            prop_assert_eq!(tags_and_bodies(&read, usize::MAX), sent);
        }

        #[test]
        fn arbitrary_bytes_do_no_harm(stream in vec(any::<u8>(), 0..2000), piece in 1_usize..300) {
            messages(&stream, piece);
        }

        #[test]
        fn a_length_is_only_a_claim(
            sent in vec(message(), 0..5),
            tag in any::<u8>(),
            length in any::<u32>(),
            behind in vec(any::<u8>(), 0..20_000),
            piece in 1_usize..5000,
        ) {
            let mut stream = written(&sent);
            stream.push(tag);
            stream.extend(length.to_be_bytes());
            stream.extend(behind);
            let read = messages(&stream, piece);
            prop_assert!(read.len() >= sent.len());
        }

        #[test]
        fn bodies_that_lie_do_no_harm(count in any::<u16>(), fields in vec(any::<u8>(), 0..200)) {
            let mut body = count.to_be_bytes().to_vec();
            body.extend(fields);
            messages(&written(&[(tag::ROW_DESCRIPTION, body.clone()), (tag::DATA_ROW, body)]), 7);
        }
    }
}
