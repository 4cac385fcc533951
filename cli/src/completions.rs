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
    // `generate` panics if its writer fails, as stdout does when its reader has gone.
    let mut script = Vec::new();
    let mut command = Cli::command();
    match options.shell {
        // For a name with a hyphen, clap_complete writes case labels that its own look-up does not find.
        Shell::Bash => {
            let mut plain = Vec::new();
            generate(options.shell, &mut command.name(PLAIN), PLAIN, &mut plain);
            let plain = String::from_utf8_lossy(&plain);
            for line in plain.lines() {
                let line = match line.trim_start().starts_with("complete -F ") {
                    true => line.replace(&format!(" {PLAIN}"), " diesel-neon"),
                    false => line.to_owned(),
                };
                script.extend_from_slice(line.as_bytes());
                script.push(b'\n');
            }
        }
        shell => generate(shell, &mut command, "diesel-neon", &mut script),
    }
    io::stdout().write_all(&script).map_err(Failure::Output)?;
    Ok(ExitCode::SUCCESS)
}

const PLAIN: &str = "diesel_neon";
