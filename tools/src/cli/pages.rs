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

/// Writes the reference.
pub fn reference(file: &Path) -> Result<(), Failure> {
    std::fs::write(file, super::reference::page()).map_err(|error| {
        let object = file.display().to_string();
        failure(EXIT_FAILED, object, "cannot write the reference", error, "")
    })
}
