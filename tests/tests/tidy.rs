//! The house rules, held by a test: who may depend on whom, where `unsafe` may be, how files begin and how long they are.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Longest source file, in lines.
const LINES_MAX: usize = 600;

/// Where `unsafe` may be, as prefixes of paths; each block there says why it is sound.
const UNSAFE_ALLOWED: [&str; 6] = [
    "ringio/src/ring.rs",
    "ringio/src/pool.rs",
    "ringio/src/sys/",
    "ublk-driver/src/sys/",
    "feedplex/src/streams/sys.rs",
    "tools/src/daemon/sys.rs",
];

/// Pure code: state machines and formats, as prefixes of paths. Time, disks and sockets are handed to it.
const PURE: [&str; 5] = [
    "blockio/src/",
    "regionmap/src/",
    "volmgr/src/",
    "nbd-export/src/",
    "feedplex/src/wire/",
];

/// What pure code does not use.
const IMPURE: [&str; 7] = [
    "std::fs",
    "std::net",
    "thread::spawn",
    "thread::sleep",
    "tokio::",
    "Instant::now",
    "SystemTime::now",
];

fn top() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests
        .parent()
        .expect("the crate is in the workspace")
        .to_owned()
}

/// All Rust sources, as path from the top and text.
fn sources() -> Vec<(String, String)> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                walk(&path, found);
            } else if name.ends_with(".rs") {
                found.push(path);
            }
        }
    }
    let top = top();
    let mut found = Vec::new();
    walk(&top, &mut found);
    found.sort();
    assert!(
        found.len() > 30,
        "only {} sources found: looked in the wrong place",
        found.len()
    );
    found
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            let path = path
                .strip_prefix(&top)
                .unwrap()
                .to_string_lossy()
                .into_owned();
            (path, text)
        })
        .collect()
}

fn complain(rule: &str, offenders: &[String]) {
    assert!(
        offenders.is_empty(),
        "{rule}:\n  {}",
        offenders.join("\n  ")
    );
}

/// A line without its comment. Good enough for code that rustfmt has formatted; a `//` in a string only
/// hides what follows it.
fn code_of(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

/// The table in the architecture: crate to the crates that it knows; `None` for all.
fn allowed_edges() -> BTreeMap<String, Option<BTreeSet<String>>> {
    let text = fs::read_to_string(top().join("docs/architecture.md")).unwrap();
    let crates = text.split("## Crates").nth(1).expect("a section of crates");
    let crates = crates.split("\n## ").next().unwrap();
    let edges: BTreeMap<_, _> = crates
        .lines()
        .filter_map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let [name, _, knows] = cells[..] else {
                return None;
            };
            let name = name.strip_prefix('`')?.strip_suffix('`')?;
            let knows = match knows {
                "all" => None,
                "nothing" => Some(BTreeSet::new()),
                some => Some(some.split(", ").map(str::to_owned).collect()),
            };
            Some((name.to_owned(), knows))
        })
        .collect();
    assert!(
        edges.len() >= 9,
        "the table of crates has changed its form: {edges:?}"
    );
    edges
}

#[test]
fn dependencies_point_one_way() {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--format-version",
            "1",
            "--offline",
        ])
        .current_dir(top())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    // The table calls a crate by its folder.
    let folder = |manifest: &str| {
        let folder = Path::new(manifest).parent().unwrap();
        folder
            .strip_prefix(top())
            .unwrap()
            .to_string_lossy()
            .into_owned()
    };
    let packages = metadata["packages"].as_array().unwrap();
    let folders: BTreeMap<&str, String> = packages
        .iter()
        .map(|package| {
            let manifest = package["manifest_path"].as_str().unwrap();
            (package["name"].as_str().unwrap(), folder(manifest))
        })
        .collect();

    let allowed = allowed_edges();
    let mut offenders = Vec::new();
    for package in packages {
        let name = &folders[package["name"].as_str().unwrap()];
        let Some(allowed) = allowed.get(name) else {
            offenders.push(format!(
                "{name} is not in the table of docs/architecture.md"
            ));
            continue;
        };
        for dependency in package["dependencies"].as_array().unwrap() {
            let Some(other) = folders.get(dependency["name"].as_str().unwrap()) else {
                continue;
            };
            let known = match allowed {
                None => other != "tests" && name != other,
                Some(allowed) => allowed.contains(other),
            };
            if !known {
                offenders.push(format!("{name} uses {other}"));
            }
        }
    }
    for name in allowed.keys() {
        if !folders.values().any(|folder| folder == name) {
            offenders.push(format!("{name} is in the table and not in the workspace"));
        }
    }
    complain(
        "the crates do not depend on each other as docs/architecture.md says",
        &offenders,
    );
}

#[test]
fn every_source_says_what_it_is() {
    let offenders: Vec<String> = sources()
        .into_iter()
        .filter(|(_, text)| !text.starts_with("//!"))
        .map(|(path, _)| path)
        .collect();
    complain("these files do not start with //!", &offenders);
}

#[test]
fn no_source_is_too_long() {
    let offenders: Vec<String> = sources()
        .into_iter()
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > LINES_MAX)
        .map(|(path, lines)| format!("{path}: {lines} lines"))
        .collect();
    complain(
        &format!("these files have more than {LINES_MAX} lines"),
        &offenders,
    );
}

#[test]
fn unsafe_stays_where_it_is_allowed() {
    let is_unsafe = |line: &str| {
        let words = [
            "unsafe {",
            "unsafe fn",
            "unsafe impl",
            "unsafe extern",
            "unsafe trait",
            "unsafe(",
        ];
        words.iter().any(|word| code_of(line).contains(word))
    };
    let mut offenders = Vec::new();
    for (path, text) in sources() {
        let allowed = UNSAFE_ALLOWED.iter().any(|prefix| path.starts_with(prefix));
        // This file names what it looks for.
        if allowed || path == "tests/tests/tidy.rs" {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            if is_unsafe(line) {
                offenders.push(format!("{path}:{}", number + 1));
            }
        }
    }
    complain("unsafe outside of the modules for it", &offenders);
}

#[test]
fn pure_code_is_handed_the_world() {
    let mut offenders = Vec::new();
    for (path, text) in sources() {
        let tests = path.ends_with("tests.rs") || path.contains("/tests/");
        if tests || !PURE.iter().any(|prefix| path.starts_with(prefix)) {
            continue;
        }
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for (number, line) in code.lines().enumerate() {
            for word in IMPURE {
                if code_of(line).contains(word) {
                    offenders.push(format!("{path}:{}: {word}", number + 1));
                }
            }
        }
    }
    complain(
        "state machines and formats that reach for the world",
        &offenders,
    );
}

#[test]
fn deliberate_bugs_are_in_nothing_that_is_shipped() {
    let read = |path: &str| fs::read_to_string(top().join(path)).unwrap();
    let mut offenders = Vec::new();
    let workspace = read("Cargo.toml");
    let members = workspace.split("members = [").nth(1).unwrap();
    let members: Vec<&str> = members.split(']').next().unwrap().split('"').collect();
    for member in members.into_iter().skip(1).step_by(2) {
        let path = format!("{member}/Cargo.toml");
        let manifest = read(&path);
        // Where they are, and the test that looks for them; on by default in neither.
        let wanted = match member {
            "blockio" => "mutants = []",
            "tests" => "mutants = [\"blockio/mutants\"]",
            _ => "",
        };
        let others = manifest.replace(wanted, "");
        let turns_on =
            |line: &&str| code_of(line).contains("mutants") || line.contains("default =");
        if !manifest.contains(wanted)
            || others
                .lines()
                .filter(|l| !l.starts_with('#'))
                .any(|l| turns_on(&l))
        {
            offenders.push(path);
        }
    }
    let makefile = read("Makefile");
    let asks = |line: &&str| line.contains("features") && !line.contains("--test mutants");
    offenders.extend(makefile.lines().filter(asks).map(str::to_owned));
    complain("these turn deliberate bugs on", &offenders);
    let mut named = BTreeSet::new();
    for (path, text) in sources() {
        if path.contains("/src/") && path != "blockio/src/mutant.rs" {
            let names = text.split("mutant(\"").skip(1);
            named.extend(names.map(|rest| rest.split('"').next().unwrap().to_owned()));
        }
    }
    let table = read("tests/tests/mutants.rs");
    let hunted = table.split("const MUTANTS").nth(1).unwrap();
    let hunted = hunted.split("];").next().unwrap();
    let missing: Vec<String> = named
        .into_iter()
        .filter(|name| !hunted.contains(&format!("\"{name}\"")))
        .collect();
    complain("nobody hunts these deliberate bugs", &missing);
}

#[test]
fn scripts_can_be_run() {
    let mut offenders = Vec::new();
    for path in [
        ".ci/run",
        "tools/scripts/need.sh",
        "tests/demo/demo.sh",
        "tests/e2e/run",
        "tests/vm/run",
        "tests/bench/run",
        "tests/campaign/run",
        "fuzz/run",
    ] {
        use std::os::unix::fs::PermissionsExt;
        match fs::metadata(top().join(path)) {
            Ok(file) if file.permissions().mode() & 0o111 != 0 => {}
            Ok(_) => offenders.push(format!("{path} is not executable")),
            Err(error) => offenders.push(format!("{path}: {error}")),
        }
    }
    complain("the Makefile could not run these", &offenders);
}

/// The names of an enum's variants, as its source has them.
fn variants(path: &str, name: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(top().join(path)).unwrap();
    let after = text
        .split(&format!("pub enum {name} {{"))
        .nth(1)
        .unwrap_or_else(|| panic!("no enum {name} in {path}"));
    let indent = |line: &str| line.len() - line.trim_start().len();
    let lines: Vec<&str> = after.lines().skip(1).collect();
    let own = indent(lines[0]);
    lines
        .into_iter()
        .take_while(|line| line.is_empty() || indent(line) >= own)
        .filter(|line| indent(line) == own)
        .map(|line| line.trim().trim_end_matches(" {").trim_end_matches(','))
        .map(|line| line.split(" = ").next().unwrap_or_default())
        .filter(|word| word.starts_with(char::is_uppercase))
        .map(str::to_owned)
        .collect()
}

/// The names in the first column of the first table behind a heading or sentence.
fn first_column(text: &str, behind: &str) -> BTreeSet<String> {
    let after = text
        .split(behind)
        .nth(1)
        .unwrap_or_else(|| panic!("no `{behind}` in docs/states.md"));
    after
        .lines()
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'))
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_states_are_those_of_the_code() {
    let text = fs::read_to_string(top().join("docs/states.md")).unwrap();
    let machines = [
        ("## Data plex", "volmgr/src/model/volume.rs", "PlexState"),
        ("## Feed", "feedplex/src/session/state.rs", "FeedState"),
        (
            "Intent (`volmgr::model::FeedIntent`",
            "volmgr/src/model/feed.rs",
            "FeedIntent",
        ),
    ];
    for (behind, path, name) in machines {
        let code = variants(path, name);
        assert!(code.len() > 3, "{name}: only {code:?} found");
        assert_eq!(
            first_column(&text, behind),
            code,
            "{name} in docs/states.md"
        );
    }
}

#[test]
fn links_in_documents_lead_somewhere() {
    let mut documents: Vec<PathBuf> = ["README.md", "CHANGELOG.md", "tests/README.md"]
        .iter()
        .map(|name| top().join(name))
        .collect();
    for dir in ["docs", "docs/decisions"] {
        let entries = fs::read_dir(top().join(dir)).unwrap();
        documents.extend(
            entries
                .map(|entry| entry.unwrap().path())
                .filter(|p| p.is_file()),
        );
    }
    let mut offenders = Vec::new();
    for document in documents {
        let text = fs::read_to_string(&document).unwrap();
        for link in text.split("](").skip(1) {
            let link = link.split([')', '#']).next().unwrap_or_default();
            let elsewhere = link.is_empty() || link.contains("://");
            if !elsewhere && !document.with_file_name(link).exists() {
                offenders.push(format!("{}: {link}", document.display()));
            }
        }
    }
    complain("links that lead nowhere", &offenders);
}

#[test]
fn troubleshooting_quotes_what_the_programs_say() {
    let text = std::fs::read_to_string(top().join("docs/troubleshooting.md")).unwrap();
    let sources = sources();
    let quotes: Vec<&str> = text.split("**").skip(1).step_by(2).collect();
    assert!(quotes.len() >= 15, "only {} quotations", quotes.len());
    let unsaid: Vec<String> = quotes
        .iter()
        .filter(|quote| !sources.iter().any(|(_, source)| source.contains(**quote)))
        .map(|quote| quote.to_string())
        .collect();
    complain(
        "docs/troubleshooting.md quotes what no source says",
        &unsaid,
    );
}

#[test]
fn only_text_is_kept() {
    let output = Command::new("git")
        .args(["ls-files", "-z"])
        .current_dir(top())
        .output();
    // A tree that was unpacked from an archive has nothing to say here.
    let Some(output) = output.ok().filter(|output| output.status.success()) else {
        return;
    };
    let mut offenders = Vec::new();
    for name in String::from_utf8(output.stdout)
        .unwrap()
        .split_terminator('\0')
    {
        let Ok(bytes) = fs::read(top().join(name)) else {
            continue;
        };
        let kept = name.contains("/golden/") || name.starts_with("fuzz/corpus/");
        if bytes.contains(&0) && !kept {
            offenders.push(name.to_owned());
        }
    }
    complain("binary files in the tree", &offenders);
}
