//! [`Source`]: the place where a variable is set.

use std::fmt;
use std::path::PathBuf;

/// The place where a variable is set.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Source {
    /// The environment of the process.
    Environment,
    /// A `.env` file, read by [`load_dotenv`](super::load_dotenv): weaker than the environment.
    File(PathBuf),
}

impl Source {
    pub(super) fn layer(&self) -> Layer {
        match self {
            Self::Environment => Layer::Environment,
            Self::File(_) => Layer::File,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment => f.write_str("the environment"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// The strength of a source: a variable in the environment was set for this very process.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Layer {
    Environment,
    File,
}

impl Layer {
    pub(super) const STRONGEST_FIRST: [Self; 2] = [Self::Environment, Self::File];
}
