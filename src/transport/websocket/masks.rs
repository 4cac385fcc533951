//! [`Masks`]: the masks of a client's frames, which nobody can foresee (RFC 6455, section 5.3).

use std::io;

/// Random masks, of which several are made at a time.
#[derive(Debug)]
pub(super) struct Masks {
    random: [[u8; 4]; BATCH],
    /// How many of them have been used.
    used: usize,
}

impl Masks {
    pub(super) fn next(&mut self) -> io::Result<[u8; 4]> {
        if self.used == BATCH {
            let source = rustls::crypto::ring::default_provider().secure_random;
            let filled = source.fill(self.random.as_flattened_mut());
            filled.map_err(|_| io::Error::other("the system gives no random numbers"))?;
            self.used = 0;
        }
        let mask = self.random[self.used];
        self.used += 1;
        Ok(mask)
    }
}

impl Default for Masks {
    fn default() -> Self {
        Self {
            random: [[0; 4]; BATCH],
            used: BATCH,
        }
    }
}

const BATCH: usize = 32;
