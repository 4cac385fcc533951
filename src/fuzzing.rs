//! The entry points of `fuzz/`; the tests run them on its corpus.

use std::sync::Arc;

use crate::protocol::Columns;
use crate::query::Row;
use crate::session::fuzzing;
#[cfg(feature = "websocket")]
use crate::transport::fuzzing as transport;

/// Reads bytes as messages of a hostile server: the first byte is the size of the pieces in which the others
/// arrive. Panics on a defect.
pub fn messages(input: &[u8]) {
    let Some((piece, stream)) = input.split_first() else {
        return;
    };
    let mut described = Arc::<Columns>::default();
    for message in fuzzing::messages(stream, usize::from(*piece) + 1) {
        if let Ok(columns) = Columns::read(&message.body) {
            described = columns.into();
        }
        if let Ok(row) = Row::new(Arc::clone(&described), message.body) {
            // From right to left, which is the harder way.
            for index in (0..=described.len()).rev().take(64) {
                assert!(index < described.len() || row.value(index).is_none());
            }
        }
    }
}

/// Reads bytes as a hostile server's answer over HTTPS, as SQL that is sent there, and as values of parameters. Panics on a
/// defect.
#[cfg(feature = "http")]
pub fn https(input: &[u8]) {
    crate::http::fuzzing::answer(input);
    crate::http::fuzzing::sql(input);
    crate::http::fuzzing::value(input);
}

/// Reads bytes as the WebSocket frames of a hostile server, cut in pieces as above. Panics on a defect.
#[cfg(feature = "websocket")]
pub fn frames(input: &[u8]) {
    if let Some((piece, stream)) = input.split_first() {
        transport::frames(stream, usize::from(*piece) + 1);
    }
}

/// Reads bytes as the HTTP/1.1 answer of a hostile server or proxy, cut in pieces as above. Panics on a defect.
#[cfg(feature = "websocket")]
pub fn heads(input: &[u8]) {
    if let Some((piece, stream)) = input.split_first() {
        transport::heads(stream, usize::from(*piece) + 1);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    #[test]
    fn the_corpus_does_no_harm() {
        read_all("corpus", super::messages);
    }

    #[cfg(feature = "websocket")]
    #[test]
    fn frames_and_heads_do_no_harm() {
        read_all("frames", super::frames);
        read_all("heads", super::heads);
    }

    /// Reads the files of a folder, whole and with every byte changed.
    fn read_all(folder: &str, read: fn(&[u8])) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("src/fuzzing")
            .join(folder);
        let mut count = 0;
        for file in fs::read_dir(&folder).expect("the corpus is part of the package") {
            let mut input = fs::read(file.unwrap().path()).unwrap();
            read(&input);
            for at in 0..input.len() {
                for change in [0x01, 0x80, 0xff] {
                    input[at] ^= change;
                    read(&input);
                    input[at] ^= change;
                }
                read(&input[..at]);
            }
            count += 1;
        }
        assert!(count > 0, "{} is empty", folder.display());
    }
}
