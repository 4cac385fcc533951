//! `diesel-neon url`: which URL is used, and why.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;
use diesel_neon::env::{Source, app_url, direct_url, load_dotenv};
use diesel_neon::{DatabaseUrl, Encryption, Endpoint};
use serde::Serialize;

use crate::{Failure, note};

#[derive(Args)]
pub(crate) struct Options {
    /// The URL that migrations and the `diesel` CLI use
    #[arg(long, conflicts_with = "pooled")]
    direct: bool,
    /// The app's URL through Neon's pooler
    #[arg(long)]
    pooled: bool,
    /// Print the password instead of ***, in the form that libpq's programs take
    #[arg(long)]
    show_password: bool,
    /// Print one JSON object, with the reason in it
    #[arg(long)]
    json: bool,
}

/// The object that `--json` prints. Fields may be added; none changes its meaning.
#[derive(Serialize)]
struct Shown<'a> {
    url: &'a str,
    kind: String,
    variable: &'static str,
    /// The `.env` file that sets the variable, unless the environment does.
    file: Option<String>,
    /// Whether `-pooler` was added to the host or taken off it.
    derived: bool,
    hosts: Vec<ShownHost>,
    database: Option<&'a str>,
    user: Option<&'a str>,
    ignored: &'a [String],
}

#[derive(Serialize)]
struct ShownHost {
    name: String,
    port: u16,
}

pub(crate) const ABOUT: &str = "\
Print the database URL that is used, and why

The URL goes to stdout, the reason to stderr. Without an option it is the app's URL, as it is given:

    diesel-neon url
    export DIRECT_URL=\"$(diesel-neon url --direct --show-password)\"";

pub(crate) fn run(options: &Options) -> Result<ExitCode, Failure> {
    load_dotenv()?;
    let found = match options.direct {
        true => direct_url()?,
        false => app_url()?,
    };
    let mut reason = found.to_string();
    let mut derived = found.derived;
    let mut url = found.url;
    if options.pooled && url.endpoint() == Endpoint::Direct {
        url = url.pooled()?;
        reason.push_str(", with -pooler");
        derived = true;
    }
    let text = match options.show_password {
        true => for_libpq(&url),
        false => url.to_string(),
    };
    if options.json {
        let hosts = url.hosts().iter().map(|host| ShownHost {
            name: host.name.to_string(),
            port: host.port,
        });
        let shown = Shown {
            url: &text,
            kind: url.endpoint().to_string(),
            variable: found.variable,
            file: match &found.source {
                Source::File(path) => Some(path.display().to_string()),
                _ => None,
            },
            derived,
            hosts: hosts.collect(),
            database: url.database(),
            user: url.user(),
            ignored: url.ignored(),
        };
        let json = serde_json::to_string_pretty(&shown).map_err(io::Error::from);
        let json = json.map_err(Failure::Output)?;
        writeln!(io::stdout(), "{json}").map_err(Failure::Output)?;
        return Ok(ExitCode::SUCCESS);
    }

    note(format_args!(
        "the {} endpoint, from {reason}",
        url.endpoint()
    ));
    if !url.ignored().is_empty() {
        let ignored = url.ignored().join(", ");
        note(format_args!(
            "ignored in it, for other tools only: {ignored}"
        ));
    }
    writeln!(io::stdout(), "{text}").map_err(Failure::Output)?;
    Ok(ExitCode::SUCCESS)
}

/// Renders for libpq, and says so if libpq gets another protection than the URL asks for.
pub(crate) fn for_libpq(url: &DatabaseUrl) -> String {
    let text = url.to_libpq();
    if *url.encryption() == Encryption::Plain && !text.contains("sslmode=disable") {
        note(format_args!(
            "note: libpq does not look at the address that a name leads to, so it gets \
             sslmode=verify-full; for plain text put the private address into hostaddr"
        ));
    }
    text
}
