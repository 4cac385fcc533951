//! Times on the command line.

use std::time::Duration;

use diesel_neon::Policy;

/// Parses `500ms`, `15s`, `5m`, `1h`, and a bare number as seconds.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let millis: u64 = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        _ => return Err(EXPECTED.to_owned()),
    };
    let number: u64 = number.parse().map_err(|_| EXPECTED.to_owned())?;
    match number.checked_mul(millis) {
        Some(0) | None => {
            Err("expected more than zero, and less than 2^64 milliseconds".to_owned())
        }
        Some(millis) => Ok(Duration::from_millis(millis)),
    }
}

/// The time after which the compute is suspended, if it ever is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Window {
    After(Duration),
    Never,
}

/// Parses a duration that a pool takes for a window, or `never`.
pub(crate) fn window(text: &str) -> Result<Window, String> {
    if text == "never" {
        return Ok(Window::Never);
    }
    let window = parse(text)?;
    let policy = Policy::builder().suspend_after(window).build();
    policy.map_err(|error| error.to_string())?;
    Ok(Window::After(window))
}

const EXPECTED: &str = "expected a number with ms, s, m or h behind it, such as 300s";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_one_that_a_pool_takes() {
        assert!(matches!(window("never"), Ok(Window::Never)));
        assert!(matches!(window("60s"), Ok(Window::After(_))));
        let error = window("1ms").unwrap_err();
        assert!(error.contains("suspend_after"), "{error}");
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(parse("300").unwrap(), Duration::from_secs(300));
        assert_eq!(parse("5m").unwrap(), Duration::from_secs(300));
        assert_eq!(parse("250ms").unwrap(), Duration::from_millis(250));
        for wrong in [
            "",
            "s",
            "0",
            "-1s",
            "1.5s",
            "5 m",
            "1d",
            "99999999999999999h",
        ] {
            parse(wrong).unwrap_err();
        }
    }
}
