//! Reads bytes as a hostile server's answer, as SQL, and as a value of each type. Panics on a defect.

use diesel::row::Row as _;
use serde_json::from_slice;

use super::answer::{ErrorAnswer, Results};
use super::failure::of_answer;
use super::sent::{Form, Sent, Wanted};
use super::statement::{count, rows};
use super::text::{Custom, Customs, Shape, push_text};

/// Reads bytes as an answer, in every form.
pub(crate) fn answer(input: &[u8]) {
    for form in [Form::Binary, Form::Text] {
        let Ok(rows) = rows(input, form) else {
            continue;
        };
        for row in rows.all() {
            let Ok(row) = row else { continue };
            let fields = row.field_count();
            for index in (0..=fields).rev().take(64) {
                assert!(index < fields || row.value(index).is_none());
            }
        }
    }
    let _ = count(input);
    let _ = from_slice::<Results<'_>>(input);
    if from_slice::<ErrorAnswer<'_>>(input).is_ok() {
        for status in [400, 500] {
            let status = http::StatusCode::from_u16(status).unwrap_or_default();
            let _ = of_answer(status, input).into_error().to_string();
        }
    }
}

/// Composes what is sent of a text, and looks each position up.
pub(crate) fn sql(input: &[u8]) {
    let sql = String::from_utf8_lossy(input);
    let types = [None, Some("pg_catalog.\"int4\"".to_owned())];
    for types in [&types[..0], &types] {
        for wanted in [Wanted::Count, Wanted::Rows, Wanted::NamedRows] {
            let sent = Sent::new(&sql, types, wanted);
            let length = sql.chars().count();
            for position in 0..=sent.sql.chars().count() {
                let callers = sent.callers_position(position);
                assert!(callers.is_none_or(|callers| (1..=length + 1).contains(&callers)));
            }
        }
    }
}

/// Writes bytes as a value of each type; the first two are a part of the OID.
pub(crate) fn value(input: &[u8]) {
    let shapes = [
        Shape::Text,
        Shape::Composite,
        Shape::Domain(1700),
        Shape::Array,
        Shape::Range(CUSTOM),
        Shape::Multirange(1082),
        Shape::Vector,
        Shape::Money,
    ];
    let custom = |(oid, shape)| {
        let name = String::new();
        (oid, Custom { name, shape })
    };
    let customs: Customs = (CUSTOM..).zip(shapes).map(custom).collect();
    let Some((start, value)) = input.split_first_chunk() else {
        return;
    };
    let oids = [u32::from(u16::from_be_bytes(*start)) % 4600];
    for oid in oids.into_iter().chain(customs.keys().copied()) {
        let _ = push_text(&mut String::new(), oid, value, &customs);
    }
}

/// The first OID of a type that only the database knows.
const CUSTOM: u32 = 16_384;

#[cfg(test)]
mod tests {
    /// What the changed inputs begin as.
    const SAMPLES: [&[u8]; 7] = [
        br#"{"fields":[{"name":"encode","dataTypeID":25}],"rows":[["AAAAAQAAABcAAAAEAAAABw==",null]],"rowCount":1}"#,
        br#"{"results":[{"rows":[["1"]],"fields":[{"name":"a","dataTypeID":23}]}]}"#,
        br#"{"message":"m","code":"23505","position":"7","detail":null}"#,
        b"WITH RECURSIVE a (b) AS MATERIALIZED (SELECT 'x;' -- y\n) SEARCH DEPTH FIRST BY b SET c INSERT INTO t SELECT $1 RETURNING *;",
        "SELECT /* ä */ e'\\'' || $tag$;$tag$, \"q\"(1) INTO ö".as_bytes(),
        b"\x03\xef\0\0\0\x02\0\0\0\x01\0\0\x06\xa4\0\0\0\x01\0\0\0\x01\0\0\0\x02\0\0\0\x01\0\0\0\x0a\0\x01\0\0\0\0\0\0\0\x07",
        b"\x04\xa2\0\0\0\x01\0\0\0\x17\0\0\0\x04\0\0\0\x07",
    ];

    #[test]
    fn no_input_does_harm() {
        let mut random = fastrand::Rng::with_seed(3);
        for sample in SAMPLES {
            for _ in 0..500 {
                let mut input = sample.to_vec();
                for _ in 0..random.usize(..5) {
                    let at = random.usize(..input.len().max(1)).min(input.len());
                    match random.u8(..4) {
                        0 => input.truncate(at),
                        1 => input.insert(at, random.u8(..)),
                        2 if at < input.len() => drop(input.remove(at)),
                        _ if at < input.len() => input[at] = random.u8(..),
                        _ => {}
                    }
                }
                super::answer(&input);
                super::sql(&input);
                super::value(&input);
            }
        }
    }
}
