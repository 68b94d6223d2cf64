//! Man pages, made from the definitions of the command line.

use super::args::Cli;
use super::failure::{EXIT_FAILED, failure};
use crate::api::Failure;
use crate::daemon::config::Options;
use clap::CommandFactory;
use std::path::Path;

/// Writes `volmgr.1`, a page for each verb and `volmgrd.8` into a folder, which is made where it is not there.
pub fn man_pages(dir: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(dir)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), dir))
        .and_then(|()| {
            let daemon = clap_mangen::Man::new(Options::command()).section("8");
            let mut page = Vec::new();
            daemon.render(&mut page)?;
            std::fs::write(dir.join("volmgrd.8"), page)
        })
        .map_err(|error| {
            let object = dir.display().to_string();
            failure(EXIT_FAILED, object, "cannot write man pages", error, "")
        })
}
