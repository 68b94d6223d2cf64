//! `@TAG` in place of a name: all volumes, groups or disks that have the tag, as LVM does it.
//!
//! Tags are looked up before the command line is parsed: to the verb it is as if the names had been
//! typed.

use super::complete::{Place, program, socket_of};
use super::failure::{EXIT_FAILED, failure};
use super::run::table_of;
use crate::api::{Failure, ReportKind, Value};
use clap::Arg;
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

/// Longest wait for the daemon to say what has a tag.
const LIMIT: Duration = Duration::from_secs(30);

/// What `@TAG` stands for at a place of the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tagged {
    /// Disks that have it.
    Disks,
    /// Groups that have the tag.
    Groups,
    /// Volumes that have it, and those of groups that have it.
    Volumes,
}

/// Puts names in the place of tags; `args` start with the program's name.
pub fn expand(args: Vec<OsString>) -> Result<Vec<OsString>, Failure> {
    if !args
        .iter()
        .any(|arg| arg.as_encoded_bytes().starts_with(b"@"))
    {
        return Ok(args);
    }
    let words: Vec<String> = args
        .iter()
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect();
    let socket = socket_of(&words);
    expand_with(args, &mut |kind, tag| known(&socket, kind, tag))
}

/// Who answers which objects have a tag.
type Known<'a> = dyn FnMut(Tagged, &str) -> Result<Vec<String>, Failure> + 'a;

fn expand_with(args: Vec<OsString>, known: &mut Known<'_>) -> Result<Vec<OsString>, Failure> {
    let program = program();
    let mut place = Place::new(&program);
    let mut expanded: Vec<OsString> = Vec::with_capacity(args.len());
    for (index, arg) in args.into_iter().enumerate() {
        let word = arg.to_string_lossy().into_owned();
        let kind = place.argument().and_then(kind_of);
        match (word.strip_prefix('@'), kind) {
            (Some(tag), Some(kind)) if index > 0 => {
                let names = known(kind, tag)?;
                if names.is_empty() {
                    let (what, hint) = match kind {
                        Tagged::Disks => ("no disk has this tag", "see `volmgr pvs -o +pv_tags`"),
                        Tagged::Groups => ("no group has this tag", "see `volmgr vgs -o +vg_tags`"),
                        Tagged::Volumes => {
                            ("no volume has this tag", "see `volmgr lvs -o +lv_tags`")
                        }
                    };
                    return Err(failure(EXIT_FAILED, &word, "not found", what, hint));
                }
                place.pass(&names[0]);
                expanded.extend(names.into_iter().map(OsString::from));
            }
            _ => {
                if index > 0 {
                    place.pass(&word);
                }
                expanded.push(arg);
            }
        }
    }
    Ok(expanded)
}

fn kind_of(argument: &Arg) -> Option<Tagged> {
    let kind = argument.get_value_names().and_then(|names| names.first());
    match kind?.as_str() {
        "PV" | "TO_PV" => Some(Tagged::Disks),
        "VG" => Some(Tagged::Groups),
        "VG/LV" | "VG|VG/LV" => Some(Tagged::Volumes),
        _ => None,
    }
}

fn known(socket: &Path, kind: Tagged, tag: &str) -> Result<Vec<String>, Failure> {
    let text = |value: Option<&Value>| match value {
        Some(Value::Text(text)) => text.clone(),
        _ => String::new(),
    };
    let has = |tags: &str| tags.split(',').any(|its| its == tag);
    if kind == Tagged::Disks {
        let disks = table_of(socket, ReportKind::Pv, &["pv_name", "pv_tags"], LIMIT)?;
        let disks = disks.iter().filter(|row| has(&text(row.get(1))));
        return Ok(disks.map(|row| text(row.first())).collect());
    }
    let groups = table_of(socket, ReportKind::Vg, &["vg_name", "vg_tags"], LIMIT)?;
    let groups = groups.iter().filter(|row| has(&text(row.get(1))));
    let groups: Vec<String> = groups.map(|row| text(row.first())).collect();
    if kind == Tagged::Groups {
        return Ok(groups);
    }
    let volumes = table_of(
        socket,
        ReportKind::Lv,
        &["vg_name", "lv_name", "lv_tags"],
        LIMIT,
    )?;
    let volumes = volumes.iter().map(|row| (text(row.first()), row));
    let wanted = volumes.filter(|(vg, row)| has(&text(row.get(2))) || groups.contains(vg));
    let names = wanted.map(|(vg, row)| format!("{vg}/{}", text(row.get(1))));
    Ok(names.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(line: &str) -> Result<String, Failure> {
        let mut known = |kind, tag: &str| {
            let names: &[&str] = match (kind, tag) {
                (_, "none") => &[],
                (Tagged::Disks, _) => &["/dev/x", "/dev/y"],
                (Tagged::Groups, _) => &["vg0", "vg1"],
                (Tagged::Volumes, _) => &["vg0/web", "vg1/db"],
            };
            Ok(names.iter().map(|name| (*name).to_owned()).collect())
        };
        let args = line.split_whitespace().map(OsString::from).collect();
        let expanded = expand_with(args, &mut known)?;
        let words: Vec<_> = expanded.iter().map(|word| word.to_string_lossy()).collect();
        Ok(words.join(" "))
    }

    #[test]
    fn names_take_the_place_of_tags() {
        for (line, expanded) in [
            ("volmgr lvs @prod", "volmgr lvs vg0/web vg1/db"),
            ("volmgr vgchange -an @prod", "volmgr vgchange -an vg0 vg1"),
            (
                "volmgr lvremove -y vg0/a @prod",
                "volmgr lvremove -y vg0/a vg0/web vg1/db",
            ),
            (
                "volmgr lvcreate -n a -L 1 vg0 @fast",
                "volmgr lvcreate -n a -L 1 vg0 /dev/x /dev/y",
            ),
            ("volmgr pvs @fast", "volmgr pvs /dev/x /dev/y"),
            // Here they are no names.
            (
                "volmgr lvchange --addtag @prod vg0/a",
                "volmgr lvchange --addtag @prod vg0/a",
            ),
            ("volmgr lvs -S lv_tags=@x", "volmgr lvs -S lv_tags=@x"),
            ("volmgr peerremove @prod", "volmgr peerremove @prod"),
            ("volmgr nonsense @prod", "volmgr nonsense @prod"),
        ] {
            assert_eq!(typed(line).unwrap(), expanded, "{line}");
        }
        let nothing = typed("volmgr lvs @none").unwrap_err();
        assert_eq!(
            (nothing.code, nothing.object.as_str()),
            (EXIT_FAILED, "@none")
        );
    }
}
