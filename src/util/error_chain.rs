//! Errors with their causes in one line.
//!
//! A public error prints its own words and leaves those of its cause to `source()`. Its Debug prints both, since that is
//! what a `main` prints that returns the error.

use std::error::Error;

/// Returns an error and its causes in one line.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let cause = error.to_string();
        // Errors of other crates may print their cause themselves.
        if !text.ends_with(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        next = error.source();
    }
    text
}

macro_rules! debug_is_chain {
    ($($error:ty),* $(,)?) => {$(
        /// Prints the message and those of its causes: a `main` that returns the error prints its Debug.
        impl std::fmt::Debug for $error {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&$crate::util::error_chain::chain(self))
            }
        }
    )*};
}

pub(crate) use debug_is_chain;

/// Asserts that no error of a chain prints the words of the one behind it.
#[cfg(test)]
pub(crate) fn assert_each_said_once(error: &(dyn Error + 'static)) {
    let mut outer = error;
    while let Some(source) = outer.source() {
        let (own, cause) = (outer.to_string(), source.to_string());
        assert!(!own.contains(&cause), "{own:?} contains {cause:?}");
        assert!(!cause.contains(&own), "{own:?} is in {cause:?}");
        outer = source;
    }
}
