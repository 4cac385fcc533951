//! [`DrainStream`]: a session that nobody uses any more, while its server is still at work.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::Stream;

use super::channel::Channel;
use super::input::Input;
use crate::protocol::{Next, tag};

/// Keeps the stream open, and reads what nobody wants: an item for each answer but the last, whose place
/// the end takes.
#[derive(Debug)]
pub(crate) struct DrainStream {
    pub(super) channel: Channel,
    pub(super) input: Input,
    /// The requests that have left as a whole and are not answered.
    pub(super) owed: usize,
}

impl Stream for DrainStream {
    type Item = ();

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<()>> {
        let this = &mut *self;
        while this.owed > 0 {
            let missing = match this.input.next() {
                Ok(Next::Message(message)) => match message.tag {
                    tag::READY_FOR_QUERY if this.owed > 1 => {
                        this.owed -= 1;
                        return Poll::Ready(Some(()));
                    }
                    // It may also wait for data, which only the end of the stream ends.
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
