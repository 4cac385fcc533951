//! This crate's pool, with a hook at each checkout, and with statements looked after.

use std::time::Duration;

use futures_util::FutureExt;

use crate::pools::{Pool, Settings, look_up_and_hold};

#[derive(Clone)]
pub struct Watched(diesel_neon::Pool);

impl Pool for Watched {
    async fn build(url: &str, settings: Settings) -> Self {
        let builder = diesel_neon::Pool::builder(url)
            .max_size(settings.max_size)
            .checkout_timeout(settings.patience)
            .validation_bypass(Duration::from_secs(100))
            .silence_threshold(Duration::from_secs(1))
            .before_acquire(|_, _| async { Ok(true) }.boxed());
        Self(builder.build().expect("a pool"))
    }

    look_up_and_hold!();
}
