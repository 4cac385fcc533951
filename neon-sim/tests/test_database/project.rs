//! The README's own example, in an empty project.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

/// Returns the blocks of the README in this language, as they stand.
fn blocks<'a>(readme: &'a str, language: &str) -> Vec<&'a str> {
    let begin = format!("```{language}\n");
    let parts = readme.split(&*begin).skip(1);
    let blocks = parts.map(|part| part.split("```").next().unwrap());
    blocks.collect()
}

/// The manifest and the tests are the README's; only the versions of the packages from here are replaced by their folders.
#[tokio::test]
async fn the_readmes_tests_run_in_an_empty_project() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let repository = here.parent().unwrap();
    let readme = fs::read_to_string(here.join("README.md")).unwrap();
    let [manifest, more] = blocks(&readme, "toml")[..] else {
        panic!("the README has a manifest, and more for tokio-postgres");
    };
    let mut manifest = format!("{manifest}{more}\n[workspace]\n");
    for (name, folder) in [("diesel-neon", repository), ("neon-sim", here)] {
        let line = format!("\n{name} = {{ version = \"0.1\"");
        assert!(manifest.contains(&line), "{line} is not in {manifest}");
        let path = format!("\n{name} = {{ path = \"{}\"", folder.display());
        manifest = manifest.replace(&line, &path);
    }
    let project = tempfile::tempdir().unwrap();
    let write = |path: PathBuf, text: &str| {
        let path = project.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("Cargo.toml".into(), &manifest);
    write("src/lib.rs".into(), "");
    let migration = readme.split("migration in `").nth(1).unwrap();
    let migration = migration.split('`').next().unwrap();
    write(migration.into(), blocks(&readme, "sql")[0]);
    let mut all = String::new();
    for (index, test) in blocks(&readme, "rust").into_iter().enumerate() {
        write(format!("tests/all/example_{index}.rs").into(), test);
        all.push_str(&format!("mod example_{index};\n"));
    }
    write("tests/all/main.rs".into(), &all);
    fs::copy(
        repository.join("Cargo.lock"),
        project.path().join("Cargo.lock"),
    )
    .unwrap();

    let program = build(project.path()).await;
    let mut tests = Command::new(program);
    tests.current_dir(project.path()).kill_on_drop(true);
    let output = timeout(HANG, tests.output()).await.expect("no hang");
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("4 passed"), "{said}");
}

/// Only a test that hangs takes so long.
const HANG: Duration = Duration::from_secs(300);

/// Builds the project's tests, and returns their program. Nothing is downloaded: the lock file is the repository's.
async fn build(project: &Path) -> PathBuf {
    let here = env::current_exe().unwrap();
    // Other projects that tests make are built there, too, of the same dependencies.
    let target = here.ancestors().nth(3).unwrap().join("from_the_docs");
    let mut cargo = Command::new(env!("CARGO"));
    // With what cargo has told this test, dependencies that ask for it would be built anew.
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(&*name);
        }
    }
    cargo
        .args(["test", "--no-run", "--offline", "--target-dir"])
        .arg(target)
        .current_dir(project)
        .env("CARGO_INCREMENTAL", "0")
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        .env("CARGO_TERM_COLOR", "never")
        .kill_on_drop(true);
    let output = cargo.args(["--test", "all"]).output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let (_, program) = said.split_once("Executable").expect("it says which");
    let (_, program) = program.split_once('(').unwrap();
    program.split_once(')').unwrap().0.into()
}
