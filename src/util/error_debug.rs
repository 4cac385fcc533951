//! Debug of public errors. A `main` that returns an error prints its Debug, so that has to be the message.

macro_rules! debug_is_display {
    ($($error:ty),* $(,)?) => {$(
        /// The message, since a `main` that returns the error prints its Debug.
        impl std::fmt::Debug for $error {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(self, f)
            }
        }
    )*};
}

pub(crate) use debug_is_display;
