//! [`Binds`]: serialized bind parameters, and the OIDs in them that only the database knows.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use diesel::pg::{Pg, PgMetadataLookup, PgTypeMetadata};
use diesel::query_builder::QueryFragment;
use diesel::query_builder::bind_collector::RawBytesBindCollector;
use diesel::result::{Error, QueryResult};
use smallvec::SmallVec;

/// A statement's serialized bind parameters.
#[derive(Debug, Default)]
pub(crate) struct Binds {
    pub(crate) values: Vec<Option<Vec<u8>>>,
    /// The OIDs of the parameters' types, or their placeholders.
    oids: Oids,
    /// Few statements have any, and all others are smaller without.
    lookup: Option<Box<Lookup>>,
}

/// Most statements have few parameters.
type Oids = SmallVec<[u32; 8]>;

/// The types that only the database knows.
#[derive(Debug)]
struct Lookup {
    /// Each with the placeholders of its OID and of its array's OID.
    named: Types,
    /// The OIDs that the placeholders stand for.
    resolved: HashMap<u32, u32>,
    /// Where the values have placeholders inside.
    places: Vec<Place>,
}

/// The position of a placeholder inside a value.
#[derive(Debug)]
struct Place {
    bind: usize,
    byte: usize,
    placeholder: u32,
}

/// The schema of a type, if one was given, and its name.
pub(crate) type TypeName = (Option<String>, String);

/// Types by their names, each with its OID and its array's OID.
pub(crate) type Types = HashMap<TypeName, (u32, u32)>;

impl Binds {
    /// Serializes the binds of `query`.
    ///
    /// Serializing is not async, so types cannot be looked up meanwhile, and placeholders stand for their OIDs. Arrays and
    /// composites carry the OIDs of their elements: where placeholders are inside serialized values shows in the difference
    /// between two passes with two sets of placeholders. diesel-async does the same.
    pub(crate) fn collect(query: &(impl QueryFragment<Pg> + ?Sized)) -> QueryResult<Self> {
        let mut first = RawBytesBindCollector::<Pg>::new();
        let mut lookup = Placeholders::zero();
        query.collect_binds(&mut first, &mut lookup, &Pg)?;
        if !lookup.is_used {
            return Ok(Self {
                values: first.binds,
                oids: oids_of(&first.metadata)?,
                lookup: None,
            });
        }

        let known = first.metadata.iter().flat_map(|metadata| {
            let oid = metadata.oid().unwrap_or_default();
            [oid, metadata.array_oid().unwrap_or_default()]
        });
        let mut second = RawBytesBindCollector::<Pg>::new();
        let mut lookup = Placeholders::above(known.max().unwrap_or_default());
        query.collect_binds(&mut second, &mut lookup, &Pg)?;

        let given: HashSet<u32> = lookup.given.values().flat_map(|(a, b)| [*a, *b]).collect();
        let mut places = Vec::new();
        let binds = first.binds.iter().zip(&first.metadata).zip(&second.binds);
        for (bind, ((zeros, metadata), numbers)) in binds.enumerate() {
            // Only values of a type that is to be looked up have a placeholder inside.
            let (true, Some(zeros), Some(numbers)) = (is_zero(metadata), zeros, numbers) else {
                continue;
            };
            let windows = zeros.windows(OID).zip(numbers.windows(OID));
            places.extend(windows.enumerate().filter_map(|(byte, (zero, number))| {
                let placeholder = u32::from_be_bytes(number.try_into().ok()?);
                let place = Place {
                    bind,
                    byte,
                    placeholder,
                };
                (zero == [0; OID] && given.contains(&placeholder)).then_some(place)
            }));
        }
        Ok(Self {
            values: second.binds,
            oids: oids_of(&second.metadata)?,
            lookup: Some(Box::new(Lookup {
                named: lookup.given,
                resolved: HashMap::new(),
                places,
            })),
        })
    }

    /// Returns the types to look up.
    pub(crate) fn named(&self) -> impl Iterator<Item = &TypeName> {
        self.lookup.iter().flat_map(|lookup| lookup.named.keys())
    }

    /// Replaces the placeholders, or the OIDs of an earlier call, with the OIDs of `types`. Returns whether the OIDs differ
    /// from those of the earlier call.
    pub(crate) fn resolve(&mut self, types: &Types) -> QueryResult<bool> {
        let Some(lookup) = &mut self.lookup else {
            return Ok(false);
        };
        let mut resolved = HashMap::new();
        for (name, (oid, array_oid)) in &lookup.named {
            if let Some((real_oid, real_array_oid)) = types.get(name) {
                resolved.extend([(*oid, *real_oid), (*array_oid, *real_array_oid)]);
            }
        }
        for place in &lookup.places {
            let value = self.values[place.bind].as_mut();
            let bytes = value.and_then(|value| value.get_mut(place.byte..)?.first_chunk_mut());
            let bytes: &mut [u8; OID] = bytes.ok_or_else(|| {
                Error::SerializationError("an OID inside a bind parameter has moved".into())
            })?;
            if let Some(oid) = resolved.get(&place.placeholder) {
                *bytes = oid.to_be_bytes();
            }
        }
        let before = std::mem::replace(&mut lookup.resolved, resolved);
        Ok(before != lookup.resolved)
    }

    /// Returns how many bytes the values take in a request.
    pub(crate) fn size(&self) -> usize {
        let values = self.values.iter();
        let size = |value: &Option<Vec<u8>>| size_of::<i32>() + value.as_ref().map_or(0, Vec::len);
        values.map(size).sum()
    }

    /// Returns the OIDs of the parameters' types.
    pub(crate) fn oids(&self) -> Cow<'_, [u32]> {
        let Some(lookup) = &self.lookup else {
            return Cow::Borrowed(&self.oids);
        };
        let resolved = |oid| lookup.resolved.get(oid).copied().unwrap_or(*oid);
        self.oids.iter().map(resolved).collect()
    }

    #[cfg(test)]
    pub(crate) fn of_types(oids: &[u32]) -> Self {
        Self {
            oids: oids.into(),
            ..Self::default()
        }
    }
}

fn oids_of(types: &[PgTypeMetadata]) -> QueryResult<Oids> {
    let oids = types.iter().map(PgTypeMetadata::oid);
    let oids: Result<_, _> = oids.collect();
    oids.map_err(|error| Error::SerializationError(Box::new(error)))
}

/// How many bytes an OID takes.
const OID: usize = 4;

fn is_zero(metadata: &PgTypeMetadata) -> bool {
    matches!(metadata.oid(), Ok(0))
}

/// Returns a placeholder for every look-up.
struct Placeholders {
    is_used: bool,
    /// The last placeholder; None if all placeholders are zeros.
    last: Option<u32>,
    given: Types,
}

impl Placeholders {
    fn zero() -> Self {
        Self {
            is_used: false,
            last: None,
            given: Types::new(),
        }
    }

    fn above(last: u32) -> Self {
        Self {
            last: Some(last),
            ..Self::zero()
        }
    }
}

impl PgMetadataLookup for Placeholders {
    fn lookup_type(&mut self, name: &str, schema: Option<&str>) -> PgTypeMetadata {
        self.is_used = true;
        let Some(last) = &mut self.last else {
            return PgTypeMetadata::new(0, 0);
        };
        let key = (schema.map(str::to_owned), name.to_owned());
        let (oid, array_oid) = *self.given.entry(key).or_insert_with(|| {
            *last += 2;
            (*last - 1, *last)
        });
        PgTypeMetadata::new(oid, array_oid)
    }
}
