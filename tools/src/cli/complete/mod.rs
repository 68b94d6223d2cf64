//! Completion of command lines: what could stand at the cursor.
//!
//! The shells' scripts ask `volmgr complete` at each Tab. Verbs, options and words to choose from
//! come from the definitions of the command line, so they cannot go stale; names of volumes, groups,
//! disks, plexes and peers from the daemon. Who has no daemon completes without names.

mod shells;

pub use shells::{Shell, script};

use super::args::Cli;
use super::report::fields;
use super::run::table_of;
use crate::api::{ReportKind, Value};
use crate::paths::{Paths, SOCKET_VARIABLE};
use clap::{Arg, Command, CommandFactory};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

/// A shell does not wait longer for names.
const PATIENCE: Duration = Duration::from_secs(2);

/// Tells the script to offer files, too.
pub const FILES: &str = ":files";

/// Names that only the daemon knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Names {
    /// `VG`
    Groups,
    /// `VG/LV`
    Volumes,
    /// Paths of disks.
    Disks,
    /// Peers.
    Peers,
    /// Plexes of the volume `VG/LV`.
    Plexes(String),
}

/// What could stand at the cursor, a line each: the words behind the program's name, of which the last
/// is the one to be completed. [`FILES`] in a line of its own asks for files.
pub fn complete(words: &[String]) -> Vec<String> {
    let socket = socket_of(words);
    candidates(words, &mut |names| known(&socket, names))
}

/// The daemon's socket, for a command line that is not parsed.
pub(super) fn socket_of(words: &[String]) -> PathBuf {
    let joined = words.iter().find_map(|word| word.strip_prefix("--socket="));
    let mut pairs = words.iter().zip(words.iter().skip(1));
    let apart = pairs.find(|(option, _)| *option == "--socket");
    joined
        .or(apart.map(|(_, path)| path.as_str()))
        .map(PathBuf::from)
        .or_else(|| std::env::var_os(SOCKET_VARIABLE).map(PathBuf::from))
        .unwrap_or_else(|| Paths::of_process().socket)
}

/// The definitions of the command line, complete.
pub(super) fn program() -> Command {
    let mut program = Cli::command();
    program.build();
    program
}

/// As [`complete`]; `names` asks for names.
fn candidates(words: &[String], names: &mut dyn FnMut(Names) -> Vec<String>) -> Vec<String> {
    let program = program();
    let Some((current, before)) = words.split_last() else {
        return Vec::new();
    };
    let mut place = Place::new(&program);
    for word in before {
        place.pass(word);
    }
    let mut found = match &place.value_of {
        Some(option) => values(option, current, &place, names),
        None if current.starts_with('-') && !place.only_plain => place.options(),
        None => match place.verb {
            None => verbs(&program),
            Some(verb) if verb.get_name() == "help" => verbs(&program),
            Some(_) => match place.positional() {
                Some(argument) => values(argument, current, &place, names),
                None => Vec::new(),
            },
        },
    };
    found.retain(|word| word == FILES || word.starts_with(current.as_str()));
    found
}

/// How far a command line has come.
pub(super) struct Place<'a> {
    program: &'a Command,
    verb: Option<&'a Command>,
    /// Words that are no options, behind the verb.
    plain: Vec<String>,
    /// The next word is the value of this option.
    value_of: Option<&'a Arg>,
    /// `--` was there: all words are plain.
    only_plain: bool,
}

impl<'a> Place<'a> {
    /// At the beginning of a command line.
    pub fn new(program: &'a Command) -> Self {
        Self {
            program,
            verb: None,
            plain: Vec::new(),
            value_of: None,
            only_plain: false,
        }
    }

    fn arguments(&self) -> impl Iterator<Item = &'a Arg> + use<'a> {
        self.verb.unwrap_or(self.program).get_arguments()
    }

    /// Goes on behind this word.
    pub fn pass(&mut self, word: &str) {
        if self.value_of.take().is_some() {
            return;
        }
        if word == "--" {
            self.only_plain = true;
        } else if let Some(long) = word.strip_prefix("--").filter(|_| !self.only_plain) {
            // `--option=value` has its value.
            self.value_of = self
                .arguments()
                .find(|argument| argument.get_long() == Some(long))
                .filter(|argument| argument.get_action().takes_values());
        } else if let Some(short) = word.strip_prefix('-').filter(|_| !self.only_plain) {
            let mut letters = short.chars();
            let letter = letters.next();
            let alone = letters.next().is_none();
            self.value_of = self
                .arguments()
                .find(|argument| letter.is_some() && argument.get_short() == letter)
                .filter(|argument| alone && argument.get_action().takes_values());
        } else if self.verb.is_none() {
            self.verb = self.program.find_subcommand(word);
        } else {
            self.plain.push(word.to_owned());
        }
    }

    /// What the next word is, where it is no option.
    pub fn argument(&self) -> Option<&'a Arg> {
        match self.value_of {
            Some(option) => Some(option),
            None => self.verb.and_then(|_| self.positional()),
        }
    }

    fn options(&self) -> Vec<String> {
        let options = self.arguments().filter(|argument| !argument.is_hide_set());
        let mut found = Vec::new();
        for argument in options {
            found.extend(argument.get_long().map(|long| format!("--{long}")));
            found.extend(argument.get_short().map(|short| format!("-{short}")));
        }
        found
    }

    /// The argument whose turn it is.
    fn positional(&self) -> Option<&'a Arg> {
        let mut all: Vec<&Arg> = self.arguments().filter(|a| a.is_positional()).collect();
        all.sort_by_key(|argument| argument.get_index());
        let several = |argument: &&&Arg| {
            let most = argument
                .get_num_args()
                .map_or(1, |range| range.max_values());
            most > 1 || matches!(argument.get_action(), clap::ArgAction::Append)
        };
        let next = all.get(self.plain.len()).copied();
        next.or_else(|| all.last().filter(several).copied())
    }
}

fn verbs(program: &Command) -> Vec<String> {
    let verbs = program.get_subcommands().filter(|verb| !verb.is_hide_set());
    verbs.map(|verb| verb.get_name().to_owned()).collect()
}

/// What an argument or an option can be.
fn values(
    argument: &Arg,
    current: &str,
    place: &Place<'_>,
    names: &mut dyn FnMut(Names) -> Vec<String>,
) -> Vec<String> {
    let possible = argument.get_possible_values();
    if !possible.is_empty() {
        let shown = possible.iter().filter(|value| !value.is_hide_set());
        return shown.map(|value| value.get_name().to_owned()).collect();
    }
    let verb = place.verb.map_or("", Command::get_name);
    let kind = argument.get_value_names().and_then(|names| names.first());
    match kind.map_or("", |kind| kind.as_str()) {
        "VG" | "TO_VG" | "FROM_VG" => names(Names::Groups),
        "VG/LV" => names(Names::Volumes),
        "VG|VG/LV" => [names(Names::Groups), names(Names::Volumes)].concat(),
        "PV" | "TO_PV" => [names(Names::Disks), vec![FILES.to_owned()]].concat(),
        "PEER" | "PEER[:VG/LV]" => names(Names::Peers),
        "PLEX" => {
            let volume = place.plain.iter().find(|word| word.contains('/'));
            names(Names::Plexes(volume.cloned().unwrap_or_default()))
        }
        "NAME" if verb.starts_with("peer") => names(Names::Peers),
        "NAME" if verb == "lvrename" && place.plain.is_empty() => names(Names::Volumes),
        "PATH" if verb.starts_with("pv") => [names(Names::Disks), vec![FILES.to_owned()]].concat(),
        "PATH" | "FILE" | "DIR" => vec![FILES.to_owned()],
        name if name.contains("FIELD") => fields_of(verb, current),
        _ => Vec::new(),
    }
}

/// Fields of a listing, behind those that are there already: `-o lv_name,vg_…`.
fn fields_of(verb: &str, current: &str) -> Vec<String> {
    let kind = match verb {
        "pvs" => ReportKind::Pv,
        "vgs" => ReportKind::Vg,
        "lvs" => ReportKind::Lv,
        "plexs" => ReportKind::Plex,
        "feeds" => ReportKind::Feed,
        "peers" => ReportKind::Peer,
        "nodeshow" => ReportKind::Node,
        "points" => ReportKind::Point,
        "events" => ReportKind::Event,
        _ => return Vec::new(),
    };
    let typed = match current.rfind([',', '+', '-']) {
        Some(end) => &current[..=end],
        None => "",
    };
    let fields = fields::table(kind).fields.iter();
    fields
        .map(|field| format!("{typed}{}", field.name))
        .collect()
}

/// Asks the daemon; no names where there is none, or where it takes too long.
fn known(socket: &std::path::Path, names: Names) -> Vec<String> {
    let (kind, columns): (ReportKind, &[&str]) = match &names {
        Names::Groups => (ReportKind::Vg, &["vg_name"]),
        Names::Volumes => (ReportKind::Lv, &["vg_name", "lv_name"]),
        Names::Disks => (ReportKind::Pv, &["pv_name"]),
        Names::Peers => (ReportKind::Peer, &["peer_name"]),
        Names::Plexes(_) => (ReportKind::Plex, &["vg_name", "lv_name", "plex_name"]),
    };
    // Who presses Tab wants no complaints.
    let rows = table_of(socket, kind, columns, PATIENCE).unwrap_or_default();
    let found: BTreeSet<String> = rows
        .iter()
        .filter_map(|row| {
            let texts: Vec<&str> = row.iter().filter_map(text).collect();
            name_of(&names, &texts)
        })
        .collect();
    found.into_iter().collect()
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::Text(text) => Some(text),
        _ => None,
    }
}

fn name_of(names: &Names, texts: &[&str]) -> Option<String> {
    match (names, texts) {
        (Names::Plexes(volume), [vg, lv, plex]) => {
            let its = volume.is_empty() || *volume == format!("{vg}/{lv}");
            its.then(|| (*plex).to_owned())
        }
        (_, [vg, lv]) => Some(format!("{vg}/{lv}")),
        // A disk that is missing has no path.
        (_, [name]) if !name.starts_with('[') => Some((*name).to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(line: &str) -> Vec<String> {
        let words: Vec<String> = line.split(' ').map(String::from).collect();
        candidates(&words, &mut |names| match names {
            Names::Groups => vec!["vg0".into(), "vg1".into()],
            Names::Volumes => vec!["vg0/db".into(), "vg0/web".into()],
            Names::Disks => vec!["/dev/sdb".into()],
            Names::Peers => vec!["backup".into()],
            Names::Plexes(volume) => vec![format!("plex-of-{volume}")],
        })
    }

    #[test]
    fn verbs_options_and_words() {
        assert_eq!(all("lvc"), ["lvcreate", "lvchange", "lvconvert"]);
        assert!(all("").contains(&"feedattach".into()));
        assert!(!all("").contains(&"complete".into()), "hidden");
        assert_eq!(all("help lvcr"), ["lvcreate"]);
        assert_eq!(all("lvcreate --mirr"), ["--mirrors"]);
        assert_eq!(all("lvchange -a "), ["y", "n"]);
        assert_eq!(all("lvchange -ay --frontend "), ["ublk", "nbd", "both"]);
        assert_eq!(all("--reportformat j"), ["json"]);
        assert_eq!(all("completions f"), ["fish"]);
        assert!(all("nonsense ").len() > 10, "verbs once more");
    }

    #[test]
    fn names_where_they_belong() {
        assert_eq!(all("lvremove vg0/w"), ["vg0/web"]);
        assert_eq!(all("lvremove -y vg0/db vg0/w"), ["vg0/web"], "several");
        assert_eq!(all("lvs vg"), ["vg0", "vg1", "vg0/db", "vg0/web"]);
        assert_eq!(all("lvcreate -n web -L 10g v"), ["vg0", "vg1"]);
        assert_eq!(all("lvcreate -n "), [] as [&str; 0], "a new name");
        assert_eq!(all("lvcreate -L 10g -n web vg0 /dev/"), ["/dev/sdb", FILES]);
        assert_eq!(all("feedattach vg0/web "), ["backup"]);
        assert_eq!(all("feedwait vg0/web b"), ["backup"]);
        assert_eq!(all("peerremove "), ["backup"]);
        assert_eq!(all("plexdetach vg0/web "), ["plex-of-vg0/web"]);
        assert_eq!(all("vgrename vg0 "), [] as [&str; 0], "a new name");
        assert_eq!(all("vgcfgrestore -f "), [FILES]);
        assert_eq!(all("pvmove -n "), ["vg0/db", "vg0/web"]);
        assert_eq!(all("lvremove -- vg0/w"), ["vg0/web"]);
        assert_eq!(all("--socket /x lvremove vg0/w"), ["vg0/web"]);
    }

    #[test]
    fn fields_one_after_the_other() {
        assert_eq!(all("lvs -o lv_na"), ["lv_name"]);
        assert_eq!(all("lvs -o +lv_name,lv_pa"), ["+lv_name,lv_path"]);
        assert_eq!(all("vgs -O -vg_fr"), ["-vg_free"]);
    }
}
