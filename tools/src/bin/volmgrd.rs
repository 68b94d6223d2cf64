//! `volmgrd`, the daemon: reads its options, prepares the process, serves until it is told to stop.

use clap::Parser;
use std::process::ExitCode;
use tools::daemon::{Options, run};

fn main() -> ExitCode {
    match run(Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line, whatever went wrong: the admin reads it in the journal.
            eprintln!("volmgrd: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
