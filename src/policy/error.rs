//! [`PolicyError`]: the settings that contradict.

use std::time::Duration;

/// Settings contradict.
#[derive(Clone, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// A setting is zero that must not be.
    #[error("{setting} must be more than zero")]
    Zero {
        /// The setting.
        setting: &'static str,
    },
    /// A setting is so short that connections would be replaced as soon as they are established.
    #[error(
        "{setting} ({value:?}) must be at least {least:?}: connections would be over before they can be handed out"
    )]
    TooShort {
        /// The setting.
        setting: &'static str,
        /// Its value.
        value: Duration,
        /// The smallest value that is allowed.
        least: Duration,
    },
    /// A setting is more than there is room for.
    #[error("{setting} ({value}) must be at most {most}")]
    TooMany {
        /// The setting.
        setting: &'static str,
        /// Its value.
        value: u32,
        /// The most that it may be.
        most: u32,
    },
    /// A setting would keep the compute awake.
    #[error(
        "{setting} keeps the compute awake, and you pay for it: leave it out, or declare with \
         never_suspends() that scale to zero is off"
    )]
    KeepsAwake {
        /// The setting.
        setting: &'static str,
    },
    /// A setting asks for more connections than `max_size`.
    #[error("{setting} must not be above max_size")]
    MoreThanMaxSize {
        /// The setting.
        setting: &'static str,
    },
    /// A setting is not below the one that bounds it.
    #[error("{setting} ({value:?}) must be below {limit_setting} ({limit:?})")]
    NotBelow {
        /// The setting.
        setting: &'static str,
        /// Its value.
        value: Duration,
        /// The setting that bounds it.
        limit_setting: &'static str,
        /// That one's value.
        limit: Duration,
    },
    /// A setting is above the one that bounds it.
    #[error("{setting} ({value:?}) must not be above {limit_setting} ({limit:?})")]
    Above {
        /// The setting.
        setting: &'static str,
        /// Its value.
        value: Duration,
        /// The setting that bounds it.
        limit_setting: &'static str,
        /// That one's value.
        limit: Duration,
    },
}

crate::util::debug_is_chain!(PolicyError);
