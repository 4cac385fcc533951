//! [`Message`]: one message from the server, and what is in it.

use bytes::{Buf, Bytes, BytesMut};

use super::tag;

/// A complete message. The body shares the memory that it was read into.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) tag: u8,
    pub(crate) body: Bytes,
}

/// What the bytes read so far contain.
#[derive(Debug)]
pub(crate) enum Next {
    Message(Message),
    /// A part of a message, which lacks so many bytes.
    Missing(usize),
}

/// The server has sent bytes that are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

impl Message {
    /// Returns the length of the message in bytes, with its header.
    pub(crate) fn len(&self) -> usize {
        HEADER + self.body.len()
    }

    /// Returns a ReadyForQuery outside a transaction.
    pub(crate) fn ready() -> Self {
        Self {
            tag: tag::READY_FOR_QUERY,
            body: Bytes::from_static(b"I"),
        }
    }

    /// Takes the next message from the front of `input`, if it is complete.
    pub(crate) fn take(input: &mut BytesMut) -> Result<Next, Malformed> {
        let Some(head) = input.first_chunk::<HEADER>() else {
            return Ok(Next::Missing(HEADER - input.len()));
        };
        let [tag, a, b, c, d] = *head;
        let length = i32::from_be_bytes([a, b, c, d]);
        // The length counts itself, but not the tag.
        let length = usize::try_from(length).map_err(|_| Malformed)?;
        let whole = length.checked_add(1).ok_or(Malformed)?;
        if whole < HEADER {
            return Err(Malformed);
        }
        if input.len() < whole {
            return Ok(Next::Missing(whole - input.len()));
        }
        if whole == HEADER {
            // Each body that shares the memory counts as a user of it.
            input.advance(HEADER);
            return Ok(Next::Message(Self {
                tag,
                body: Bytes::new(),
            }));
        }
        let mut body = input.split_to(whole).freeze();
        body.advance(HEADER);
        Ok(Next::Message(Self { tag, body }))
    }
}

const HEADER: usize = 5;

/// Reads a body from its front.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (now, later) = self.0.split_at_checked(len).ok_or(Malformed)?;
        self.0 = later;
        Ok(now)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        let (now, later) = self.0.split_first_chunk().ok_or(Malformed)?;
        self.0 = later;
        Ok(u16::from_be_bytes(*now))
    }

    pub(crate) fn i32(&mut self) -> Result<i32, Malformed> {
        let (now, later) = self.0.split_first_chunk().ok_or(Malformed)?;
        self.0 = later;
        Ok(i32::from_be_bytes(*now))
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, Malformed> {
        let end = self.0.iter().position(|byte| *byte == 0).ok_or(Malformed)?;
        let text = std::str::from_utf8(&self.0[..end]).map_err(|_| Malformed)?;
        self.0 = &self.0[end + 1..];
        Ok(text)
    }
}

/// Returns how many rows a CommandComplete reports, or 0.
pub(crate) fn affected(body: &[u8]) -> usize {
    let count = command_tag(body).rsplit(' ').next().map(str::parse);
    count.and_then(Result::ok).unwrap_or(0)
}

/// Returns whether `tag` is the command tag of a CommandComplete.
pub(crate) fn is_command(body: &[u8], tag: &str) -> bool {
    let rest = body.strip_prefix(tag.as_bytes());
    rest.is_some_and(|rest| rest.first() == Some(&0))
}

/// Returns the command tag of a CommandComplete.
pub(crate) fn command_tag(body: &[u8]) -> &str {
    Fields(body).text().unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_lengths_are_refused_and_reserve_nothing() {
        for length in [0_u32, 3, 0x8000_0000, u32::MAX] {
            let mut input = BytesMut::from(&b"D"[..]);
            input.extend_from_slice(&length.to_be_bytes());
            assert_eq!(Message::take(&mut input).unwrap_err(), Malformed);
        }
        let mut input = BytesMut::from(&b"D\x7f\xff\xff\xff"[..]);
        assert!(matches!(Message::take(&mut input), Ok(Next::Missing(_))));
        assert!(input.capacity() < 1024);
    }

    #[test]
    fn any_cut_gives_the_same_messages() {
        let stream = b"Z\0\0\0\x05ID\0\0\0\x06\0\0C\0\0\0\x0dSELECT 0\0";
        for size in 1..=stream.len() {
            let mut input = BytesMut::new();
            let mut seen = Vec::new();
            for chunk in stream.chunks(size) {
                input.extend_from_slice(chunk);
                while let Next::Message(message) = Message::take(&mut input).unwrap() {
                    seen.push((message.tag, message.body.to_vec()));
                }
            }
            let expected = [
                (tag::READY_FOR_QUERY, b"I".to_vec()),
                (tag::DATA_ROW, b"\0\0".to_vec()),
                (tag::COMMAND_COMPLETE, b"SELECT 0\0".to_vec()),
            ];
            assert_eq!(seen, expected);
            assert!(input.is_empty());
        }
    }

    #[test]
    fn command_tags_are_counted() {
        assert_eq!(affected(b"INSERT 0 5\0"), 5);
        assert_eq!(affected(b"UPDATE 12\0"), 12);
        assert_eq!(affected(b"CREATE TABLE\0"), 0);
        assert_eq!(affected(b""), 0);
    }
}
