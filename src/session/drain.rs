//! [`DrainStream`]: the stream of a session that has ended on this side, while its server still runs a statement.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::Stream;

use super::channel::Channel;
use super::input::Input;
use crate::protocol::{Next, tag};

/// Keeps the stream open, and discards what the server sends. Yields an item for each response but the last, and ends
/// with the last.
#[derive(Debug)]
pub(crate) struct DrainStream {
    pub(super) channel: Channel,
    pub(super) input: Input,
    /// How many requests were written completely and are not answered.
    pub(super) outstanding: usize,
}

impl Stream for DrainStream {
    type Item = ();

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<()>> {
        let this = &mut *self;
        while this.outstanding > 0 {
            let missing = match this.input.next() {
                Ok(Next::Message(message)) => match message.tag {
                    tag::READY_FOR_QUERY if this.outstanding > 1 => {
                        this.outstanding -= 1;
                        return Poll::Ready(Some(()));
                    }
                    // A server that waits for data of a COPY stops only at the end of the stream.
                    tag::READY_FOR_QUERY | tag::COPY_IN_RESPONSE | tag::COPY_BOTH_RESPONSE => break,
                    _ => continue,
                },
                Ok(Next::Missing(missing)) => missing,
                Err(_) => break,
            };
            let transport = Pin::new(&mut this.channel.transport);
            match ready!(this.input.poll_fill(cx, transport, missing)) {
                Ok(1..) => {}
                Ok(0) | Err(_) => break,
            }
        }
        Poll::Ready(None)
    }
}
