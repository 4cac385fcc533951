//! Arrays as Neon's proxy makes JSON of them, which is not always right: an empty one has one element.

use tokio_postgres::types::Type;

use super::scalar::{NotJson, push_null, push_scalar};

/// Appends an array in PostgreSQL's text as JSON.
pub(super) fn push_array(json: &mut String, text: &str, element: &Type) -> Result<(), NotJson> {
    // Bounds other than from 1 on cannot be told.
    let text = match text.starts_with('[') {
        true => text.split_once('=').ok_or(NotJson)?.1,
        false => text,
    };
    match push_level(json, text.trim_start(), element)? {
        "" => Ok(()),
        _ => Err(NotJson),
    }
}

/// Appends the array that a text begins with; returns the rest of the text.
fn push_level<'a>(json: &mut String, text: &'a str, element: &Type) -> Result<&'a str, NotJson> {
    let mut rest = text.strip_prefix('{').ok_or(NotJson)?;
    json.push('[');
    loop {
        rest = push_element(json, rest.trim_start(), element)?;
        match rest.strip_prefix(',') {
            Some(next) => rest = next,
            None => break,
        }
        json.push(',');
    }
    json.push(']');
    Ok(rest.strip_prefix('}').ok_or(NotJson)?.trim_start())
}

fn push_element<'a>(json: &mut String, text: &'a str, kind: &Type) -> Result<&'a str, NotJson> {
    if text.starts_with('{') {
        return push_level(json, text, kind);
    }
    if let Some(quoted) = text.strip_prefix('"') {
        let mut value = String::new();
        let mut characters = quoted.char_indices();
        while let Some((at, character)) = characters.next() {
            match character {
                '"' => {
                    push_scalar(json, &value, kind)?;
                    return Ok(quoted[at + 1..].trim_start());
                }
                '\\' => value.push(characters.next().ok_or(NotJson)?.1),
                other => value.push(other),
            }
        }
        return Err(NotJson);
    }
    let (value, rest) = text.split_at(text.find([',', '}']).ok_or(NotJson)?);
    match value.trim_end() {
        "NULL" => push_null(json),
        value => push_scalar(json, value, kind)?,
    }
    Ok(rest)
}
