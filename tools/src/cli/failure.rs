//! How a command ends badly: exit codes and the one line on standard error.

use crate::api::Failure;
use std::fmt;

/// Exit code: no such verb.
pub const EXIT_NO_SUCH_VERB: u8 = 2;
/// Exit code: the command line is wrong.
pub const EXIT_COMMAND_LINE: u8 = 3;
/// Exit code: no daemon answers.
pub const EXIT_NO_DAEMON: u8 = 4;
/// Exit code: the command failed.
pub const EXIT_FAILED: u8 = 5;
/// Exit code after Ctrl-C, as a shell reports a program ended by SIGINT. The work goes on.
pub const EXIT_INTERRUPTED: u8 = 130;

/// Builds a [`Failure`] of this code.
pub fn failure(
    code: u8,
    object: impl Into<String>,
    what: impl Into<String>,
    why: impl fmt::Display,
    hint: impl Into<String>,
) -> Failure {
    Failure {
        code,
        object: object.into(),
        what: what.into(),
        why: why.to_string(),
        hint: hint.into(),
    }
}

/// A wrong command line.
pub fn usage(
    object: impl Into<String>,
    what: impl Into<String>,
    why: impl fmt::Display,
    hint: impl Into<String>,
) -> Failure {
    failure(EXIT_COMMAND_LINE, object, what, why, hint)
}

/// The line for a failure: `volmgr: VERB: OBJECT: what: why (what to do)`. Parts that are empty
/// are left out; line breaks and control characters, whoever sent them, cannot break the line.
pub fn line(verb: &str, failure: &Failure) -> String {
    let mut line = String::from("volmgr");
    for part in [verb, &failure.object, &failure.what, &failure.why] {
        let part = one_line(part);
        if !part.is_empty() {
            line.push_str(": ");
            line.push_str(&part);
        }
    }
    let hint = one_line(&failure.hint);
    if !hint.is_empty() {
        line.push_str(" (");
        line.push_str(&hint);
        line.push(')');
    }
    line
}

/// The text without anything that could move the cursor: one line, safe on a terminal.
pub fn one_line(text: &str) -> String {
    text.trim()
        .chars()
        .map(|c| match c {
            _ if c.is_whitespace() => ' ',
            _ if c.is_control() => '?',
            _ => c,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_parts_and_only_those_there_are() {
        let full = failure(5, "vg0/web", "cannot create", "no space", "add a disk");
        assert_eq!(
            line("lvcreate", &full),
            "volmgr: lvcreate: vg0/web: cannot create: no space (add a disk)"
        );
        let bare = failure(5, "", "cannot create", "", "");
        assert_eq!(line("", &bare), "volmgr: cannot create");
    }

    #[test]
    fn always_one_line_and_no_escapes() {
        let nasty = failure(5, "a\nb", "c\td", "e\u{1b}[2Jf", "\r\n");
        assert_eq!(line("x", &nasty), "volmgr: x: a b: c d: e?[2Jf");
    }
}
