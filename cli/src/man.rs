//! `diesel-neon man`: the manual's pages.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory};
use clap_mangen::{Man, generate_to};

use crate::{Cli, Failure};

#[derive(Args)]
pub(crate) struct Options {
    /// Write the pages of all subcommands into this folder, instead of printing the first
    #[arg(value_name = "FOLDER")]
    into: Option<PathBuf>,
}

pub(crate) const ABOUT: &str = "\
Print the manual's page, or write all pages into a folder

    diesel-neon man | man -l -
    diesel-neon man ~/.local/share/man/man1";

pub(crate) fn run(options: &Options) -> Result<ExitCode, Failure> {
    match &options.into {
        Some(folder) => {
            let unwritable = |source| Failure::Folder {
                path: folder.clone(),
                source,
            };
            fs::create_dir_all(folder).map_err(unwritable)?;
            generate_to(Cli::command(), folder).map_err(unwritable)?;
        }
        None => {
            let mut page = Vec::new();
            Man::new(Cli::command().disable_help_subcommand(true))
                .render(&mut page)
                .map_err(Failure::Output)?;
            io::stdout().write_all(&page).map_err(Failure::Output)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
