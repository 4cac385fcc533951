//! [`HttpHead`]: the head of an answer of HTTP/1.1.

use bytes::{Buf, BytesMut};

/// The head of an answer: its status and headers.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct HttpHead {
    pub(super) status: u16,
    reason: String,
    headers: Vec<(String, String)>,
}

/// The bytes are no answer of HTTP/1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotHttp;

impl HttpHead {
    /// Takes the head off `input`, and those of interim answers in front of it. Returns `None` if more bytes are needed.
    pub(super) fn take(input: &mut BytesMut) -> Result<Option<Self>, NotHttp> {
        loop {
            match Self::take_one(input)? {
                // The final answer follows (RFC 9110, section 15.2); 101 is one itself.
                Some(interim) if interim.status < 200 && interim.status != 101 => {}
                head => return Ok(head),
            }
        }
    }

    fn take_one(input: &mut BytesMut) -> Result<Option<Self>, NotHttp> {
        let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
        let mut answer = httparse::Response::new(&mut headers);
        match answer.parse(input) {
            Ok(httparse::Status::Complete(length)) => {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
                let headers = answer.headers.iter();
                let head = Self {
                    status: answer.code.ok_or(NotHttp)?,
                    reason: answer.reason.unwrap_or_default().to_owned(),
                    headers: headers
                        .map(|header| (header.name.to_ascii_lowercase(), text(header.value)))
                        .collect(),
                };
                input.advance(length);
                Ok(Some(head))
            }
            Ok(httparse::Status::Partial) if input.len() < LONGEST => Ok(None),
            _ => Err(NotHttp),
        }
    }

    /// Returns the value of a header, whose name is in lower case: a list of all values if there are several.
    pub(super) fn header(&self, name: &str) -> Option<String> {
        let headers = self.headers.iter().filter(|(key, _)| key == name);
        let values: Vec<_> = headers.map(|(_, value)| value.as_str()).collect();
        (!values.is_empty()).then(|| values.join(", "))
    }

    /// Returns the status and its reason, and the beginning of a `body` in plain text.
    pub(super) fn words(&self, body: &[u8]) -> String {
        let mut words = self.status.to_string();
        if !self.reason.is_empty() {
            words = format!("{words} {}", self.reason);
        }
        let kind = self.header("content-type");
        let kind = kind.as_deref().unwrap_or("text/plain");
        let body = String::from_utf8_lossy(body);
        let told: String = body.trim().chars().take(MOST_WORDS).collect();
        let is_plain = !told.contains(|c: char| c.is_control() && c != '\n');
        if kind.starts_with("text/plain") && is_plain && !told.is_empty() {
            words = format!("{words}: {}", told.replace('\n', " "));
        }
        words
    }
}

const MOST_HEADERS: usize = 64;
/// How long a head may be.
const LONGEST: usize = 16 * 1024;
/// How many characters of a body are told.
const MOST_WORDS: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    fn take(text: &str) -> Result<Option<HttpHead>, NotHttp> {
        HttpHead::take(&mut BytesMut::from(text))
    }

    #[test]
    fn a_head_is_taken_once_it_is_complete() {
        let text = "HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\nX-A:  b \r\n\r\nnot you";
        for end in 0..text.len() - "not you".len() {
            assert_eq!(take(&text[..end]), Ok(None), "{end}");
        }
        let mut input = BytesMut::from(text);
        let head = HttpHead::take(&mut input).unwrap().unwrap();
        assert_eq!((head.status, head.header("x-a")), (403, Some("b".into())));
        assert_eq!(head.words(&input), "403 Forbidden: not you");
    }

    #[test]
    fn interim_answers_are_passed_over_and_lists_are_joined() {
        let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n";
        let text = [
            interim,
            "HTTP/1.1 101 Go\r\nX-A: b\r\nY: c\r\nx-a: d, e\r\n\r\n",
        ]
        .concat();
        for end in 0..text.len() {
            assert_eq!(take(&text[..end]), Ok(None), "{end}");
        }
        let head = take(&text).unwrap().unwrap();
        assert_eq!(
            (head.status, head.header("x-a")),
            (101, Some("b, d, e".into()))
        );
    }

    #[test]
    fn what_is_not_http_is_told_and_pages_are_not() {
        for text in [
            "\x15\x03\x01\x00\x02\x02\x28",
            "SSH-2.0-x\r\n",
            "HTTP/1.1 x\r\n\r\n",
        ] {
            assert_eq!(take(text), Err(NotHttp), "{text:?}");
        }
        let endless = format!("HTTP/1.1 200 OK\r\nA: {}", "a".repeat(LONGEST));
        assert_eq!(take(&endless), Err(NotHttp));
        let page = "HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\n\r\n";
        let head = take(page).unwrap().unwrap();
        assert_eq!(head.words(b"<html>"), "502 Bad Gateway");
    }
}
