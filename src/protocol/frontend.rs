//! [`Request`]: messages to the server that one ReadyForQuery answers.

use super::tag;

/// A group of messages of the extended protocol up to its Sync, or one simple query.
#[derive(Debug)]
pub(crate) enum Request {
    Extended(Messages),
    Simple(String),
    /// A simple query that copies data.
    Copy(String),
}

/// Encoded messages.
#[derive(Debug, Default)]
pub(crate) struct Messages(Vec<u8>);

/// A request that the protocol cannot carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unsendable {
    /// A string of the protocol ends at its first zero byte.
    ZeroByte,
    TooManyBinds(usize),
    TooLong,
}

impl Unsendable {
    pub(crate) fn text(self) -> String {
        match self {
            Self::ZeroByte => "a statement cannot contain a zero byte".to_owned(),
            Self::TooManyBinds(count) => format!(
                "a statement has {count} bind parameters, the protocol allows {}: split it, or bind an array",
                u16::MAX
            ),
            Self::TooLong => "a statement with its bind parameters is longer than 2 GiB".to_owned(),
        }
    }
}

impl Messages {
    /// Has room for about so many bytes.
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    pub(crate) fn parse(&mut self, name: &str, sql: &str, types: &[u32]) -> Result<(), Unsendable> {
        let count =
            u16::try_from(types.len()).map_err(|_| Unsendable::TooManyBinds(types.len()))?;
        self.message(tag::frontend::PARSE, |out| {
            text(out, name)?;
            text(out, sql)?;
            out.extend(count.to_be_bytes());
            types.iter().for_each(|oid| out.extend(oid.to_be_bytes()));
            Ok(())
        })
    }

    /// Binds the unnamed portal; everything is binary.
    pub(crate) fn bind(
        &mut self,
        statement: &str,
        binds: &[Option<Vec<u8>>],
    ) -> Result<(), Unsendable> {
        let count =
            u16::try_from(binds.len()).map_err(|_| Unsendable::TooManyBinds(binds.len()))?;
        self.message(tag::frontend::BIND, |out| {
            text(out, "")?;
            text(out, statement)?;
            out.extend(ALL_BINARY);
            out.extend(count.to_be_bytes());
            for bind in binds {
                match bind {
                    Some(bytes) => {
                        let len = i32::try_from(bytes.len()).map_err(|_| Unsendable::TooLong)?;
                        out.extend(len.to_be_bytes());
                        out.extend_from_slice(bytes);
                    }
                    None => out.extend((-1_i32).to_be_bytes()),
                }
            }
            out.extend(ALL_BINARY);
            Ok(())
        })
    }

    /// Describes the unnamed portal.
    pub(crate) fn describe(&mut self) {
        self.0.extend(b"D\0\0\0\x06P\0");
    }

    /// Runs the unnamed portal to its end.
    pub(crate) fn execute(&mut self) {
        self.0.extend(b"E\0\0\0\x09\0\0\0\0\0");
    }

    /// Runs a portal that does not exist.
    pub(crate) fn fail(&mut self) {
        self.0.extend(b"E\0\0\0\x1dbehind a failed COPY\0\0\0\0\0");
    }

    pub(crate) fn close(&mut self, statement: &str) -> Result<(), Unsendable> {
        self.message(tag::frontend::CLOSE, |out| {
            out.push(b'S');
            text(out, statement)
        })
    }

    pub(crate) fn sync(&mut self) {
        self.0.extend(b"S\0\0\0\x04");
    }

    pub(crate) fn query(&mut self, sql: &str) -> Result<(), Unsendable> {
        self.message(tag::frontend::QUERY, |out| text(out, sql))
    }

    pub(crate) fn copy_fail(&mut self, reason: &str) -> Result<(), Unsendable> {
        self.message(tag::frontend::COPY_FAIL, |out| text(out, reason))
    }

    pub(crate) fn copy_data(&mut self, data: &[u8]) -> Result<(), Unsendable> {
        self.message(tag::frontend::COPY_DATA, |out| {
            out.extend_from_slice(data);
            Ok(())
        })
    }

    pub(crate) fn copy_done(&mut self) {
        self.0.extend(b"c\0\0\0\x04");
    }

    pub(crate) fn terminate(&mut self) {
        self.0.extend(b"X\0\0\0\x04");
    }

    /// A statement that takes no bind parameters and whose rows nobody wants.
    pub(crate) fn command(&mut self, sql: &str) -> Result<(), Unsendable> {
        self.parse("", sql, &[])?;
        self.bind("", &[])?;
        self.execute();
        Ok(())
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn message(
        &mut self,
        tag: u8,
        body: impl FnOnce(&mut Vec<u8>) -> Result<(), Unsendable>,
    ) -> Result<(), Unsendable> {
        self.0.push(tag);
        let start = self.0.len();
        self.0.extend([0; 4]);
        body(&mut self.0)?;
        let len = i32::try_from(self.0.len() - start).map_err(|_| Unsendable::TooLong)?;
        self.0[start..start + 4].copy_from_slice(&len.to_be_bytes());
        Ok(())
    }
}

fn text(out: &mut Vec<u8>, text: &str) -> Result<(), Unsendable> {
    if text.as_bytes().contains(&0) {
        return Err(Unsendable::ZeroByte);
    }
    out.extend_from_slice(text.as_bytes());
    out.push(0);
    Ok(())
}

/// One format code, which stands for all: binary.
const ALL_BINARY: [u8; 4] = [0, 1, 0, 1];

#[cfg(test)]
mod tests {
    use super::super::backend::{Fields, Message, Next};
    use super::*;
    use bytes::BytesMut;
    use proptest::collection::vec;
    use proptest::prelude::*;

    #[test]
    fn messages_are_what_the_protocol_says() {
        let mut messages = Messages::default();
        messages.parse("n", "SELECT $1", &[23]).unwrap();
        messages.bind("n", &[Some(vec![0, 0, 0, 7]), None]).unwrap();
        messages.execute();
        messages.sync();
        let expected: &[u8] = b"P\0\0\0\x16n\0SELECT $1\0\0\x01\0\0\0\x17\
            B\0\0\0\x1d\0n\0\0\x01\0\x01\0\x02\0\0\0\x04\0\0\0\x07\xff\xff\xff\xff\0\x01\0\x01\
            E\0\0\0\x09\0\0\0\0\0S\0\0\0\x04";
        assert_eq!(messages.as_bytes(), expected);
    }

    #[test]
    fn what_the_protocol_cannot_carry_is_refused() {
        let mut messages = Messages::default();
        assert_eq!(messages.query("SELECT '\0'"), Err(Unsendable::ZeroByte));
        let many = vec![None; 65_536];
        assert_eq!(
            messages.bind("", &many),
            Err(Unsendable::TooManyBinds(65_536))
        );
    }

    /// One message, in the terms of [`Messages`].
    #[derive(Clone, Debug)]
    enum Written {
        Parse(String, String, Vec<u32>),
        Bind(String, Vec<Option<Vec<u8>>>),
        Describe,
        Execute,
        Close(String),
        Sync,
        Query(String),
        CopyData(Vec<u8>),
        CopyDone,
        CopyFail(String),
        Terminate,
    }

    impl Written {
        fn write(&self, messages: &mut Messages) {
            match self {
                Self::Parse(name, sql, types) => messages.parse(name, sql, types).unwrap(),
                Self::Bind(name, binds) => messages.bind(name, binds).unwrap(),
                Self::Describe => messages.describe(),
                Self::Execute => messages.execute(),
                Self::Close(name) => messages.close(name).unwrap(),
                Self::Sync => messages.sync(),
                Self::Query(sql) => messages.query(sql).unwrap(),
                Self::CopyData(data) => messages.copy_data(data).unwrap(),
                Self::CopyDone => messages.copy_done(),
                Self::CopyFail(reason) => messages.copy_fail(reason).unwrap(),
                Self::Terminate => messages.terminate(),
            }
        }

        /// Reads it as a server does, to the last byte.
        fn assert_is(&self, message: &Message) {
            let mut body = Fields(&message.body);
            match self {
                Self::Parse(name, sql, types) => {
                    assert_eq!(message.tag, b'P');
                    assert_eq!((body.text(), body.text()), (Ok(&**name), Ok(&**sql)));
                    assert_eq!(body.u16().map(usize::from), Ok(types.len()));
                    for oid in types {
                        assert_eq!(body.bytes(4), Ok(&oid.to_be_bytes()[..]));
                    }
                }
                Self::Bind(name, binds) => {
                    assert_eq!(message.tag, b'B');
                    assert_eq!((body.text(), body.text()), (Ok(""), Ok(&**name)));
                    assert_eq!((body.u16(), body.u16()), (Ok(1), Ok(1)));
                    assert_eq!(body.u16().map(usize::from), Ok(binds.len()));
                    for bind in binds {
                        let len = usize::try_from(body.i32().unwrap()).ok();
                        let bytes = len.map(|len| body.bytes(len).unwrap());
                        assert_eq!(bytes, bind.as_deref());
                    }
                    assert_eq!((body.u16(), body.u16()), (Ok(1), Ok(1)));
                }
                Self::Close(name) => {
                    assert_eq!(message.tag, b'C');
                    assert_eq!((body.bytes(1), body.text()), (Ok(&b"S"[..]), Ok(&**name)));
                }
                Self::Query(text) | Self::CopyFail(text) => {
                    assert!(matches!(message.tag, b'Q' | b'f'));
                    assert_eq!(body.text(), Ok(&**text));
                }
                Self::CopyData(data) => {
                    assert_eq!(message.tag, b'd');
                    assert_eq!(body.bytes(data.len()), Ok(&**data));
                }
                Self::Describe => assert_eq!(body.bytes(2), Ok(&b"P\0"[..])),
                Self::Execute => assert_eq!(body.bytes(5), Ok(&[0; 5][..])),
                Self::Sync => assert_eq!(message.tag, b'S'),
                Self::CopyDone => assert_eq!(message.tag, b'c'),
                Self::Terminate => assert_eq!(message.tag, b'X'),
            }
            assert!(body.0.is_empty(), "{self:?} is longer than it says");
        }
    }

    fn written() -> impl Strategy<Value = Written> {
        let text = || "[^\0]{0,40}";
        let bytes = || vec(any::<u8>(), 0..60);
        prop_oneof![
            (text(), text(), vec(any::<u32>(), 0..5)).prop_map(|(n, s, t)| Written::Parse(n, s, t)),
            (text(), vec(proptest::option::of(bytes()), 0..5))
                .prop_map(|(n, b)| Written::Bind(n, b)),
            Just(Written::Describe),
            Just(Written::Execute),
            text().prop_map(Written::Close),
            Just(Written::Sync),
            text().prop_map(Written::Query),
            bytes().prop_map(Written::CopyData),
            Just(Written::CopyDone),
            text().prop_map(Written::CopyFail),
            Just(Written::Terminate),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_can_be_read(all in vec(written(), 0..20)) {
            let mut messages = Messages::default();
            all.iter().for_each(|one| one.write(&mut messages));
            let mut stream = BytesMut::from(messages.as_bytes());
            for one in &all {
                let Ok(Next::Message(message)) = Message::take(&mut stream) else {
                    panic!("{one:?} is missing");
                };
                one.assert_is(&message);
            }
            prop_assert!(stream.is_empty());
        }
    }
}
