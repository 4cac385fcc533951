//! [`WeightiestFailure`]: what a late attempt has to say.

use std::sync::Mutex;

use super::failure::Failure;
use crate::transport::AttemptFailure;
use crate::util::lock;

/// The weightiest failure of an attempt that goes on, which tells why it is late.
#[derive(Debug, Default)]
pub(super) struct WeightiestFailure(Mutex<Option<Failure>>);

impl WeightiestFailure {
    pub(super) fn note(&self, failure: &Failure) {
        let mut known = lock(&self.0);
        if known
            .as_ref()
            .is_none_or(|known| failure.weight() >= known.weight())
        {
            *known = Some(failure.clone());
        }
    }

    pub(super) fn take(&self) -> Option<Failure> {
        lock(&self.0).take()
    }
}
