//! Every command line that the help, the manual pages and the documents show is one that the tool takes. (That those of the guide
//! do what it says is shown by `tests/e2e/guide.sh`.)

use super::Cli;
use crate::cli::pages::CONCEPTS;
use clap::{CommandFactory, Parser};
use std::path::Path;

/// The words of a line as a shell has them: quotes, and nothing else that is special.
fn words(line: &str) -> Option<Vec<String>> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in line.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, '|' | '>' | '<' | '&' | ';' | '#') if word.is_none() => break,
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

/// Checks the lines of a text that call `volmgr`; says how many there were. In the help a remark may stand behind a command, two
/// blanks away. `FINGERPRINT…` stands for one.
fn check(name: &str, text: &str) -> usize {
    let text = text.replace("\\\n", " ");
    let mut found = 0;
    for line in text.lines().filter(|line| line.starts_with([' ', '\t'])) {
        let line = line.trim();
        let line = ["a# ", "b# ", "# ", "$ "]
            .iter()
            .find_map(|prompt| line.strip_prefix(prompt))
            .unwrap_or(line);
        // Not where the word only begins a sentence or a drawing.
        let verb = line.strip_prefix("volmgr ").unwrap_or_default();
        if !verb
            .trim_start_matches('-')
            .starts_with(|c: char| c.is_ascii_lowercase())
        {
            continue;
        }
        let command = line.split("   ").next().unwrap_or(line);
        let words = words(command).unwrap_or_else(|| panic!("{name}: quotes of: {line}"));
        let fingerprint = format!("sha256:{}", "0".repeat(64));
        let words = words.into_iter().map(|word| {
            if word.starts_with("FINGERPRINT") || word == "sha256:…" {
                fingerprint.clone()
            } else if word.starts_with('@') {
                // A tag: the names that carry it have been put in before the line is parsed.
                if verb.starts_with("vg") {
                    "vg0"
                } else {
                    "vg0/web"
                }
                .to_owned()
            } else {
                word
            }
        });
        match Cli::try_parse_from(words) {
            Err(error) if error.use_stderr() => panic!("{name}: {line}\n{error}"),
            Err(_) => {}
            Ok(cli) => {
                if let Err(failure) = cli.verb.work() {
                    panic!("{name}: {line}\n{failure:?}");
                }
            }
        }
        found += 1;
    }
    found
}

#[test]
fn of_the_help() {
    for verb in Cli::command()
        .get_subcommands()
        .filter(|verb| !verb.is_hide_set())
    {
        let name = verb.get_name();
        let help = verb.get_after_help().unwrap().to_string();
        assert!(check(name, &help) > 0, "{name} has no example");
    }
}

#[test]
fn of_the_manual_pages() {
    for (name, page) in CONCEPTS {
        let page = page.replace("\\-", "-");
        let lines: Vec<String> = page.lines().map(|line| format!(" {line}")).collect();
        assert!(check(name, &lines.join("\n")) > 0, "{name} has no example");
    }
}

#[test]
fn of_the_documents() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    assert!(check("README.md", &read(&top.join("README.md"))) > 10);
    let mut guides = 0;
    for entry in std::fs::read_dir(top.join("docs")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ext| ext == "md") && !path.ends_with("reference.md") {
            guides += usize::from(check(&path.display().to_string(), &read(&path)) > 10);
        }
    }
    assert!(guides > 0, "no document shows how it is used");
}

/// `volmgr VERB …` in running text: the verb and its options exist. What a sentence leaves out may be missing.
#[test]
fn of_running_text() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut pages = vec![top.join("README.md")];
    let docs = std::fs::read_dir(top.join("docs")).unwrap();
    pages.extend(docs.map(|entry| entry.unwrap().path()));
    let mut found = 0;
    for path in pages
        .iter()
        .filter(|p| p.extension().is_some_and(|ext| ext == "md"))
    {
        let text = std::fs::read_to_string(path).unwrap();
        let code = text.split('`').skip(1).step_by(2);
        for line in code.filter(|code| code.starts_with("volmgr ") && !code.contains('\n')) {
            let line = line.replace(" …", "");
            let plain = line.split(" [").next().unwrap_or_default();
            let words = words(plain).unwrap_or_else(|| panic!("{}: {line}", path.display()));
            if words
                .get(1)
                .is_none_or(|verb| verb == "help" || verb.starts_with("--"))
            {
                continue;
            }
            found += 1;
            if let Err(error) = Cli::try_parse_from(words) {
                use clap::error::ErrorKind::{InvalidValue, MissingRequiredArgument};
                let left_out = matches!(error.kind(), MissingRequiredArgument | InvalidValue);
                assert!(
                    left_out || !error.use_stderr(),
                    "{}: {line}\n{error}",
                    path.display()
                );
            }
        }
    }
    assert!(found > 10, "{found}");
}
