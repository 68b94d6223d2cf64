//! Colours of the terminal, where there is one and nobody objects.

use crate::api::Tone;
use std::io::IsTerminal;

/// Whether to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colours {
    /// Escape sequences around what has a tone.
    On,
    /// Plain text.
    Off,
}

impl Colours {
    /// For standard output: on a terminal that can, unless `NO_COLOR` is set.
    pub fn of_stdout() -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        if std::io::stdout().is_terminal() && !set("NO_COLOR") && !dumb {
            Self::On
        } else {
            Self::Off
        }
    }

    /// The text in the colour of its tone.
    pub fn paint(self, tone: Tone, text: &str) -> String {
        let code = match (self, tone) {
            (Self::Off, _) | (_, Tone::Plain) => return text.to_owned(),
            (Self::On, Tone::Name) => 1,
            (Self::On, Tone::Good) => 32,
            (Self::On, Tone::Busy) => 33,
            (Self::On, Tone::Bad) => 31,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}
