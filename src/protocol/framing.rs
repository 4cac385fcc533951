//! [`FrameScanner`]: finds the messages in a byte stream without buffering them.

use std::ops::ControlFlow;

/// How many bytes of a body are kept: enough for the severity, code and text of an error.
pub(crate) const MAX_PREFIX: usize = 1024;

/// Follows the messages in one direction of a stream, however the bytes are cut.
#[derive(Debug)]
pub(crate) struct FrameScanner {
    header: Header,
    /// How many bytes of the current body are still to come.
    remaining: usize,
    tag: u8,
    body: Vec<u8>,
    /// Returns whether the body of a message is wanted, by its tag.
    wanted: fn(u8) -> bool,
}

/// What the scanner reads next.
#[derive(Debug)]
enum Header {
    /// The header of the client's startup message, which has no tag.
    Untagged {
        bytes: [u8; 4],
        len: usize,
    },
    Tagged {
        bytes: [u8; 5],
        len: usize,
    },
    Body,
    /// Nothing: a header had a length that no message can have.
    Lost,
}

const TAGGED: Header = Header::Tagged {
    bytes: [0; 5],
    len: 0,
};

impl FrameScanner {
    /// Scans what the server sends. Keeps the start of the bodies whose tags are `wanted`.
    pub(crate) fn backend(wanted: fn(u8) -> bool) -> Self {
        Self::new(TAGGED, wanted)
    }

    /// Scans what the client sends, from its startup message on. Keeps the start of the bodies whose tags are `wanted`.
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

    /// Returns how many bytes the message under way has still to come.
    pub(crate) fn remaining(&self) -> usize {
        self.remaining
    }

    /// Takes the next bytes, and calls `on_message` for each message that they complete, with its tag (0 for the startup
    /// message) and, if wanted, the start of its body. Stops if `on_message` breaks; returns how many bytes are left.
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
                        let room = MAX_PREFIX.saturating_sub(self.body.len());
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

/// Moves bytes into `head`; returns whether it is full.
fn fill<const N: usize>(head: &mut [u8; N], len: &mut usize, bytes: &mut &[u8]) -> bool {
    let (now, later) = bytes.split_at((N - *len).min(bytes.len()));
    head[*len..*len + now.len()].copy_from_slice(now);
    *len += now.len();
    *bytes = later;
    *len == N
}

#[cfg(test)]
mod tests {
    use super::super::tag;
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
        let mut stream = message(tag::PARAMETER_STATUS, b"TimeZone\0UTC\0");
        stream.extend(message(tag::PARSE_COMPLETE, b""));
        stream.extend(message(tag::ERROR_RESPONSE, b"SFATAL\0C57P01\0\0"));
        stream.extend(message(tag::READY_FOR_QUERY, b"T"));
        let expected = vec![
            (tag::PARAMETER_STATUS, vec![]),
            (tag::PARSE_COMPLETE, vec![]),
            (tag::ERROR_RESPONSE, b"SFATAL\0C57P01\0\0".to_vec()),
            (tag::READY_FOR_QUERY, b"T".to_vec()),
        ];
        let wanted = |tag| matches!(tag, tag::ERROR_RESPONSE | tag::READY_FOR_QUERY);
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
        stream.extend(message(tag::frontend::QUERY, b"BEGIN\0"));
        stream.extend(message(tag::frontend::SYNC, b""));
        for size in 1..=stream.len() {
            let chunks: Vec<_> = stream.chunks(size).collect();
            let tags: Vec<_> = seen(&mut FrameScanner::frontend(|_| false), &chunks)
                .into_iter()
                .map(|(tag, _)| tag)
                .collect();
            assert_eq!(
                tags,
                [
                    tag::frontend::STARTUP,
                    tag::frontend::QUERY,
                    tag::frontend::SYNC
                ]
            );
        }
    }

    #[test]
    fn a_huge_body_is_not_kept() {
        let mut frames = FrameScanner::backend(|_| true);
        let huge = message(tag::ERROR_RESPONSE, &[7; 100_000]);
        let seen = seen(&mut frames, &huge.chunks(4096).collect::<Vec<_>>());
        assert_eq!(seen, [(tag::ERROR_RESPONSE, vec![7; MAX_PREFIX])]);
        assert!(frames.body.capacity() <= 2 * MAX_PREFIX);
    }

    #[test]
    fn the_scanner_can_stop_behind_any_message() {
        let mut stream = message(tag::PARAMETER_STATUS, b"TimeZone\0UTC\0");
        stream.extend(message(tag::READY_FOR_QUERY, b"I"));
        let behind = message(tag::ERROR_RESPONSE, b"SFATAL\0\0");
        stream.extend(&behind);
        let mut frames = FrameScanner::backend(|_| true);
        let left = frames.advance(&stream, |tag, _| match tag {
            tag::READY_FOR_QUERY => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        });
        assert_eq!(left, behind.len());
        assert_eq!(seen(&mut frames, &[&behind]).len(), 1);
    }

    #[test]
    fn a_hostile_length_ends_the_scan_and_nothing_else() {
        for length in [0_u32, 3, 0x8000_0000, u32::MAX] {
            let mut stream = vec![tag::DATA_ROW];
            stream.extend(length.to_be_bytes());
            stream.extend(message(tag::READY_FOR_QUERY, b"I"));
            assert_eq!(seen(&mut FrameScanner::backend(|_| true), &[&stream]), []);
        }
    }
}
