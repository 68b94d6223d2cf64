//! Man pages and the reference, made from the definitions of the command line; and the two man pages about concepts, which are
//! written by hand.

use super::args::Cli;
use super::failure::{EXIT_FAILED, failure};
use crate::api::Failure;
use crate::daemon::config::Options;
use clap::CommandFactory;
use std::path::Path;

/// The man pages about concepts.
pub const CONCEPTS: [(&str, &str); 2] = [
    ("volmgr.8", include_str!("../../man/volmgr.8")),
    ("feedplex.7", include_str!("../../man/feedplex.7")),
];

/// Writes `volmgr.1`, a page for each verb, `volmgrd.8` and the pages about concepts into a folder, which is made where it
/// is not there.
pub fn man_pages(dir: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(dir)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), dir))
        .and_then(|()| {
            let verbs = Cli::command();
            let verbs = verbs.get_subcommands().map(clap::Command::get_name);
            let verbs = verbs.map(|verb| format!("volmgr-{verb}.1"));
            for page in verbs.chain(["volmgr.1".to_owned()]) {
                let path = dir.join(page);
                // Verbs that are not shown have no page.
                if path.exists() {
                    std::fs::write(&path, sections(&std::fs::read_to_string(&path)?))?;
                }
            }
            Ok(())
        })
        .and_then(|()| {
            let daemon = clap_mangen::Man::new(Options::command()).section("8");
            let mut page = Vec::new();
            daemon.render(&mut page)?;
            std::fs::write(dir.join("volmgrd.8"), page)
        })
        .and_then(|()| {
            CONCEPTS
                .iter()
                .try_for_each(|(name, page)| std::fs::write(dir.join(name), page))
        })
        .map_err(|error| {
            let object = dir.display().to_string();
            failure(EXIT_FAILED, object, "cannot write man pages", error, "")
        })
}

/// What the help has behind the options, as sections of their own (`EXAMPLES:`, `EXIT CODES:`), whose lines stay as they are.
fn sections(page: &str) -> String {
    let Some((before, rest)) = page.split_once(".SH EXTRA\n") else {
        return page.to_owned();
    };
    let (extra, after) = match rest.find("\n.SH ") {
        Some(end) => rest.split_at(end + 1),
        None => (rest, ""),
    };
    let mut text = before.to_owned();
    let mut open = false;
    for line in extra.lines() {
        let title = line.strip_suffix(':').filter(|title| {
            let capital = |c: char| c.is_ascii_uppercase() || c == ' ';
            !title.is_empty() && title.chars().all(capital)
        });
        match title {
            Some(title) => {
                let end = if open { ".fi\n" } else { "" };
                text += &format!("{end}.SH {title}\n.nf\n");
                open = true;
            }
            None if line.trim().is_empty() || line == ".PP" => {}
            None => text += &format!("{line}\n"),
        }
    }
    if open {
        text += ".fi\n";
    }
    text + after
}

/// Writes the reference.
pub fn reference(file: &Path) -> Result<(), Failure> {
    std::fs::write(file, super::reference::page()).map_err(|error| {
        let object = file.display().to_string();
        failure(EXIT_FAILED, object, "cannot write the reference", error, "")
    })
}

#[cfg(test)]
mod tests {
    use super::sections;

    #[test]
    fn what_is_behind_the_options_has_sections() {
        let page = ".SH A\nx\n.SH EXTRA\nEXIT CODES:\n  0 done\n\nEXAMPLES:\n  volmgr lvs\n.SH VERSION\nv1\n";
        assert_eq!(
            sections(page),
            ".SH A\nx\n.SH EXIT CODES\n.nf\n  0 done\n.fi\n.SH EXAMPLES\n.nf\n  volmgr lvs\n.fi\n.SH VERSION\nv1\n"
        );
        assert_eq!(sections(".SH A\n"), ".SH A\n");
    }
}
