//! A statement's result in JSON.

use tokio_postgres::types::{Kind, Type};

use super::array::push_array;
use super::scalar::{NotJson, push_null, push_scalar, push_string};

/// A column of a result.
#[derive(Clone, Debug)]
pub(super) struct Column {
    name: String,
    table: u32,
    number: i16,
    kind: u32,
    size: i16,
    modifier: i32,
}

impl Column {
    /// Reads a RowDescription.
    pub(super) fn all(body: &[u8]) -> Option<Vec<Self>> {
        let (count, mut rest) = body.split_first_chunk::<2>()?;
        let mut columns = Vec::new();
        for _ in 0..u16::from_be_bytes(*count) {
            let end = rest.iter().position(|byte| *byte == 0)?;
            let name = String::from_utf8_lossy(&rest[..end]).into_owned();
            let (facts, after) = rest[end + 1..].split_first_chunk::<18>()?;
            let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, _, _] = *facts;
            rest = after;
            columns.push(Self {
                name,
                table: u32::from_be_bytes([a, b, c, d]),
                number: i16::from_be_bytes([e, f]),
                kind: u32::from_be_bytes([g, h, i, j]),
                size: i16::from_be_bytes([k, l]),
                modifier: i32::from_be_bytes([m, n, o, p]),
            });
        }
        Some(columns)
    }

    fn push(&self, json: &mut String) {
        json.push_str("{\"name\":");
        push_string(json, &self.name);
        json.push_str(&format!(
            ",\"dataTypeID\":{},\"tableID\":{},\"columnID\":{},\"dataTypeSize\":{},\
             \"dataTypeModifier\":{},\"format\":\"text\"}}",
            self.kind, self.table, self.number, self.size, self.modifier
        ));
    }
}

/// The forms that rows come in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    pub(super) raw_text: bool,
    pub(super) array_mode: bool,
}

pub(super) fn push_columns(json: &mut String, columns: &[Column]) {
    push_list(json, columns, |json, column| column.push(json));
}

/// Appends a DataRow.
pub(super) fn push_row(
    json: &mut String,
    columns: &[Column],
    body: &[u8],
    form: Form,
) -> Result<(), NotJson> {
    json.push(if form.array_mode { '[' } else { '{' });
    let mut rest = body.get(2..).ok_or(NotJson)?;
    for (index, column) in columns.iter().enumerate() {
        if index > 0 {
            json.push(',');
        }
        // Columns of the same name are keys of the same name.
        if !form.array_mode {
            push_string(json, &column.name);
            json.push(':');
        }
        let (length, after) = rest.split_first_chunk::<4>().ok_or(NotJson)?;
        let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
            push_null(json);
            rest = after;
            continue;
        };
        let (value, after) = after.split_at_checked(length).ok_or(NotJson)?;
        rest = after;
        let value = str::from_utf8(value).map_err(|_| NotJson)?;
        match Type::from_oid(column.kind) {
            Some(kind) if !form.raw_text => push_value(json, value, &kind)?,
            _ => push_string(json, value),
        }
    }
    json.push(if form.array_mode { ']' } else { '}' });
    Ok(())
}

/// Appends a value in PostgreSQL's text as JSON.
fn push_value(json: &mut String, text: &str, kind: &Type) -> Result<(), NotJson> {
    match kind.kind() {
        Kind::Array(element) => push_array(json, text, element),
        _ => push_scalar(json, text, kind),
    }
}

/// Appends the last of a result, from the command's tag.
pub(super) fn push_command(json: &mut String, tag: &str) {
    let (command, rest) = tag.split_once(' ').unwrap_or((tag, ""));
    // An OID stands in front of an INSERT's count.
    let count = match command {
        "INSERT" => rest.split_once(' ').map_or("", |(_, count)| count),
        _ => rest,
    };
    json.push_str(",\"command\":");
    push_string(json, command);
    json.push_str(",\"rowCount\":");
    match count.parse::<i64>() {
        Ok(count) => json.push_str(&count.to_string()),
        Err(_) => push_null(json),
    }
}

pub(super) fn push_list<T>(json: &mut String, items: &[T], push: impl Fn(&mut String, &T)) {
    json.push('[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            json.push(',');
        }
        push(json, item);
    }
    json.push(']');
}
