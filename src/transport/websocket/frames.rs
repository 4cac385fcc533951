//! WebSocket frames as data (RFC 6455, section 5): bytes in, payload out, and the other way round.
//!
//! Payload is passed on as it arrives, so that no frame costs more memory than the bytes of it that were read.

use std::io::Cursor;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::ReadBuf;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::error::WebSocketError;

/// Takes payload out of frames.
#[derive(Debug, Default)]
pub(super) struct FrameReader {
    /// How many bytes of the current data frame are to come.
    left: u64,
    /// Whether the current message goes on in another frame.
    is_fragmented: bool,
}

/// The reason for which [`FrameReader::read`] takes no more.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The caller has no room for more payload.
    Full,
    /// More bytes are needed.
    Starved,
    /// The server asks for a pong with this payload.
    Ping(Bytes),
    /// The server closes the WebSocket, with a code and a reason if it tells them.
    Close(Option<(u16, String)>),
}

impl FrameReader {
    /// Moves the payload of data frames from `input` to `payload`.
    pub(super) fn read(
        &mut self,
        input: &mut BytesMut,
        payload: &mut ReadBuf<'_>,
    ) -> Result<Stop, WebSocketError> {
        loop {
            let left = usize::try_from(self.left).unwrap_or(usize::MAX);
            let now = left.min(input.len()).min(payload.remaining());
            payload.put_slice(&input[..now]);
            input.advance(now);
            self.left = self.left.saturating_sub(now as u64);
            if self.left > 0 {
                return Ok(match payload.remaining() {
                    0 => Stop::Full,
                    _ => Stop::Starved,
                });
            }
            let mut cursor = Cursor::new(&input[..]);
            let header = FrameHeader::parse(&mut cursor);
            let header_len = usize::try_from(cursor.position()).unwrap_or(usize::MAX);
            let Some((header, length)) =
                header.map_err(|error| WebSocketError::Header(error.to_string()))?
            else {
                return Ok(Stop::Starved);
            };
            if header.rsv1 || header.rsv2 || header.rsv3 {
                return Err(WebSocketError::Frame(
                    "a compressed frame, which was not agreed on",
                ));
            }
            if header.mask.is_some() {
                return Err(WebSocketError::Frame(
                    "a frame that is masked as a client's",
                ));
            }
            match header.opcode {
                OpCode::Data(kind) => {
                    self.begin(kind, header.is_final)?;
                    input.advance(header_len);
                    self.left = length;
                }
                OpCode::Control(kind) => {
                    if !header.is_final || length > MOST_CONTROL {
                        return Err(WebSocketError::Frame("a control frame that is too long"));
                    }
                    let end = header_len.saturating_add(length as usize);
                    if input.len() < end {
                        return Ok(Stop::Starved);
                    }
                    let frame = input.split_to(end).freeze();
                    let body = frame.slice(header_len..);
                    match kind {
                        Control::Ping => return Ok(Stop::Ping(body)),
                        Control::Close => return Ok(Stop::Close(close_reason(&body))),
                        _ => {}
                    }
                }
            }
        }
    }

    fn begin(&mut self, kind: Data, is_final: bool) -> Result<(), WebSocketError> {
        match (kind, self.is_fragmented) {
            (Data::Binary, false) | (Data::Continue, true) => {}
            (Data::Text, _) => return Err(WebSocketError::Frame("text in place of binary data")),
            _ => return Err(WebSocketError::Frame("fragments out of order")),
        }
        self.is_fragmented = !is_final;
        Ok(())
    }
}

/// Returns the code and the reason in the body of a Close frame.
fn close_reason(body: &[u8]) -> Option<(u16, String)> {
    let (code, reason) = body.split_first_chunk()?;
    let reason = String::from_utf8_lossy(reason);
    Some((u16::from_be_bytes(*code), reason.into_owned()))
}

/// Appends a frame to `output`, with its payload under `mask`.
pub(super) fn write_frame(output: &mut BytesMut, opcode: OpCode, payload: &[u8], mask: [u8; 4]) {
    let header = FrameHeader {
        is_final: true,
        opcode,
        mask: Some(mask),
        ..FrameHeader::default()
    };
    let length = payload.len() as u64;
    output.reserve(payload.len().saturating_add(MOST_HEADER));
    header
        .format(length, &mut output.writer())
        .expect("a buffer in memory takes all");
    let start = output.len();
    output.extend_from_slice(payload);
    apply_mask(&mut output[start..], mask);
}

/// Masks eight bytes at a time, which the compiler turns into wider instructions yet.
fn apply_mask(bytes: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut words = bytes.chunks_exact_mut(8);
    for word in &mut words {
        let masked = <[u8; 8]>::try_from(&*word).map(u64::from_ne_bytes);
        word.copy_from_slice(&(masked.unwrap_or_default() ^ wide).to_ne_bytes());
    }
    let rest = words.into_remainder().iter_mut();
    for (byte, mask) in rest.zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

/// How long the body of a control frame may be.
const MOST_CONTROL: u64 = 125;
/// How long a frame's header may be.
const MOST_HEADER: usize = 14;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads `frames` in pieces of `piece` bytes into buffers of `room` bytes.
    fn read(
        frames: &[u8],
        piece: usize,
        room: usize,
    ) -> (Vec<u8>, Vec<Stop>, Result<(), WebSocketError>) {
        let (mut reader, mut input) = (FrameReader::default(), BytesMut::new());
        let (mut payload, mut stops) = (Vec::new(), Vec::new());
        for piece in frames.chunks(piece) {
            input.extend_from_slice(piece);
            loop {
                let mut space = vec![0; room];
                let mut buf = ReadBuf::new(&mut space);
                let stop = reader.read(&mut input, &mut buf);
                payload.extend_from_slice(buf.filled());
                match stop {
                    Ok(Stop::Starved) => break,
                    Ok(Stop::Full) => {}
                    Ok(stop) => stops.push(stop),
                    Err(error) => return (payload, stops, Err(error)),
                }
            }
        }
        (payload, stops, Ok(()))
    }

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first];
        match payload.len() {
            length @ 0..=125 => frame.push(length as u8),
            length @ 126..=0xffff => {
                frame.push(126);
                frame.extend((length as u16).to_be_bytes());
            }
            length => {
                frame.push(127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        frame.extend(payload);
        frame
    }

    #[test]
    fn payload_is_read_across_frames_fragments_and_pieces() {
        let long = vec![7; 70_000];
        let frames = [
            frame(0x82, b"abc"),
            frame(0x8a, b"a pong that nobody asked for"),
            frame(0x02, b"de"),
            frame(0x89, b"ping"),
            frame(0x00, b""),
            frame(0x80, b"f"),
            frame(0x82, &long),
            frame(0x88, b"\x03\xf3gone"),
        ]
        .concat();
        for (piece, room) in [(1, 1), (3, 7), (1024, 1), (usize::MAX, 8192)] {
            let (payload, stops, result) = read(&frames, piece, room);
            assert_eq!(payload, [b"abcdef", &long[..]].concat(), "{piece} {room}");
            let close = Stop::Close(Some((1011, "gone".to_owned())));
            assert_eq!(stops, [Stop::Ping("ping".into()), close]);
            assert_eq!(result, Ok(()));
        }
    }

    #[test]
    fn a_claim_of_a_huge_frame_costs_nothing() {
        let mut claim = vec![0x82, 127];
        claim.extend(u64::MAX.to_be_bytes());
        claim.extend(b"abc");
        let (payload, _, result) = read(&claim, 1, 8192);
        assert_eq!((payload.as_slice(), result), (&b"abc"[..], Ok(())));
    }

    #[test]
    fn what_breaks_the_rules_is_an_error() {
        for frames in [
            frame(0x81, b"text"),
            frame(0xc2, b"compressed"),
            frame(0x83, b"reserved"),
            frame(0x80, b"no message goes on"),
            [frame(0x02, b"a"), frame(0x82, b"b")].concat(),
            frame(0x09, b"a ping in fragments"),
            frame(0x89, &[0; 126]),
            vec![0x82, 0x81, 1, 2, 3, 4, b'a' ^ 1],
        ] {
            let (_, _, result) = read(&frames, 1, 64);
            result.unwrap_err();
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(
            bytes: Vec<u8>,
            piece in 1usize..64,
            room in 1usize..64,
        ) {
            let (payload, _, _) = read(&bytes, piece, room);
            prop_assert!(payload.len() <= bytes.len());
        }

        #[test]
        fn a_frame_is_unmasked_by_its_mask(payload: Vec<u8>, mask: [u8; 4]) {
            let mut output = BytesMut::new();
            write_frame(&mut output, OpCode::Data(Data::Binary), &payload, mask);
            let mut cursor = Cursor::new(&output[..]);
            let (header, length) = FrameHeader::parse(&mut cursor).unwrap().unwrap();
            prop_assert_eq!((header.mask, length), (Some(mask), payload.len() as u64));
            let masked = &output[cursor.position() as usize..];
            let plain: Vec<u8> = masked.iter().zip(mask.iter().cycle()).map(|(a, b)| a ^ b).collect();
            prop_assert_eq!(plain, payload);
        }
    }
}
