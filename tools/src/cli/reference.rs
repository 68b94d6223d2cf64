//! `docs/reference.md`: every verb, option and field, made from the definitions that the programs work with.

use super::args::Cli;
use super::report::fields::{KINDS, Shape, table};
use crate::daemon::config::Options;
use clap::{Arg, Command, CommandFactory};

const HEAD: &str = "# Reference\n\n\
Made from the definitions in the code (`volmgr man --reference FILE`); a test fails when it is stale. \
`docs/guide.md` shows how it is used, `volmgr help VERB` and `man volmgr-VERB` say the same as this page.\n";

/// The page, as Markdown.
pub fn page() -> String {
    let mut text = HEAD.to_owned();
    let mut cli = Cli::command();
    cli.build();
    let (global, verbs) = (options(&cli, |_| true), cli.get_subcommands());
    text += "\n## Options of every verb\n\n";
    text += &global;
    text += "\n## Verbs\n";
    for verb in verbs.filter(|verb| !verb.is_hide_set() && verb.get_name() != "help") {
        text += &section("###", verb);
    }
    text += "\n## Fields of listings\n\n\
        For `-o`, `-O` and `-S`; the prefix may be left out. Those in bold are shown without `-o`.\n";
    for kind in KINDS {
        let table = table(kind);
        text += &format!(
            "\n### {} (row key `{}` in JSON)\n\n| field | holds | is |\n| --- | --- | --- |\n",
            table.noun, table.key
        );
        for field in table.fields {
            let mark = if field.shown { "**" } else { "" };
            let shape = match field.shape {
                Shape::Text => "text",
                Shape::Size => "size",
                Shape::Number => "number",
                Shape::Time => "time",
            };
            let help = cell(field.help);
            text += &format!("| {mark}`{}`{mark} | {shape} | {help} |\n", field.name);
        }
    }
    let mut daemon = Options::command();
    daemon.build();
    text += "\n## The daemon\n";
    text += &section("###", &daemon);
    text
}

/// A program or verb: what it is, how it is called, its options, its examples.
fn section(level: &str, command: &Command) -> String {
    let mut text = format!("\n{level} {}\n\n", command.get_name());
    if let Some(about) = command.get_long_about().or(command.get_about()) {
        text += &format!("{about}\n");
    }
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").trim();
    text += &format!("\n```text\n{usage}\n```\n");
    let options = options(command, |arg| !arg.is_global_set());
    if !options.is_empty() {
        text += &format!("\n{options}");
    }
    if let Some(more) = command.get_after_long_help().or(command.get_after_help()) {
        text += &format!("\n```text\n{}\n```\n", more.to_string().trim_end());
    }
    text
}

/// A table of what a command takes, without `--help` and `--version`.
fn options(command: &Command, wanted: impl Fn(&Arg) -> bool) -> String {
    let listed = |arg: &&Arg| {
        wanted(arg) && !arg.is_hide_set() && !matches!(arg.get_id().as_str(), "help" | "version")
    };
    let lines: Vec<String> = command.get_arguments().filter(listed).map(line).collect();
    if lines.is_empty() {
        return String::new();
    }
    format!("| | |\n| --- | --- |\n{}", lines.concat())
}

fn line(arg: &Arg) -> String {
    let mut help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let values: Vec<String> = arg
        .get_possible_values()
        .iter()
        .filter(|value| !value.is_hide_set())
        .map(|value| format!("`{}`", value.get_name()))
        .collect();
    let takes_values = arg.get_action().takes_values();
    if takes_values && !values.is_empty() {
        help += &format!(": {}", values.join(", "));
    }
    let defaults: Vec<_> = arg
        .get_default_values()
        .iter()
        .map(|value| format!("`{}`", value.to_string_lossy()))
        .collect();
    if takes_values && !defaults.is_empty() {
        help += &format!(" (default {})", defaults.join(" "));
    }
    if let Some(variable) = arg.get_env() {
        help += &format!(" (or `{}` in the environment)", variable.to_string_lossy());
    }
    let short = arg
        .get_short()
        .map_or_else(String::new, |short| format!("-{short}, "));
    format!(
        "| `{short}{}` | {} |\n",
        cell(&arg.to_string()),
        cell(&help)
    )
}

/// Text that may stand in a table.
fn cell(text: &str) -> String {
    text.replace('\n', " ").replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::page;
    use std::path::Path;

    #[test]
    fn the_reference_is_not_stale() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference.md");
        let stands = std::fs::read_to_string(&path).unwrap();
        assert!(
            stands == page(),
            "docs/reference.md is stale: make reference"
        );
    }

    #[test]
    fn it_holds_verbs_options_fields_and_the_daemon() {
        let page = page();
        for part in [
            "\n### lvcreate\n",
            "volmgr feedswap [OPTIONS]",
            "| `--timeout <S>` |",
            "| **`feed_state`** | text |",
            "| `-n, --name <LV>` |",
            "`--metrics <ADDR:PORT>`",
            "`VOLMGR_SOCKET`",
        ] {
            assert!(page.contains(part), "no {part:?}");
        }
    }
}
