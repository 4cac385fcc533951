//! Ten seconds of `cargo run -p neon-sim --example soak`.

#[path = "../examples/soak/rounds/mod.rs"]
mod rounds;

use std::time::{Duration, Instant};

use rounds::Soak;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_doubled_or_left_behind_and_nobody_fails_who_had_time() {
    let mut soak = Soak::start(20).await;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(10) {
        let complaints = soak.round().await;
        assert!(complaints.is_empty(), "{complaints:#?}\n{}", soak.tally());
    }
    println!("{}", soak.tally());
}
