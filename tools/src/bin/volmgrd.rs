//! `volmgrd`, the daemon: reads its options, prepares the process, serves until it is told to stop.

use clap::Parser;
use std::process::ExitCode;
use tools::cli::failure::one_line;
use tools::daemon::{Options, print_ublk_owner, run};

/// The command line is wrong.
const WRONG_USE: u8 = 3;

fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) => {
            // Where standard error is closed there is nobody to tell.
            let _closed = error.print();
            return ExitCode::from(if error.use_stderr() { WRONG_USE } else { 0 });
        }
    };
    let done = match &options.ublk_owner {
        Some(name) => print_ublk_owner(name),
        None => run(options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line, whatever went wrong: the admin reads it in the journal.
            eprintln!("volmgrd: {}", one_line(&error.to_string()));
            ExitCode::from(error.exit_code())
        }
    }
}
