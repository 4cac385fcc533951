//! `diesel-neon completions`: scripts for shells.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Args, CommandFactory};
use clap_complete::{Shell, generate};

use crate::{Cli, Failure};

#[derive(Args)]
pub(crate) struct Options {
    /// The shell
    shell: Shell,
}

pub(crate) const ABOUT: &str = "\
Print a script that completes this command's arguments in a shell

    diesel-neon completions bash > ~/.local/share/bash-completion/completions/diesel-neon
    diesel-neon completions zsh  > \"${fpath[1]}/_diesel-neon\"
    diesel-neon completions fish > ~/.config/fish/completions/diesel-neon.fish";

pub(crate) fn run(options: &Options) -> Result<ExitCode, Failure> {
    // `generate` panics where its writer fails, as a pipe may that nobody reads any more.
    let mut script = Vec::new();
    generate(
        options.shell,
        &mut Cli::command(),
        "diesel-neon",
        &mut script,
    );
    io::stdout().write_all(&script).map_err(Failure::Output)?;
    Ok(ExitCode::SUCCESS)
}
