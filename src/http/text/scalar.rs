//! Values without parts: numbers, text, bytes, identifiers and network addresses.

use std::net::{Ipv4Addr, Ipv6Addr};

use tokio_postgres::types::Type;

use super::reader::{NoText, Reader, show};
use super::{numeric, time};

/// Appends a value of a type that every database has.
pub(super) fn push(text: &mut String, kind: &Type, value: &[u8]) -> Result<(), NoText> {
    let oid = kind.oid();
    let mut reader = Reader::new(oid, value);
    match *kind {
        Type::BOOL => text.push(match reader.array()? {
            [0] => 'f',
            _ => 't',
        }),
        Type::INT2 => show(text, reader.i16()?),
        Type::INT4 => show(text, reader.i32()?),
        Type::INT8 => show(text, reader.i64()?),
        Type::FLOAT4 => {
            let number = f32::from_be_bytes(reader.array()?);
            push_float(text, number.into(), format_args!("{number:e}"));
        }
        Type::FLOAT8 => {
            let number = f64::from_be_bytes(reader.array()?);
            push_float(text, number, format_args!("{number:e}"));
        }
        Type::NUMERIC => numeric::push(text, &mut reader)?,
        Type::OID
        | Type::XID
        | Type::CID
        | Type::REGPROC
        | Type::REGPROCEDURE
        | Type::REGOPER
        | Type::REGOPERATOR
        | Type::REGCLASS
        | Type::REGTYPE
        | Type::REGROLE
        | Type::REGNAMESPACE
        | Type::REGCONFIG
        | Type::REGDICTIONARY
        | Type::REGCOLLATION => show(text, reader.u32()?),
        Type::XID8 => show(text, u64::from_be_bytes(reader.array()?)),
        Type::TEXT
        | Type::VARCHAR
        | Type::BPCHAR
        | Type::NAME
        | Type::UNKNOWN
        | Type::JSON
        | Type::XML => text.push_str(reader.text()?),
        Type::JSONB | Type::JSONPATH => match reader.array()? {
            [1] => text.push_str(reader.text()?),
            _ => return Err(NoText::Value(oid)),
        },
        Type::CHAR => match reader.array()? {
            [0] => {}
            // Servers differ in how they write others.
            [byte] if byte.is_ascii() => text.push(char::from(byte)),
            _ => return Err(NoText::Value(oid)),
        },
        Type::BYTEA => {
            text.reserve(2 + 2 * value.len());
            text.push_str("\\x");
            push_hex(text, reader.bytes(value.len())?);
        }
        Type::UUID => push_groups(text, &reader.array::<16>()?, &[4, 2, 2, 2, 6], '-'),
        Type::MACADDR => push_groups(text, &reader.array::<6>()?, &[1; 6], ':'),
        Type::MACADDR8 => push_groups(text, &reader.array::<8>()?, &[1; 8], ':'),
        Type::INET | Type::CIDR => push_network(text, &mut reader)?,
        Type::DATE => time::push_date(text, reader.i32()?),
        Type::TIME => time::push_time(text, reader.i64()?),
        Type::TIMETZ => time::push_time_with_zone(text, reader.i64()?, reader.i32()?),
        Type::TIMESTAMP => time::push_timestamp(text, reader.i64()?, ""),
        Type::TIMESTAMPTZ => time::push_timestamp(text, reader.i64()?, "+00"),
        Type::INTERVAL => {
            time::push_interval(text, reader.i64()?, reader.i32()?, reader.i32()?);
        }
        Type::PG_LSN => {
            let [high, low] = [reader.u32()?, reader.u32()?];
            show(text, format_args!("{high:X}/{low:X}"));
        }
        Type::BIT | Type::VARBIT => {
            let length = usize::try_from(reader.i32()?).map_err(|_| NoText::Value(oid))?;
            let bytes = reader.bytes(length.div_ceil(8))?;
            let bits = (0..length).map(|at| bytes[at / 8] & (0x80 >> (at % 8)) != 0);
            text.extend(bits.map(|is_set| if is_set { '1' } else { '0' }));
        }
        _ => return Err(NoText::Type(oid)),
    }
    reader.end()
}

/// Appends a number, whose `shortest` digits read back as the same.
fn push_float(text: &mut String, number: f64, shortest: std::fmt::Arguments<'_>) {
    match number {
        f64::INFINITY => text.push_str("Infinity"),
        f64::NEG_INFINITY => text.push_str("-Infinity"),
        _ if number.is_nan() => text.push_str("NaN"),
        _ => show(text, shortest),
    }
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    let digit = |nibble: u8| char::from(HEX[usize::from(nibble & 15)]);
    text.extend(
        bytes
            .iter()
            .flat_map(|byte| [digit(byte >> 4), digit(*byte)]),
    );
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Appends groups of bytes, with a separator between them.
fn push_groups(text: &mut String, bytes: &[u8], lengths: &[usize], separator: char) {
    let mut rest = bytes;
    for (index, length) in lengths.iter().enumerate() {
        if index > 0 {
            text.push(separator);
        }
        let (group, later) = rest.split_at(*length);
        push_hex(text, group);
        rest = later;
    }
}

/// Appends money, given in hundredths.
pub(super) fn push_money(text: &mut String, reader: &mut Reader<'_>) -> Result<(), NoText> {
    let hundredths = reader.i64()?;
    if hundredths < 0 {
        text.push('-');
    }
    let hundredths = hundredths.unsigned_abs();
    show(
        text,
        format_args!("{}.{:02}", hundredths / 100, hundredths % 100),
    );
    Ok(())
}

/// Appends an embedding: its numbers in brackets.
pub(super) fn push_vector(text: &mut String, reader: &mut Reader<'_>) -> Result<(), NoText> {
    let (count, _unused) = (reader.i16()?, reader.i16()?);
    text.push('[');
    for index in 0..count {
        if index > 0 {
            text.push(',');
        }
        show(
            text,
            format_args!("{:e}", f32::from_be_bytes(reader.array()?)),
        );
    }
    text.push(']');
    Ok(())
}

fn push_network(text: &mut String, reader: &mut Reader<'_>) -> Result<(), NoText> {
    let [_family, bits, _is_cidr, length] = reader.array()?;
    match length {
        4 => show(text, Ipv4Addr::from(reader.array::<4>()?)),
        16 => show(text, Ipv6Addr::from(reader.array::<16>()?)),
        _ => return Err(NoText::Value(reader.oid)),
    }
    show(text, format_args!("/{bits}"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::container::push_text;
    use super::super::custom::Customs;
    use super::*;

    fn text(kind: &Type, value: &[u8]) -> Result<String, NoText> {
        let mut text = String::new();
        push_text(&mut text, kind.oid(), value, &Customs::new()).map(|()| text)
    }

    #[test]
    fn numbers_have_their_shortest_digits() {
        let float = |number: f64| text(&Type::FLOAT8, &number.to_be_bytes()).unwrap();
        for (number, shown) in [
            (0.1, "1e-1"),
            (-0.0, "-0e0"),
            (f64::MAX, "1.7976931348623157e308"),
            (f64::from_bits(1), "5e-324"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Infinity"),
        ] {
            assert_eq!(float(number), shown);
        }
        let shown = text(&Type::FLOAT4, &0.1_f32.to_be_bytes()).unwrap();
        assert_eq!(shown, "1e-1");
    }

    #[test]
    fn bytes_that_are_no_value_are_refused() {
        for kind in [
            Type::BOOL,
            Type::INT4,
            Type::NUMERIC,
            Type::UUID,
            Type::INET,
            Type::TIMESTAMP,
            Type::INTERVAL,
            Type::INT4_ARRAY,
            Type::INT4_RANGE,
            Type::INT4MULTI_RANGE,
            Type::JSONB,
            Type::VARBIT,
        ] {
            for value in [&b""[..], b"\x7f\xff\xff", &[0xff; 33]] {
                assert_eq!(
                    text(&kind, value),
                    Err(NoText::Value(kind.oid())),
                    "{kind} {value:?}"
                );
            }
        }
        assert_eq!(text(&Type::POINT, &[0; 16]), Err(NoText::Type(600)));
        assert_eq!(text(&Type::TEXT, b"\xff"), Err(NoText::Value(25)));
    }
}
