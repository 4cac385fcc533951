//! A new project in a folder of its own, as the reader of a page makes it.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use tokio::process::Command;

use crate::page::Files;

/// Makes a project with `cargo new`, adds what the page says, and builds it. Returns its program.
///
/// Nothing is downloaded: the dependencies are those of this crate's lock file. They are built once for all of these
/// projects, each with the features that its page names.
pub(crate) async fn build(parent: &Path, name: &str, files: Files) -> PathBuf {
    let folder = parent.join(name);
    run(cargo()
        .args(["new", "--quiet", "--vcs", "none"])
        .arg(&folder))
    .await;

    let manifest = folder.join("Cargo.toml");
    let empty = fs::read_to_string(&manifest).unwrap();
    let package = empty.strip_suffix("[dependencies]\n").unwrap();
    let dependencies = by_path(&files.manifest);
    fs::write(&manifest, format!("{package}{dependencies}")).unwrap();
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock");
    fs::copy(lock, folder.join("Cargo.lock")).unwrap();
    for (path, text) in files.sources {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    let target = target();
    let mut build = cargo();
    build.args(["build", "--quiet", "--offline", "--target-dir"]);
    run(build.arg(&target).current_dir(&folder)).await;
    target.join("debug").join(name)
}

/// Only the version of this crate, which no registry has yet, gives way to its path.
fn by_path(dependencies: &str) -> String {
    let version = concat!(
        env!("CARGO_PKG_VERSION_MAJOR"),
        ".",
        env!("CARGO_PKG_VERSION_MINOR")
    );
    let path = format!("path = {:?}", env!("CARGO_MANIFEST_DIR"));
    let alone = format!("diesel-neon = \"{version}\"\n");
    let with_features = format!("diesel-neon = {{ version = \"{version}\",");
    let replaced = dependencies
        .replace(&alone, &format!("diesel-neon = {{ {path} }}\n"))
        .replace(&with_features, &format!("diesel-neon = {{ {path},"));
    assert!(replaced.contains(&path), "{dependencies}");
    replaced
}

/// Returns a folder in the one that the tests are built in.
fn target() -> PathBuf {
    let test = env::current_exe().unwrap();
    test.ancestors().nth(3).unwrap().join("from_the_docs")
}

fn cargo() -> Command {
    // The one that runs the tests; by hand, rustup's, which passes over the toolchain that a dependency names for itself.
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // With what cargo has told this test, dependencies that ask for it would be built anew.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(name);
        }
    }
    // What is built differs from run to run in nothing that these would make use of.
    cargo.env("CARGO_INCREMENTAL", "0");
    cargo.env("CARGO_PROFILE_DEV_DEBUG", "0");
    cargo.kill_on_drop(true);
    cargo
}

async fn run(command: &mut Command) {
    let output = command.output().await.unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {words}");
}
