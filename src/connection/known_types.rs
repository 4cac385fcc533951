//! [`KnownTypes`]: the OIDs of types that were looked up.

use diesel::pg::{PgMetadataCache, PgMetadataCacheKey};

use crate::query::TypeName;

/// The types that were looked up.
#[derive(Default)]
pub(super) struct KnownTypes {
    cache: PgMetadataCache,
    /// The version of the schema that they are of.
    schema: u64,
}

impl KnownTypes {
    pub(super) fn find(&mut self, name: &TypeName, schema: u64) -> Option<(u32, u32)> {
        self.keep_up_with(schema);
        let known = self.cache.lookup_type(&cache_key(name))?;
        Some((known.oid().ok()?, known.array_oid().ok()?))
    }

    pub(super) fn store(&mut self, name: &TypeName, oids: (u32, u32), schema: u64) {
        self.keep_up_with(schema);
        self.cache.store_type(cache_key(name), oids);
    }

    /// Forgets types that are of another version of the schema.
    fn keep_up_with(&mut self, schema: u64) {
        if self.schema != schema {
            self.clear();
            self.schema = schema;
        }
    }

    pub(super) fn clear(&mut self) {
        self.cache = PgMetadataCache::new();
    }
}

fn cache_key((schema, name): &TypeName) -> PgMetadataCacheKey<'static> {
    PgMetadataCacheKey::new(
        schema.as_ref().map(|schema| schema.clone().into()),
        name.clone().into(),
    )
}
