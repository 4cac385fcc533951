//! The `.env` file, and the variables that came from it.

use std::collections::HashMap;
use std::env::VarError;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::{env, fs};

use super::error::EnvError;
use super::source::Source;
use crate::util::lock;

/// Sets the variables of the `.env` file in this folder, or the nearest one above it, that the environment
/// lacks, and returns the file's path; `None` if there is no file.
///
/// Call it first thing in `main`, as the `diesel` CLI does, if more than the URL of [`Pool::from_env`] comes
/// from the file. No variable is set from a file with a line that cannot be understood.
///
/// [`Pool::from_env`]: crate::Pool::from_env
///
/// # Errors
///
/// Returns [`EnvError::DotEnv`] if the file cannot be read or understood.
pub fn load_dotenv() -> Result<Option<PathBuf>, EnvError> {
    let Some(file) = read()? else {
        return Ok(None);
    };
    // dotenvy takes a variable that is not Unicode for unset.
    let unreadable = |name: &String| matches!(env::var(name), Err(VarError::NotUnicode(_)));
    if let Some((name, _)) = file.given.iter().find(|(name, _)| unreadable(name)) {
        let reason =
            format!("{name} is not UTF-8 in the environment, which counts before the file");
        return Err(EnvError::DotEnv {
            path: file.path,
            line: None,
            reason,
        });
    }
    let mut from_file = lock(&FROM_FILE);
    let from_file = from_file.get_or_insert_default();
    for (name, value) in file.given {
        // The environment counts before the file, and in the file the first value of a name.
        if env::var(&name).is_err() {
            let path = file.path.clone();
            from_file.entry(name).or_insert(Loaded { value, path });
        }
    }
    match dotenvy::from_read(file.text.as_bytes()) {
        Ok(()) => Ok(Some(file.path)),
        Err(error) => Err(EnvError::DotEnv {
            path: file.path,
            line: None,
            reason: error.to_string(),
        }),
    }
}

/// A `.env` file and its variables.
pub(super) struct File {
    path: PathBuf,
    text: String,
    given: Vec<(String, String)>,
}

impl File {
    /// Returns the first value of a variable, unless that value is empty.
    pub(super) fn variable(&self, variable: &str) -> Option<(String, Source)> {
        let (_, value) = self.given.iter().find(|(name, _)| name == variable)?;
        let value = Some(value).filter(|value| !value.trim().is_empty())?;
        Some((value.clone(), Source::File(self.path.clone())))
    }
}

/// Reads the nearest `.env` file, if there is one, and sets nothing.
pub(super) fn read() -> Result<Option<File>, EnvError> {
    let Some(path) = nearest() else {
        return Ok(None);
    };
    let unusable = |line, reason: String| EnvError::DotEnv {
        path: path.clone(),
        line,
        reason,
    };
    let bytes = fs::read(&path).map_err(|error| unusable(None, error.to_string()))?;
    let text = std::str::from_utf8(&bytes).map_err(|error| {
        let before = &bytes[..error.valid_up_to()];
        let line = before.split(|byte| *byte == b'\n').count();
        unusable(Some(line), "it is not UTF-8; save it as UTF-8".to_owned())
    })?;
    let text = text.trim_start_matches('\u{feff}');
    let given = dotenvy::from_read_iter(text.as_bytes()).collect::<Result<Vec<_>, _>>();
    let given = given.map_err(|error| match error {
        // The parse error quotes the line, which may hold a password.
        dotenvy::Error::LineParse(quoted, _) => unusable(
            line_of(text, &quoted),
            "it cannot be understood; put the value in single quotes".to_owned(),
        ),
        error => unusable(None, error.to_string()),
    })?;
    let text = text.to_owned();
    Ok(Some(File { path, text, given }))
}

/// Returns where a variable of the process was set, as far as [`load_dotenv`] knows.
pub(super) fn source_of(variable: &str, value: &str) -> Source {
    let from_file = lock(&FROM_FILE);
    match from_file.as_ref().and_then(|loaded| loaded.get(variable)) {
        // The program may have set the variable to another value since the file was read.
        Some(loaded) if loaded.value == value => Source::File(loaded.path.clone()),
        _ => Source::Environment,
    }
}

static FROM_FILE: Mutex<Option<HashMap<String, Loaded>>> = Mutex::new(None);

struct Loaded {
    value: String,
    path: PathBuf,
}

fn nearest() -> Option<PathBuf> {
    let here = env::current_dir().ok()?;
    let mut candidates = here.ancestors().map(|folder: &Path| folder.join(".env"));
    candidates.find(|path| path.is_file())
}

/// Returns the number of the line that the parser has `quoted`, as a whole or its value.
fn line_of(text: &str, quoted: &str) -> Option<usize> {
    let begins = |at: usize| {
        let before = text[..at].trim_end_matches([' ', '\t']);
        before.is_empty() || before.ends_with(['\n', '='])
    };
    let ends = |at: usize| text[at..].is_empty() || text[at..].starts_with(['\n', '\r', '#']);
    let mut places = text.match_indices(quoted);
    let (at, _) = places.find(|(at, _)| begins(*at) && ends(at + quoted.len()))?;
    Some(text[..at].matches('\n').count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_at_fault_is_found() {
        for (text, line) in [
            ("A=1\nB=a b\n", 2),
            ("# B=a b\nA=1\n\nB=a b c\nB=a b\n", 4),
            ("A='1\n2'\r\nB=a b\r\n", 3),
            ("A=1\nB='never\nclosed\n", 2),
            ("A=1\nB=a b", 2),
        ] {
            let parsed = dotenvy::from_read_iter(text.as_bytes()).find_map(Result::err);
            let Some(dotenvy::Error::LineParse(quoted, _)) = parsed else {
                panic!("{text}: {parsed:?}");
            };
            assert_eq!(line_of(text, &quoted), Some(line), "{text}");
        }
    }
}
