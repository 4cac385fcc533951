//! Single values in JSON.

use tokio_postgres::types::Type;

/// A value cannot be told in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotJson;

/// Appends a value that is no array, in PostgreSQL's text, as JSON.
pub(super) fn push_scalar(json: &mut String, text: &str, kind: &Type) -> Result<(), NotJson> {
    match *kind {
        Type::BOOL => json.push_str(if text == "t" { "true" } else { "false" }),
        Type::INT2 | Type::INT4 => {
            let number: i32 = text.parse().map_err(|_| NotJson)?;
            json.push_str(&number.to_string());
        }
        Type::FLOAT4 | Type::FLOAT8 => {
            let number: f64 = text.parse().map_err(|_| NotJson)?;
            match number.is_finite() {
                true => json.push_str(&serde_json::Value::from(number).to_string()),
                false => push_string(json, text),
            }
        }
        Type::JSON | Type::JSONB => json.push_str(text),
        _ => push_string(json, text),
    }
    Ok(())
}

pub(super) fn push_null(json: &mut String) {
    json.push_str("null");
}

pub(super) fn push_string(json: &mut String, text: &str) {
    json.push_str(&serde_json::Value::from(text).to_string());
}
