//! Trees: what `lvdisplay` and `status` draw.

use serde::{Deserialize, Serialize};

/// How a piece of text is meant; a terminal shows it in colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tone {
    /// As it is.
    #[default]
    Plain,
    /// A name to find things by.
    Name,
    /// As it should be.
    Good,
    /// On the way there.
    Busy,
    /// Somebody has to look.
    Bad,
}

/// A piece of a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// How it is meant.
    pub tone: Tone,
    /// The text.
    pub text: String,
}

/// A line of the tree, and what hangs below it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Branch {
    /// The line; its parts stand two blanks apart.
    pub parts: Vec<Part>,
    /// What hangs below.
    pub below: Vec<Branch>,
}

impl Branch {
    /// A line that begins with a name.
    pub fn new(name: impl Into<String>) -> Self {
        Self::default().with(Tone::Name, name)
    }

    /// With one more part; an empty one is left out.
    pub fn with(mut self, tone: Tone, text: impl Into<String>) -> Self {
        let text = text.into();
        if !text.is_empty() {
            self.parts.push(Part { tone, text });
        }
        self
    }

    /// With one more part as it is.
    pub fn plain(self, text: impl Into<String>) -> Self {
        self.with(Tone::Plain, text)
    }
}
