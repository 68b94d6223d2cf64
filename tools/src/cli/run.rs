//! From a command line to an exit code.

use super::args::{Ask, Cli, Global, ListingArgs, ReportFormat, Work};
use super::client::Client;
use super::colour::Colours;
use super::failure::{EXIT_COMMAND_LINE, EXIT_FAILED, EXIT_NO_SUCH_VERB, failure, line, one_line};
use super::progress::Shown;
use super::report::{Listing, Wanted};
use super::{complete, pages, pvck, tags, top, tree};
use crate::api::{Command, Failure, Reply, ReportKind, Request, Value};
use crate::paths::Paths;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser};
use std::ffi::OsString;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Runs the tool on these arguments (the program's name first) and returns the exit code.
pub fn main(args: Vec<OsString>) -> u8 {
    let args = with_verb_of_link(args);
    let verb = verb_of(&args);
    let args = match tags::expand(args) {
        Ok(args) => args,
        Err(failure) => {
            complain(&line(&verb, &failure));
            return failure.code;
        }
    };
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(error) => return report_parse_error(&error, &args),
    };
    let outcome = cli.verb.work().and_then(|work| match work {
        Work::Ask(ask) => Session::new(&cli.global, &verb).run(ask),
        Work::Pvck { path, dump } => pvck::run(&path, dump).and_then(|checked| {
            done_or(io::stdout().lock().write_all(checked.text.as_bytes()))?;
            checked.damage.map_or(Ok(()), Err)
        }),
        Work::Top(top) => top::run(&cli.global, &top),
        Work::Completions(shell) => {
            let script = complete::script(shell).as_bytes();
            done_or(io::stdout().lock().write_all(script)).map(|_| ())
        }
        Work::Complete(words) => {
            let text: String = complete::complete(&words)
                .iter()
                .map(|word| one_line(word) + "\n")
                .collect();
            done_or(io::stdout().lock().write_all(text.as_bytes())).map(|_| ())
        }
        Work::ManPages(dir) => pages::man_pages(&dir),
        Work::Reference(file) => pages::reference(&file),
    });
    match outcome {
        Ok(()) => 0,
        Err(failure) => {
            complain(&line(&verb, &failure));
            failure.code
        }
    }
}

/// Writes a line to standard error. Where that is closed there is nobody left to tell.
fn complain(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Invoked through a symbolic link named after a verb, the tool is that verb.
fn with_verb_of_link(mut args: Vec<OsString>) -> Vec<OsString> {
    let invoked = args.first().map(Path::new).and_then(Path::file_name);
    let verb = invoked.filter(|name| {
        Cli::command()
            .get_subcommands()
            .any(|verb| *name == verb.get_name())
    });
    if let Some(verb) = verb.map(OsString::from) {
        args.splice(0..1, ["volmgr".into(), verb]);
    }
    args
}

/// The verb in these arguments, for messages; empty where there is none.
fn verb_of(args: &[OsString]) -> String {
    let command = Cli::command();
    args.iter()
        .skip(1)
        .filter_map(|arg| arg.to_str())
        .find(|arg| command.find_subcommand(arg).is_some())
        .unwrap_or_default()
        .to_owned()
}

/// Help and version go to standard output; everything else is one line on standard error.
fn report_parse_error(error: &clap::Error, args: &[OsString]) -> u8 {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            return match done_or(error.print()) {
                Ok(_) => 0,
                Err(failure) => {
                    complain(&line("", &failure));
                    failure.code
                }
            };
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            complain(&error.render().to_string());
            return EXIT_COMMAND_LINE;
        }
        _ => {}
    }
    let context = |kind| error.get(kind).map(context_text).unwrap_or_default();
    // The last is the most similar one.
    let suggestion = |kind| match error.get(kind)? {
        ContextValue::Strings(texts) => Some(format!("did you mean {}?", texts.last()?)),
        ContextValue::String(text) => Some(format!("did you mean {text}?")),
        _ => None,
    };
    if error.kind() == ErrorKind::InvalidSubcommand {
        let object = context(ContextKind::InvalidSubcommand);
        let hint = suggestion(ContextKind::SuggestedSubcommand)
            .unwrap_or_else(|| "'volmgr help' lists the verbs".into());
        let wrong = failure(EXIT_NO_SUCH_VERB, object, "no such verb", "", hint);
        complain(&line("", &wrong));
        return EXIT_NO_SUCH_VERB;
    }
    let verb = verb_of(args);
    let object = context(ContextKind::InvalidArg);
    let why = match error.kind() {
        ErrorKind::MissingRequiredArgument => "missing".to_owned(),
        ErrorKind::UnknownArgument => "no such option or one argument too many".to_owned(),
        // What clap says in its first line, and the source of it where a value was refused.
        _ => {
            let text = error.render().to_string();
            let first = text.lines().next().unwrap_or_default();
            first.trim_start_matches("error: ").to_owned()
        }
    };
    let hint = suggestion(ContextKind::SuggestedArg)
        .or_else(|| suggestion(ContextKind::SuggestedValue))
        .or_else(|| match context(ContextKind::ValidValue) {
            values if values.is_empty() => None,
            values => Some(format!("one of {values}")),
        })
        .unwrap_or_else(|| match verb.as_str() {
            "" => "see 'volmgr help'".into(),
            verb => format!("see 'volmgr help {verb}'"),
        });
    let wrong = failure(EXIT_COMMAND_LINE, object, "wrong command line", why, hint);
    complain(&line(&verb, &wrong));
    EXIT_COMMAND_LINE
}

fn context_text(value: &ContextValue) -> String {
    match value {
        ContextValue::String(text) => text.clone(),
        ContextValue::Strings(texts) => texts.join(" "),
        ContextValue::Number(number) => number.to_string(),
        _ => String::new(),
    }
}

/// A reader that has gone (`volmgr lvs | head -1`) is no failure, but nothing is left to do: `false`.
pub(super) fn done_or(outcome: io::Result<()>) -> Result<bool, Failure> {
    match outcome {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(failure(
            EXIT_FAILED,
            "standard output",
            "cannot write",
            error,
            "",
        )),
    }
}

/// Where the daemon is.
pub(super) fn socket(global: &Global) -> PathBuf {
    match &global.socket {
        Some(path) => path.clone(),
        None => Paths::of_process().socket,
    }
}

/// One invocation that asks the daemon.
struct Session<'a> {
    global: &'a Global,
    verb: &'a str,
    socket: PathBuf,
    shown: Shown,
}

impl<'a> Session<'a> {
    fn new(global: &'a Global, verb: &'a str) -> Self {
        Session {
            global,
            verb,
            socket: socket(global),
            shown: Shown::new(global.quiet > 0, io::stderr().is_terminal()),
        }
    }

    fn run(mut self, ask: Ask) -> Result<(), Failure> {
        let json = self.global.reportformat == ReportFormat::Json;
        let mut listing = match &ask.listing {
            None => None,
            Some(args) if args.only_json && !json => None,
            Some(args) => match args.report.resolve(args.kind, json)? {
                Wanted::Help(text) => {
                    return done_or(io::stdout().write_all(text.as_bytes())).map(|_| ());
                }
                Wanted::Listing(options) => Some(Listing::new(options, args.names.clone())),
            },
        };
        let yes = self.confirm(ask.question.as_deref())?;
        let follow = ask.listing.as_ref().is_some_and(|listing| listing.follow);
        let mut worst: Option<Failure> = None;
        for command in &ask.commands {
            let request = Request {
                test: self.global.test,
                yes,
                command: match &listing {
                    Some(listing) => only_wanted(command.clone(), listing),
                    None => command.clone(),
                },
            };
            match self.ask(&request, &ask, listing.as_mut()) {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                // The other objects still get their turn, as with LVM. Without a daemon, or after
                // Ctrl-C, none does.
                Err(failed) if failed.code == EXIT_FAILED || failed.code == EXIT_COMMAND_LINE => {
                    if let Some(earlier) = worst.replace(failed) {
                        complain(&line(self.verb, &earlier));
                    }
                }
                Err(failed) => return Err(failed),
            }
        }
        if let Some(listing) = &mut listing
            && !follow
            && !done_or(listing.print(&mut io::stdout().lock()))?
        {
            return Ok(());
        }
        let unmatched = listing.as_ref().map_or(&[][..], Listing::unmatched);
        if worst.is_none() && !unmatched.is_empty() {
            let why = "the daemon knows none of that name";
            worst = Some(failure(
                EXIT_FAILED,
                unmatched.join(", "),
                "not found",
                why,
                "",
            ));
        }
        worst.map_or(Ok(()), Err)
    }

    /// Asks on a terminal. Elsewhere nobody can answer: the daemon is told that nobody said yes,
    /// and refuses what it must not do without.
    fn confirm(&self, question: Option<&str>) -> Result<bool, Failure> {
        let Some(question) = question else {
            return Ok(self.global.yes);
        };
        let terminal = io::stdin().is_terminal() && io::stderr().is_terminal();
        if self.global.yes || self.global.test || !terminal {
            return Ok(self.global.yes);
        }
        let cannot = |error: io::Error| failure(EXIT_FAILED, "", "cannot ask", error, "use --yes");
        let mut stderr = io::stderr();
        write!(stderr, "{} [y/N]: ", one_line(question)).map_err(cannot)?;
        stderr.flush().map_err(cannot)?;
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer).map_err(cannot)?;
        match answer.trim() {
            "y" | "Y" | "yes" => Ok(true),
            _ => Err(failure(
                EXIT_FAILED,
                "",
                "not done",
                "the answer was no",
                "",
            )),
        }
    }

    /// Sends one request and shows the replies; `false` when the reader of the output has gone.
    fn ask(
        &mut self,
        request: &Request,
        ask: &Ask,
        mut listing: Option<&mut Listing>,
    ) -> Result<bool, Failure> {
        if self.global.verbose > 0 {
            complain(&format!(
                "volmgr: {}: asking {}",
                self.verb,
                self.socket.display()
            ));
        }
        let mut client = Client::send(&self.socket, request, ask.limit)?;
        loop {
            let reply = client.next().inspect_err(|_| {
                if let Some(line) = self.shown.finish(false) {
                    complain(&format!("volmgr: {}: {line}", self.verb));
                }
            })?;
            match reply {
                Reply::Message { text } => {
                    let rows_instead = |args: &ListingArgs| args.only_json;
                    let said = listing.is_some() && ask.listing.as_ref().is_some_and(rows_instead);
                    let wanted = ask.text_wanted || self.global.quiet == 0;
                    if wanted && !said && !done_or(self.shown.aside(|| print_text(&text)))? {
                        return Ok(false);
                    }
                }
                Reply::Tree { roots } => {
                    let lines = tree::lines(&roots, Colours::of_stdout());
                    if !done_or(self.shown.aside(|| print_lines(&lines)))? {
                        return Ok(false);
                    }
                }
                Reply::Sample(_) => {
                    let why = "numbers were not asked for";
                    return Err(failure(EXIT_FAILED, "", "reply not understood", why, ""));
                }
                Reply::Warning { text } => self.shown.aside(|| {
                    complain(&format!(
                        "volmgr: {}: warning: {}",
                        self.verb,
                        one_line(&text)
                    ));
                }),
                Reply::Progress(progress) => {
                    for line in self.shown.update(&progress) {
                        complain(&format!("volmgr: {}: {line}", self.verb));
                    }
                }
                reply @ (Reply::Report { .. } | Reply::Table { .. }) => {
                    let (Some(listing), Some(args)) = (listing.as_deref_mut(), &ask.listing) else {
                        if ask.listing.is_some() {
                            continue; // the messages have said it
                        }
                        let why = "a listing was not asked for";
                        return Err(failure(EXIT_FAILED, "", "reply not understood", why, ""));
                    };
                    match reply {
                        Reply::Table { columns, rows, .. } => listing.extend_table(&columns, rows),
                        Reply::Report { rows, .. } => listing.extend(rows),
                        _ => {}
                    }
                    if args.follow {
                        let mut out = io::stdout().lock();
                        let outcome = listing.print_some(&mut out).and_then(|()| out.flush());
                        if !done_or(outcome)? {
                            return Ok(false);
                        }
                    }
                }
                Reply::Done => {
                    if let Some(line) = self.shown.finish(true) {
                        complain(&format!("volmgr: {}: {line}", self.verb));
                    }
                    return Ok(true);
                }
                Reply::Failed(failed) => {
                    if let Some(line) = self.shown.finish(false) {
                        complain(&format!("volmgr: {}: {line}", self.verb));
                    }
                    // A daemon of another version must not make a failure look like a success.
                    let code = match failed.code {
                        0 => EXIT_FAILED,
                        code => code,
                    };
                    return Err(Failure { code, ..failed });
                }
            }
        }
    }
}

/// The cells of a listing, for the tool's own use.
pub fn table_of(
    socket: &Path,
    kind: ReportKind,
    columns: &[&str],
    limit: Duration,
) -> Result<Vec<Vec<Value>>, Failure> {
    let request = Request {
        test: false,
        yes: false,
        command: Command::List {
            kind,
            vg: None,
            lv: None,
            peer: None,
            columns: columns.iter().map(|column| (*column).to_owned()).collect(),
        },
    };
    let mut client = Client::send(socket, &request, Some(limit))?;
    let mut table = Vec::new();
    loop {
        match client.next()? {
            Reply::Table { rows, .. } => table.extend(rows),
            Reply::Done => return Ok(table),
            Reply::Failed(failed) => return Err(failed),
            _ => {}
        }
    }
}

/// A listing of everything becomes one of the fields that are looked at.
fn only_wanted(command: Command, listing: &Listing) -> Command {
    match command {
        Command::Report { kind, vg, lv, peer } => Command::List {
            kind,
            vg,
            lv,
            peer,
            columns: listing.wanted(),
        },
        other => other,
    }
}

fn print_lines(lines: &[String]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for line in lines {
        writeln!(out, "{line}")?;
    }
    out.flush()
}

/// Writes text of the daemon's with an end of line, and nothing in it that moves the cursor.
fn print_text(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for line in text.lines() {
        let line: String = line
            .chars()
            .map(|c| if c.is_control() && c != '\t' { '?' } else { c })
            .collect();
        writeln!(out, "{line}")?;
    }
    out.flush()
}
