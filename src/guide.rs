//! Pages that say more than the README, for reading only.

pub mod architecture {
    #![doc = include_str!("../ARCHITECTURE.md")]
}
#[cfg(all(feature = "axum", feature = "migrations"))]
pub mod axum {
    #![doc = include_str!("../docs/axum.md")]
}
/// Shown with the features `axum` and `migrations`.
#[cfg(not(all(feature = "axum", feature = "migrations")))]
pub mod axum {}
pub mod benchmarks {
    #![doc = include_str!("../docs/benchmarks.md")]
}
#[cfg(all(feature = "blocking", feature = "migrations", feature = "r2d2"))]
pub mod blocking {
    #![doc = include_str!("../docs/blocking.md")]
}
/// Shown with the features `blocking`, `migrations` and `r2d2`.
#[cfg(not(all(feature = "blocking", feature = "migrations", feature = "r2d2")))]
pub mod blocking {}
#[cfg(feature = "migrations")]
pub mod ci {
    //! [neon-sim]: https://docs.rs/neon-sim
    #![doc = ""]
    #![doc = include_str!("../docs/ci.md")]
}
/// Shown with the feature `migrations`.
#[cfg(not(feature = "migrations"))]
pub mod ci {}
pub mod contributing {
    #![doc = include_str!("../CONTRIBUTING.md")]
}
pub mod differences {
    #![doc = include_str!("../docs/differences.md")]
}
#[cfg(feature = "http")]
pub mod functions {
    //! [transports]: super::transports
    #![doc = ""]
    #![doc = include_str!("../docs/functions.md")]
}
/// Shown with the feature `http`.
#[cfg(not(feature = "http"))]
pub mod functions {}
pub mod moving {
    #![doc = include_str!("../docs/moving.md")]
}
pub mod neon {
    //! [ci]: super::ci
    //! [sizing]: super::sizing
    #![doc = ""]
    #![doc = include_str!("../docs/neon.md")]
}
pub mod sizing {
    #![doc = include_str!("../docs/sizing.md")]
}
#[cfg(feature = "http")]
pub mod transports {
    #![doc = include_str!("../docs/transports.md")]
}
/// Shown with the feature `http`.
#[cfg(not(feature = "http"))]
pub mod transports {}
pub mod troubleshooting {
    //! [sizing]: super::sizing
    //! [transports]: super::transports
    //! [`blocking`]: super::blocking
    //! [`PoolError`]: crate::PoolError
    //! [`PoolError::is_transient`]: crate::PoolError::is_transient
    //! [`ConnectErrorKind`]: crate::ConnectErrorKind
    #![doc = ""]
    #![doc = include_str!("../docs/troubleshooting.md")]
}
pub mod weight {
    #![doc = include_str!("../docs/weight.md")]
}
