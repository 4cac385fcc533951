//! Decimal numbers.

use super::reader::{NoText, Reader, show};

const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xc000;
const INFINITY: u16 = 0xd000;
const NEGATIVE_INFINITY: u16 = 0xf000;

/// How many decimal digits one of the binary form's digits stands for.
const GROUP: usize = 4;

/// Appends a decimal number with as many digits behind the point as it has, as the server does.
pub(super) fn push(text: &mut String, reader: &mut Reader<'_>) -> Result<(), NoText> {
    let malformed = NoText::Value(reader.oid);
    let count = usize::try_from(reader.i16()?).map_err(|_| malformed)?;
    let weight = reader.i16()?;
    let sign = u16::from_be_bytes(reader.array()?);
    let scale = usize::try_from(reader.i16()?).map_err(|_| malformed)?;
    let mut digits = Vec::with_capacity(count.min(1000));
    for _ in 0..count {
        match reader.i16()? {
            digit @ 0..10_000 => digits.push(digit),
            _ => return Err(malformed),
        }
    }
    match sign {
        0 => {}
        NEGATIVE => text.push('-'),
        NAN => text.push_str("NaN"),
        INFINITY => text.push_str("Infinity"),
        NEGATIVE_INFINITY => text.push_str("-Infinity"),
        _ => return Err(malformed),
    }
    if sign & NAN == NAN {
        return Ok(());
    }
    // The group at `place` stands for the digit times 10,000 to the power of `place`.
    let group = |place: i32| {
        let at = usize::try_from(i32::from(weight) - place).ok();
        at.and_then(|at| digits.get(at)).copied().unwrap_or(0)
    };
    match weight {
        ..0 => text.push('0'),
        _ => {
            show(text, group(weight.into()));
            for place in (0..i32::from(weight)).rev() {
                show(text, format_args!("{:04}", group(place)));
            }
        }
    }
    if scale > 0 {
        text.push('.');
        let end = text.len() + scale;
        for place in 1..=scale.div_ceil(GROUP) {
            let place = i32::try_from(place).map_err(|_| malformed)?;
            show(text, format_args!("{:04}", group(-place)));
        }
        // The server cuts off what is behind the scale.
        text.truncate(end);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numeric(weight: i16, sign: u16, scale: i16, digits: &[i16]) -> String {
        let mut value = (digits.len() as i16).to_be_bytes().to_vec();
        value.extend(weight.to_be_bytes());
        value.extend(sign.to_be_bytes());
        value.extend(scale.to_be_bytes());
        value.extend(digits.iter().flat_map(|digit| digit.to_be_bytes()));
        let mut text = String::new();
        push(&mut text, &mut Reader::new(1700, &value)).unwrap();
        text
    }

    #[test]
    fn each_digit_and_the_scale_are_kept() {
        assert_eq!(numeric(0, 0, 0, &[]), "0");
        assert_eq!(numeric(0, 0, 2, &[]), "0.00");
        assert_eq!(numeric(0, 0, 2, &[1, 1000]), "1.10");
        assert_eq!(numeric(0, NEGATIVE, 5, &[12, 3400]), "-12.34000");
        assert_eq!(numeric(1, 0, 0, &[1]), "10000");
        assert_eq!(numeric(2, 0, 0, &[1, 0, 7]), "100000007");
        assert_eq!(numeric(-2, 0, 8, &[12]), "0.00000012");
        assert_eq!(numeric(0, 0, 2, &[1, 2345]), "1.23");
        assert_eq!(numeric(0, NAN, 0, &[]), "NaN");
        assert_eq!(numeric(0, INFINITY, 0, &[]), "Infinity");
        assert_eq!(numeric(0, NEGATIVE_INFINITY, 0, &[]), "-Infinity");
    }
}
