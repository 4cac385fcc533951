//! [`Known`]: what was looked up.

use std::sync::Arc;

use super::text::Customs;
use crate::query::Types;

/// What was looked up: types, and the time zone.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The OIDs of types and of their arrays, by the names that Diesel has for the types.
    pub(super) names: Types,
    pub(super) customs: Arc<Customs>,
    /// Whether the role's time zone is UTC, if that was looked at.
    pub(super) is_utc: Option<bool>,
}
