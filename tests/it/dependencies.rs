//! What we depend on: licences that a shop may ship, one source, no crate that was decided against, and heavy ones once. The same lists as
//! in deny.toml, read from cargo itself: `cargo deny` takes minutes to build, and this runs with every test.
//!
//! Known faults of versions (advisories) are not looked up: that takes a database from elsewhere, and a test that passes without one says
//! nothing. `cargo deny check advisories` does it where there is a network.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value as Json;

/// Every alternative of a licence must consist of these.
const LICENCES: [&str; 11] = [
    "MIT",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "0BSD",
    "Unlicense",
    "Unicode-3.0",
    "CC0-1.0",
    // file by file: what we change of such a crate stays open, what we build with it does not become so
    "MPL-2.0",
];
/// By whom they would come in, and what stands for them here.
const BANNED: [(&str, &str); 6] = [
    ("openssl-sys", "one TLS: rustls"),
    ("native-tls", "one TLS: rustls"),
    ("aws-lc-sys", "one provider of cryptography: ring"),
    ("rsa", "its signatures leak by their timing (RUSTSEC-2023-0071); ring signs"),
    ("serde_yml", "unsound and left by its author (RUSTSEC-2025-0068)"),
    ("git2", "nobody fetches from repositories at run time"),
];
/// A second version of one of these costs every build and the size of the binary.
const ONCE: [&str; 16] = [
    "tokio",
    "hyper",
    "http",
    "axum",
    "rustls",
    "ring",
    "sqlx-core",
    "libsqlite3-sys",
    "reqwest",
    "rhai",
    "serde",
    "serde_json",
    "jiff",
    "chrono",
    "liquid",
    "regex",
];

fn packages() -> Vec<Json> {
    let host = Command::new("rustc").arg("-vV").output().expect("a compiler");
    let host =
        String::from_utf8_lossy(&host.stdout).lines().find_map(|line| line.strip_prefix("host: ").map(str::to_owned)).expect("a host");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    // not `--offline`: what only a feature asks for may not have been downloaded yet
    let said = cargo.args(["metadata", "--format-version", "1", "--locked", "--filter-platform", &host]).output().expect("cargo");
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let metadata: Json = serde_json::from_slice(&said.stdout).expect("JSON");
    metadata["packages"].as_array().expect("packages").clone()
}

/// Whether one of the alternatives consists of licences that are listed. `/` is how `OR` was written once, `WITH` grants more.
fn is_allowed(expression: &str) -> bool {
    let flat = expression.replace(['(', ')'], " ").replace('/', " OR ");
    let is_known = |licence: &str| LICENCES.contains(&licence.split(" WITH ").next().unwrap_or(licence).trim().trim_end_matches('+'));
    // an AND binds closer; within brackets all alternatives are fine, or the whole is refused
    let bracketed = expression.contains('(');
    let mut alternatives = flat.split(" OR ").map(|alternative| alternative.split(" AND ").all(is_known));
    if bracketed { alternatives.all(|fine| fine) } else { alternatives.any(|fine| fine) }
}

#[test]
fn dependencies_are_what_was_decided() {
    let packages = packages();
    assert!(packages.len() > 100, "{}", packages.len());
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut found = Vec::new();
    for package in &packages {
        let (name, version) = (package["name"].as_str().expect("a name"), package["version"].as_str().expect("a version"));
        versions.entry(name).or_default().insert(version);
        match package["license"].as_str() {
            Some(licence) if is_allowed(licence) => {}
            licence => found.push(format!("{name} {version}: licence {}", licence.unwrap_or("unknown"))),
        }
        if let Some(source) = package["source"].as_str().filter(|source| !source.starts_with("registry+")) {
            found.push(format!("{name} {version}: comes from {source}"));
        }
        found.extend(BANNED.iter().filter(|(banned, _)| *banned == name).map(|(_, why)| format!("{name} {version}: {why}")));
    }
    let several = ONCE.iter().filter_map(|name| Some((name, versions.get(name)?))).filter(|(_, versions)| versions.len() > 1);
    found.extend(several.map(|(name, versions)| format!("{name}: in {} versions", versions.len())));
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn licences_are_read_as_they_are_written() {
    for fine in
        ["MIT", "MIT/Apache-2.0", "GPL-3.0 OR MIT", "(MIT OR Apache-2.0) AND Unicode-3.0", "Apache-2.0 WITH LLVM-exception", "MPL-2.0+"]
    {
        assert!(is_allowed(fine), "{fine}");
    }
    for not in ["GPL-3.0", "MIT AND GPL-3.0", "(MIT OR GPL-3.0) AND Unicode-3.0", "AGPL-3.0-only", ""] {
        assert!(!is_allowed(not), "{not}");
    }
}

#[test]
fn cargo_deny_is_told_the_same() {
    let told = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deny.toml")).expect("deny.toml");
    for word in LICENCES.into_iter().chain(BANNED.map(|(name, _)| name)) {
        assert!(told.contains(&format!("\"{word}\"")), "deny.toml does not know {word}");
    }
}
