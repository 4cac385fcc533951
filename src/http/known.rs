//! [`Known`]: the types that were looked up.

use std::sync::Arc;

use super::text::Customs;
use crate::query::Types;

/// The types that were looked up.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The OIDs of types and of their arrays, by the names that Diesel has for the types.
    pub(super) names: Types,
    pub(super) customs: Arc<Customs>,
}
