//! Pages that say more than the README, for reading only.

pub mod architecture {
    #![doc = include_str!("../ARCHITECTURE.md")]
}
pub mod benchmarks {
    #![doc = include_str!("../docs/benchmarks.md")]
}
#[cfg(all(feature = "blocking", feature = "migrations", feature = "r2d2"))]
pub mod blocking {
    #![doc = include_str!("../docs/blocking.md")]
}
pub mod differences {
    #![doc = include_str!("../docs/differences.md")]
}
pub mod moving {
    #![doc = include_str!("../docs/moving.md")]
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
    //! [`PoolError`]: crate::PoolError
    //! [`PoolError::is_transient`]: crate::PoolError::is_transient
    //! [`ConnectErrorKind`]: crate::ConnectErrorKind
    #![doc = ""]
    #![doc = include_str!("../docs/troubleshooting.md")]
}
pub mod weight {
    #![doc = include_str!("../docs/weight.md")]
}
