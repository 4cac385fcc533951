//! The entry points of `fuzz/`; the tests run them on its corpus.

use std::sync::Arc;

use crate::protocol::Columns;
use crate::query::Row;
use crate::session::fuzzing;

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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    #[test]
    fn the_corpus_does_no_harm() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/fuzzing/corpus");
        let mut count = 0;
        for file in fs::read_dir(&corpus).expect("the corpus is part of the package") {
            super::messages(&fs::read(file.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count > 0, "{} is empty", corpus.display());
    }
}
