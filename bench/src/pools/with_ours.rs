//! This crate's pool.

use std::time::Duration;

use super::{Configuration, Pool, Settings};

#[derive(Clone)]
pub struct Ours(pub diesel_neon::Pool);

impl Pool for Ours {
    async fn build(url: &str, settings: Settings) -> Self {
        let mut builder = diesel_neon::Pool::builder(url)
            .max_size(settings.max_size)
            .checkout_timeout(settings.patience);
        if settings.configuration == Configuration::Unchecked {
            builder = builder.validation_bypass(Duration::from_secs(100));
        }
        Self(builder.build().expect("a pool"))
    }

    look_up_and_hold!();
}
