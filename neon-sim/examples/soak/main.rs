//! Load and faults against the pool on a stand-in for Neon, for as long as you like: no write that was
//! acknowledged may be missing or doubled, and no request may fail that had time to succeed.
//!
//! The seed decides what is done and what goes wrong; the machine decides when.

mod rounds;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;

use self::rounds::Soak;

/// Soaks the pool in faults, and checks after each round that nothing is lost, doubled or left behind.
#[derive(Debug, Parser)]
struct Arguments {
    /// How long to go on
    #[arg(long, default_value = "10m", value_parser = humantime::parse_duration)]
    duration: Duration,

    /// The seed that decides everything; drawn at random if it is not given
    #[arg(long)]
    seed: Option<u64>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..));
    println!(
        "seed {seed}, {}",
        humantime::format_duration(arguments.duration)
    );
    let began = Instant::now();
    let mut said = began;
    let mut soak = Soak::start(seed).await;
    while began.elapsed() < arguments.duration {
        let complaints = soak.round().await;
        if !complaints.is_empty() {
            println!("{}", soak.tally());
            for complaint in &complaints {
                println!("  {complaint}");
            }
            println!("FAILED in round {} with --seed {seed}", soak.tally().rounds);
            return ExitCode::FAILURE;
        }
        if said.elapsed() >= Duration::from_secs(60) {
            said = Instant::now();
            let elapsed = Duration::from_secs(began.elapsed().as_secs());
            println!(
                "{}: {} rounds",
                humantime::format_duration(elapsed),
                soak.tally().rounds
            );
        }
    }
    println!("{}", soak.tally());
    println!("nothing is missing, doubled or left behind, and nobody failed who had time");
    ExitCode::SUCCESS
}
