//! Debug of public errors: a `main` that returns an error prints its Debug, which therefore is the message.

macro_rules! debug_is_display {
    ($($error:ty),* $(,)?) => {$(
        /// Prints the message: a `main` that returns the error prints its Debug.
        impl std::fmt::Debug for $error {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(self, f)
            }
        }
    )*};
}

pub(crate) use debug_is_display;
