//! Roles and databases that are always there.

pub(crate) const SUPERUSER: &str = "cloud_admin";
pub(crate) const OWNER: &str = "neondb_owner";
pub(crate) const DATABASE: &str = "neondb";
