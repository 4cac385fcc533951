//! Splits a byte stream into Postgres messages without holding on to them.

use std::ops::ControlFlow;

/// The start of a message's body is kept up to here: enough for an error's severity, code and text.
pub(crate) const KEPT: usize = 1024;

/// Follows the framing of one direction of a connection, however the bytes are cut.
#[derive(Debug)]
pub(crate) struct FrameScanner {
    header: Header,
    /// Bytes of the current body that are still to come.
    remaining: usize,
    tag: u8,
    body: Vec<u8>,
    wanted: fn(u8) -> bool,
}

/// Only the client's very first message has no tag.
#[derive(Debug)]
enum Header {
    Untagged {
        bytes: [u8; 4],
        len: usize,
    },
    Tagged {
        bytes: [u8; 5],
        len: usize,
    },
    Body,
    /// A length that no message can have: what follows cannot be followed.
    Lost,
}

const TAGGED: Header = Header::Tagged {
    bytes: [0; 5],
    len: 0,
};

impl FrameScanner {
    /// What the server sends; keeps the start of the bodies that `wanted` names by their tag.
    pub(crate) fn backend(wanted: fn(u8) -> bool) -> Self {
        Self::new(TAGGED, wanted)
    }

    /// What the client sends, from its startup message on; as [`backend`](Self::backend).
    pub(crate) fn frontend(wanted: fn(u8) -> bool) -> Self {
        let header = Header::Untagged {
            bytes: [0; 4],
            len: 0,
        };
        Self::new(header, wanted)
    }

    fn new(header: Header, wanted: fn(u8) -> bool) -> Self {
        Self {
            header,
            remaining: 0,
            tag: 0,
            body: Vec::new(),
            wanted,
        }
    }

    /// Takes the next bytes and reports each message that they complete: its tag (0 for the startup
    /// message) and, where wanted, the start of its body. Ends early where `on_message` says so, and
    /// returns how many bytes that left.
    pub(crate) fn advance(
        &mut self,
        mut bytes: &[u8],
        mut on_message: impl FnMut(u8, &[u8]) -> ControlFlow<()>,
    ) -> usize {
        loop {
            let announced = match &mut self.header {
                Header::Lost => return 0,
                Header::Untagged { bytes: head, len } => {
                    fill(head, len, &mut bytes).then(|| (0, u32::from_be_bytes(*head)))
                }
                Header::Tagged { bytes: head, len } => fill(head, len, &mut bytes).then(|| {
                    let [tag, a, b, c, d] = *head;
                    (tag, u32::from_be_bytes([a, b, c, d]))
                }),
                Header::Body => {
                    let (now, later) = bytes.split_at(self.remaining.min(bytes.len()));
                    self.remaining -= now.len();
                    if (self.wanted)(self.tag) {
                        let room = KEPT.saturating_sub(self.body.len());
                        self.body.extend_from_slice(&now[..room.min(now.len())]);
                    }
                    bytes = later;
                    if self.remaining > 0 {
                        return 0;
                    }
                    let flow = on_message(self.tag, &self.body);
                    self.body.clear();
                    self.header = TAGGED;
                    if flow.is_break() {
                        return bytes.len();
                    }
                    continue;
                }
            };
            let Some((tag, length)) = announced else {
                return 0;
            };
            // The length counts itself.
            self.header = match usize::try_from(length).ok().and_then(|n| n.checked_sub(4)) {
                Some(remaining) if length <= i32::MAX as u32 => {
                    self.remaining = remaining;
                    self.tag = tag;
                    Header::Body
                }
                _ => Header::Lost,
            };
        }
    }
}

/// Moves bytes into `head` until it is full; says whether it is.
fn fill<const N: usize>(head: &mut [u8; N], len: &mut usize, bytes: &mut &[u8]) -> bool {
    let (now, later) = bytes.split_at((N - *len).min(bytes.len()));
    head[*len..*len + now.len()].copy_from_slice(now);
    *len += now.len();
    *bytes = later;
    *len == N
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![tag];
        bytes.extend((body.len() as u32 + 4).to_be_bytes());
        bytes.extend(body);
        bytes
    }

    fn seen(frames: &mut FrameScanner, chunks: &[&[u8]]) -> Vec<(u8, Vec<u8>)> {
        let mut seen = Vec::new();
        for chunk in chunks {
            let left = frames.advance(chunk, |tag, body| {
                seen.push((tag, body.to_vec()));
                ControlFlow::Continue(())
            });
            assert_eq!(left, 0);
        }
        seen
    }

    #[test]
    fn any_cut_gives_the_same_messages() {
        let mut stream = message(b'S', b"TimeZone\0UTC\0");
        stream.extend(message(b'1', b""));
        stream.extend(message(b'E', b"SFATAL\0C57P01\0\0"));
        stream.extend(message(b'Z', b"T"));
        let expected = vec![
            (b'S', vec![]),
            (b'1', vec![]),
            (b'E', b"SFATAL\0C57P01\0\0".to_vec()),
            (b'Z', b"T".to_vec()),
        ];
        let wanted = |tag| matches!(tag, b'E' | b'Z');
        for size in 1..=stream.len() {
            let chunks: Vec<_> = stream.chunks(size).collect();
            assert_eq!(seen(&mut FrameScanner::backend(wanted), &chunks), expected);
        }
        for cut in 0..=stream.len() {
            let (a, b) = stream.split_at(cut);
            assert_eq!(seen(&mut FrameScanner::backend(wanted), &[a, b]), expected);
        }
    }

    #[test]
    fn the_startup_message_has_no_tag() {
        let mut stream = message(0, b"\0\x03\0\0user\0u\0\0")[1..].to_vec();
        stream.extend(message(b'Q', b"BEGIN\0"));
        stream.extend(message(b'S', b""));
        for size in 1..=stream.len() {
            let chunks: Vec<_> = stream.chunks(size).collect();
            let tags: Vec<_> = seen(&mut FrameScanner::frontend(|_| false), &chunks)
                .into_iter()
                .map(|(tag, _)| tag)
                .collect();
            assert_eq!(tags, [0, b'Q', b'S']);
        }
    }

    #[test]
    fn a_huge_body_is_not_kept() {
        let mut frames = FrameScanner::backend(|_| true);
        let huge = message(b'E', &[7; 100_000]);
        let seen = seen(&mut frames, &huge.chunks(4096).collect::<Vec<_>>());
        assert_eq!(seen, [(b'E', vec![7; KEPT])]);
        assert!(frames.body.capacity() <= 2 * KEPT);
    }

    #[test]
    fn it_can_stop_behind_any_message() {
        let mut stream = message(b'S', b"TimeZone\0UTC\0");
        stream.extend(message(b'Z', b"I"));
        let behind = message(b'E', b"SFATAL\0\0");
        stream.extend(&behind);
        let mut frames = FrameScanner::backend(|_| true);
        let left = frames.advance(&stream, |tag, _| match tag {
            b'Z' => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        });
        assert_eq!(left, behind.len());
        assert_eq!(seen(&mut frames, &[&behind]).len(), 1);
    }

    #[test]
    fn a_hostile_length_ends_the_following_and_nothing_else() {
        for length in [0_u32, 3, 0x8000_0000, u32::MAX] {
            let mut stream = vec![b'D'];
            stream.extend(length.to_be_bytes());
            stream.extend(message(b'Z', b"I"));
            assert_eq!(seen(&mut FrameScanner::backend(|_| true), &[&stream]), []);
        }
    }
}
