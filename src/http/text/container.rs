//! [`push_text`], and the types whose values contain others: arrays, ranges and composites.

use tokio_postgres::types::{Kind, Type};

use super::custom::{Customs, Shape};
use super::reader::{NoText, Reader, show};
use super::scalar;

/// Appends a value of the type `oid` in text.
pub(in super::super) fn push_text(
    text: &mut String,
    oid: u32,
    value: &[u8],
    customs: &Customs,
) -> Result<(), NoText> {
    let within = Within {
        customs,
        levels: MOST_LEVELS,
    };
    push_value(text, oid, value, within)
}

/// What a value is read with.
#[derive(Clone, Copy)]
struct Within<'a> {
    customs: &'a Customs,
    /// How many levels may follow.
    levels: u8,
}

/// The types are what the server says, which may name a type as its own base; and each level may double what is quoted below.
const MOST_LEVELS: u8 = 16;

fn push_value(text: &mut String, oid: u32, value: &[u8], within: Within<'_>) -> Result<(), NoText> {
    let levels = within.levels.checked_sub(1).ok_or(NoText::Type(oid))?;
    let within = Within { levels, ..within };
    let customs = within.customs;
    let malformed = NoText::Value(oid);
    let shape = match Type::from_oid(oid) {
        // How it is written depends on a setting of the server's.
        Some(Type::MONEY) | None => customs.get(&oid).ok_or(NoText::Unknown(oid))?.shape,
        Some(known) => match known.kind() {
            Kind::Array(_) => Shape::Array,
            Kind::Range(element) => Shape::Range(element.oid()),
            Kind::Multirange(element) => Shape::Multirange(element.oid()),
            _ => return scalar::push(text, &known, value),
        },
    };
    match shape {
        Shape::Text => text.push_str(std::str::from_utf8(value).map_err(|_| malformed)?),
        Shape::VersionedText => match value.split_first() {
            Some((1, rest)) => text.push_str(std::str::from_utf8(rest).map_err(|_| malformed)?),
            _ => return Err(malformed),
        },
        Shape::Domain(base) => push_value(text, base, value, within)?,
        Shape::Array => push_array(text, oid, value, within)?,
        Shape::Composite => push_composite(text, oid, value, within)?,
        Shape::Range(element) => push_range(text, oid, element, value, within)?,
        Shape::Multirange(element) => push_multirange(text, oid, element, value, within)?,
        Shape::Money => scalar::push_money(text, &mut Reader::new(oid, value))?,
        Shape::Vector => scalar::push_vector(text, &mut Reader::new(oid, value))?,
        Shape::Opaque => return Err(NoText::Type(oid)),
    }
    Ok(())
}

/// The server has no more dimensions.
const MOST_DIMENSIONS: usize = 6;

/// Appends an array: its bounds if they do not begin with 1, and its elements in quotation marks.
fn push_array(text: &mut String, oid: u32, value: &[u8], within: Within<'_>) -> Result<(), NoText> {
    let malformed = NoText::Value(oid);
    let mut reader = Reader::new(oid, value);
    let dimensions = usize::try_from(reader.i32()?).map_err(|_| malformed)?;
    let _has_nulls = reader.i32()?;
    let element = reader.u32()?;
    if dimensions > MOST_DIMENSIONS {
        return Err(malformed);
    }
    let mut lengths = Vec::new();
    let mut bounds = String::new();
    let mut is_plain = true;
    for _ in 0..dimensions {
        let (length, lower) = (reader.i32()?, reader.i32()?);
        let upper = i64::from(lower) + i64::from(length) - 1;
        is_plain &= lower == 1;
        show(&mut bounds, format_args!("[{lower}:{upper}]"));
        lengths.push(usize::try_from(length).map_err(|_| malformed)?);
    }
    if lengths.is_empty() || lengths.contains(&0) {
        text.push_str("{}");
        return reader.end();
    }
    if !is_plain {
        text.push_str(&bounds);
        text.push('=');
    }
    push_level(text, &lengths, element, &mut reader, within)?;
    reader.end()
}

fn push_level(
    text: &mut String,
    lengths: &[usize],
    element: u32,
    reader: &mut Reader<'_>,
    within: Within<'_>,
) -> Result<(), NoText> {
    let Some((length, inner)) = lengths.split_first() else {
        return match reader.field()? {
            None => {
                text.push_str("NULL");
                Ok(())
            }
            Some(value) => push_quoted(text, element, value, within),
        };
    };
    text.push('{');
    for index in 0..*length {
        if index > 0 {
            text.push(',');
        }
        push_level(text, inner, element, reader, within)?;
    }
    text.push('}');
    Ok(())
}

/// Appends a composite, whose binary form has the types of its fields.
fn push_composite(
    text: &mut String,
    oid: u32,
    value: &[u8],
    within: Within<'_>,
) -> Result<(), NoText> {
    let mut reader = Reader::new(oid, value);
    let count = reader.i32()?;
    text.push('(');
    for index in 0..count {
        if index > 0 {
            text.push(',');
        }
        let field = reader.u32()?;
        // Nothing at all is NULL.
        if let Some(value) = reader.field()? {
            push_quoted(text, field, value, within)?;
        }
    }
    text.push(')');
    reader.end()
}

const EMPTY: u8 = 0x01;
const LOWER_INCLUSIVE: u8 = 0x02;
const UPPER_INCLUSIVE: u8 = 0x04;
const LOWER_INFINITE: u8 = 0x08;
const UPPER_INFINITE: u8 = 0x10;

/// Appends a range of values of the type `element`.
fn push_range(
    text: &mut String,
    oid: u32,
    element: u32,
    value: &[u8],
    within: Within<'_>,
) -> Result<(), NoText> {
    let mut reader = Reader::new(oid, value);
    let [flags] = reader.array()?;
    if flags & EMPTY != 0 {
        text.push_str("empty");
        return reader.end();
    }
    let mut push_bound = |text: &mut String, infinite: u8| match flags & infinite {
        0 => {
            let value = reader.field()?.ok_or(NoText::Value(oid))?;
            push_quoted(text, element, value, within)
        }
        _ => Ok(()),
    };
    text.push(if flags & LOWER_INCLUSIVE != 0 {
        '['
    } else {
        '('
    });
    push_bound(text, LOWER_INFINITE)?;
    text.push(',');
    push_bound(text, UPPER_INFINITE)?;
    text.push(if flags & UPPER_INCLUSIVE != 0 {
        ']'
    } else {
        ')'
    });
    reader.end()
}

/// Appends a multirange of values of the type `element`.
fn push_multirange(
    text: &mut String,
    oid: u32,
    element: u32,
    value: &[u8],
    within: Within<'_>,
) -> Result<(), NoText> {
    let mut reader = Reader::new(oid, value);
    let count = reader.i32()?;
    text.push('{');
    for index in 0..count {
        if index > 0 {
            text.push(',');
        }
        let range = reader.field()?.ok_or(NoText::Value(oid))?;
        push_range(text, oid, element, range, within)?;
    }
    text.push('}');
    reader.end()
}

/// Appends a value in quotation marks. Arrays, ranges and composites read a backslash alike: what is behind it counts as it
/// is.
fn push_quoted(
    text: &mut String,
    oid: u32,
    value: &[u8],
    within: Within<'_>,
) -> Result<(), NoText> {
    text.push('"');
    let start = text.len();
    push_value(text, oid, value, within)?;
    if text[start..].contains(['"', '\\']) {
        let plain = text.split_off(start);
        for character in plain.chars() {
            if matches!(character, '"' | '\\') {
                text.push('\\');
            }
            text.push(character);
        }
    }
    text.push('"');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::custom::Custom;
    use super::*;

    fn field(value: &[u8]) -> Vec<u8> {
        [&(value.len() as i32).to_be_bytes(), value].concat()
    }

    #[test]
    fn elements_are_quoted_and_nulls_are_not() {
        let array = |dimensions: &[(i32, i32)], elements: &[Option<&str>]| {
            let mut value = (dimensions.len() as i32).to_be_bytes().to_vec();
            value.extend([0, 0, 0, 1, 0, 0, 0, 25]);
            for (length, lower) in dimensions {
                value.extend(length.to_be_bytes());
                value.extend(lower.to_be_bytes());
            }
            for element in elements {
                match element {
                    Some(text) => value.extend(field(text.as_bytes())),
                    None => value.extend((-1_i32).to_be_bytes()),
                }
            }
            let mut text = String::new();
            push_text(&mut text, 1009, &value, &Customs::new()).map(|()| text)
        };
        assert_eq!(array(&[], &[]).unwrap(), "{}");
        let elements = [Some(""), None, Some("a\"b\\c"), Some("NULL")];
        assert_eq!(
            array(&[(4, 1)], &elements).unwrap(),
            r#"{"",NULL,"a\"b\\c","NULL"}"#
        );
        assert_eq!(
            array(&[(2, 0), (2, -5)], &elements).unwrap(),
            r#"[0:1][-5:-4]={{"",NULL},{"a\"b\\c","NULL"}}"#
        );
        assert_eq!(array(&[(2, 1)], &elements), Err(NoText::Value(1009)));
        assert!(array(&[(i32::MAX, 1); 6], &elements).is_err());
    }

    #[test]
    fn composites_and_ranges_nest() {
        let customs = Customs::from([(
            90_000,
            Custom {
                name: "public.\"pair\"".to_owned(),
                shape: Shape::Composite,
            },
        )]);
        let number = field(&7_i32.to_be_bytes());
        let pair = |first: &[u8]| {
            [
                &[0, 0, 0, 2, 0, 0, 0, 23],
                first,
                &[0, 1, 0x5f, 0x90, 0xff, 0xff, 0xff, 0xff],
            ]
            .concat()
        };
        let mut text = String::new();
        push_text(&mut text, 90_000, &pair(&number), &customs).unwrap();
        assert_eq!(text, r#"("7",)"#);
        let inner = pair(&number);
        let outer = [&[0, 0, 0, 1, 0, 1, 0x5f, 0x90][..], &field(&inner)].concat();
        text.clear();
        push_text(&mut text, 90_000, &outer, &customs).unwrap();
        assert_eq!(text, r#"("(\"7\",)")"#);

        let range = |flags: u8, bounds: usize| [vec![flags], number.repeat(bounds)].concat();
        for (value, shown) in [
            (range(EMPTY, 0), "empty"),
            (range(LOWER_INCLUSIVE, 2), r#"["7","7")"#),
            (range(LOWER_INFINITE | UPPER_INFINITE, 0), "(,)"),
            (range(UPPER_INCLUSIVE | LOWER_INFINITE, 1), r#"(,"7"]"#),
        ] {
            text.clear();
            push_text(&mut text, 3904, &value, &customs).unwrap();
            assert_eq!(text, shown);
        }
    }

    #[test]
    fn types_that_contain_themselves_are_refused() {
        let custom = |shape| Custom {
            name: "public.\"odd\"".to_owned(),
            shape,
        };
        let customs = Customs::from([
            (90_000, custom(Shape::Domain(90_001))),
            (90_001, custom(Shape::Domain(90_000))),
            (90_002, custom(Shape::Composite)),
        ]);
        let mut text = String::new();
        let refused = push_text(&mut text, 90_000, b"", &customs);
        assert!(matches!(refused, Err(NoText::Type(_))), "{refused:?}");

        let record = |value: &[u8]| [&[0, 0, 0, 1, 0, 1, 0x5f, 0x92][..], &field(value)].concat();
        let deep = (0..100_000).fold(Vec::new(), |value, _| match value.len() {
            0..200_000 => record(&value),
            _ => value,
        });
        let refused = push_text(&mut text, 90_002, &deep, &customs);
        assert!(matches!(refused, Err(NoText::Type(_))), "{refused:?}");
    }
}
