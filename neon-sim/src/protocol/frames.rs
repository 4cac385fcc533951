//! Follows the messages in a stream of bytes without keeping any.

/// The state of one direction of a connection.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    head: [u8; 6],
    have: usize,
    /// How many bytes of the current message are still to come and ignored.
    skip: usize,
}

impl Frames {
    /// Reads more bytes and reports the tag and the first byte of each message, as soon as both are there.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], mut seen: impl FnMut(u8, Option<u8>)) {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len());
                self.skip -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            self.head[self.have] = bytes[0];
            self.have += 1;
            bytes = &bytes[1..];
            if self.have < 5 {
                continue;
            }
            let [tag, a, b, c, d, first] = self.head;
            let body = (u32::from_be_bytes([a, b, c, d]) as usize).saturating_sub(4);
            if body == 0 {
                self.have = 0;
                seen(tag, None);
            } else if self.have == 6 {
                self.have = 0;
                self.skip = body - 1;
                seen(tag, Some(first));
            }
        }
    }

    /// Returns whether the last message is complete.
    pub(crate) fn between_messages(&self) -> bool {
        self.have == 0 && self.skip == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::message::message;
    use crate::protocol::tag::{backend, frontend};

    #[test]
    fn messages_are_seen_however_the_bytes_are_cut() {
        let stream = [
            message(frontend::PARSE, b"name\0SELECT 1\0\0\0"),
            message(frontend::SYNC, b""),
            message(backend::READY_FOR_QUERY, b"T"),
        ]
        .concat();
        let expected = [
            (frontend::PARSE, Some(b'n')),
            (frontend::SYNC, None),
            (backend::READY_FOR_QUERY, Some(b'T')),
        ];
        for size in 1..=stream.len() {
            let mut frames = Frames::default();
            let mut seen = Vec::new();
            for chunk in stream.chunks(size) {
                frames.feed(chunk, |tag, first| seen.push((tag, first)));
            }
            assert_eq!(seen, expected, "in pieces of {size}");
            assert!(frames.between_messages());
        }
    }
}
