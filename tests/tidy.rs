//! The repository's own rules: who may depend on whom, and what no file may contain.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::fs;
use std::path::{Path, PathBuf};

/// Lines a source file may have before it surely tells two stories.
const LINES_MAX: usize = 700;

/// Places that exist on one machine only, and hosts that a mirror may stand in for. Split, so that
/// this file does not find itself.
const NEVER: [[&str; 2]; 8] = [
    ["/wo", "rk/"],
    ["/ro", "ot/"],
    ["/ho", "me/"],
    ["/tm", "p/"],
    ["registry.npm", "js.org"],
    ["py", "pi.org"],
    ["files.python", "hosted.org"],
    ["static.crates", ".io"],
];

fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the package lies in the repository").to_path_buf()
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Folders of the workspace's packages, in the order of the law.
fn members() -> Vec<String> {
    let manifest = read("Cargo.toml");
    let list = manifest.split("members = [").nth(1).and_then(|rest| rest.split(']').next());
    let lines = list.expect("the workspace lists its members").lines();
    lines
        .map(|line| line.trim().trim_matches(['"', ',']).to_owned())
        .filter(|m| !m.is_empty())
        .collect()
}

fn package(member: &str) -> String {
    let manifest = read(format!("{member}/Cargo.toml"));
    let line = manifest.lines().find_map(|line| line.strip_prefix("name = "));
    line.expect("a package has a name").trim_matches('"').to_owned()
}

/// Names of our own packages that a member uses, tests included.
fn uses(member: &str) -> Vec<String> {
    let manifest = read(format!("{member}/Cargo.toml"));
    let sections = manifest.split("\n[").filter(|section| {
        section.split(']').next().is_some_and(|title| title.ends_with("dependencies"))
    });
    let lines = sections.flat_map(str::lines).filter(|line| line.starts_with("assay-"));
    lines.map(|line| line.split(['.', ' ', '=']).next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn packages_use_only_packages_above_them() {
    let members = members();
    let order: Vec<String> = members.iter().map(|member| package(member)).collect();
    for (place, member) in members.iter().enumerate() {
        for used in uses(member) {
            let found = order.iter().position(|name| *name == used);
            assert!(
                found.is_some_and(|found| found < place),
                "{member} uses {used}, which does not stand above it in the root Cargo.toml",
            );
        }
    }
}

#[test]
fn roles_never_depend_on_each_other() {
    for member in members().iter().filter(|member| member.starts_with("roles/")) {
        let others = ["assay-provider", "assay-gateway"];
        let found = uses(member).into_iter().find(|used| others.contains(&used.as_str()));
        assert_eq!(found, None, "{member} depends on another role");
    }
}

#[test]
fn the_gateway_builds_without_a_tensor() {
    let allowed = ["assay-chain", "assay-net", "assay-protocol", "assay-text"];
    // The last is of its tests.
    assert_eq!(uses("roles/gateway"), [&allowed[..], &["assay-fuzz"]].concat());
}

#[test]
fn the_architecture_names_every_package() {
    let page = read("ARCHITECTURE.md");
    for member in members() {
        assert!(page.contains(&format!("`{member}`")), "ARCHITECTURE.md does not name {member}");
    }
}

/// Every file that belongs to the repository; what tools build or install is left out.
fn files() -> Vec<PathBuf> {
    let built =
        ["target", ".git", ".venv", "node_modules", "__pycache__", ".pytest_cache", "out", "cache"];
    let (mut files, mut folders) = (Vec::new(), vec![root()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry.file_type().unwrap();
            if kind.is_dir() && !built.contains(&name.as_str()) {
                folders.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path());
            }
        }
    }
    files
}

#[test]
fn no_file_names_a_machine_or_a_registry() {
    let needles = NEVER.map(|parts| parts.concat());
    for path in files() {
        // What is not UTF-8 is a model or a picture.
        let Ok(text) = fs::read_to_string(&path) else { continue };
        for needle in &needles {
            let line = text.lines().position(|line| line.contains(needle.as_str()));
            assert_eq!(line, None, "{} contains {needle}", path.display());
        }
    }
}

#[test]
fn no_source_file_tells_two_stories() {
    let sources = ["rs", "sol", "py", "mjs"];
    for path in files() {
        if path.extension().is_some_and(|kind| sources.iter().any(|source| kind == *source)) {
            let lines = fs::read_to_string(&path).unwrap().lines().count();
            assert!(lines < LINES_MAX, "{} has {lines} lines", path.display());
        }
    }
}
