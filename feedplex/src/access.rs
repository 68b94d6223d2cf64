//! Who may do what with which volume: the access list of a peer.
//!
//! A rule is `feed`, `read`, `create` or `all`, optionally `:PATTERN`; `!` in front excludes. The
//! pattern is a shell glob over the whole text `VG/LV`, as in a shell's `case`: `*` and `?` match
//! `/` like any other character, so `vgb/*` is every volume of `vgb` and `*` is everything.
//! Without a pattern a rule is about every volume.
//!
//! Nothing is allowed until a rule allows it, and an exclusion always wins, wherever it stands: an
//! admin who adds a rule later cannot open by accident what was closed.

use globset::{GlobBuilder, GlobMatcher};
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// Something a peer may be allowed to do with a volume of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Right {
    /// Write to the volume through a feed.
    Feed,
    /// Read the volume's content through a feed.
    Read,
    /// Create the volume.
    Create,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    One(Right),
    All,
}

/// One rule.
#[derive(Clone, Debug)]
pub struct Rule {
    exclude: bool,
    subject: Subject,
    pattern: Option<GlobMatcher>,
}

/// Longest rule in bytes.
pub const RULE_LEN_MAX: usize = 512;

/// Why a text is not a rule.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RuleError {
    /// Not one of the four words.
    #[error("`{0}` is not feed, read, create or all")]
    Word(String),
    /// A colon and nothing behind it.
    #[error("`{0}` has an empty pattern")]
    EmptyPattern(String),
    /// Not a shell glob.
    #[error("`{pattern}` is not a pattern: {why}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        why: String,
    },
    /// Longer than [`RULE_LEN_MAX`].
    #[error("a rule of {0} bytes is too long")]
    TooLong(usize),
}

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        if text.len() > RULE_LEN_MAX {
            return Err(RuleError::TooLong(text.len()));
        }
        let (exclude, rest) = match text.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (word, pattern) = match rest.split_once(':') {
            Some((word, pattern)) => (word, Some(pattern)),
            None => (rest, None),
        };
        let subject = match word {
            "feed" => Subject::One(Right::Feed),
            "read" => Subject::One(Right::Read),
            "create" => Subject::One(Right::Create),
            "all" => Subject::All,
            _ => return Err(RuleError::Word(word.to_owned())),
        };
        let pattern = match pattern {
            None => None,
            Some("") => return Err(RuleError::EmptyPattern(text.to_owned())),
            Some(pattern) => Some(compile(pattern)?),
        };
        Ok(Self {
            exclude,
            subject,
            pattern,
        })
    }
}

fn compile(pattern: &str) -> Result<GlobMatcher, RuleError> {
    GlobBuilder::new(pattern)
        .literal_separator(false)
        .backslash_escape(true)
        .build()
        .map(|glob| glob.compile_matcher())
        .map_err(|error| RuleError::Pattern {
            pattern: pattern.to_owned(),
            why: error.kind().to_string(),
        })
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.subject {
            Subject::One(Right::Feed) => "feed",
            Subject::One(Right::Read) => "read",
            Subject::One(Right::Create) => "create",
            Subject::All => "all",
        };
        f.write_str(if self.exclude { "!" } else { "" })?;
        f.write_str(word)?;
        match &self.pattern {
            Some(pattern) => write!(f, ":{}", pattern.glob().glob()),
            None => Ok(()),
        }
    }
}

impl Rule {
    /// Does it say anything of this right and `volume` (`VG/LV`)?
    pub fn is_about(&self, right: Right, volume: &str) -> bool {
        let subject = self.subject == Subject::All || self.subject == Subject::One(right);
        subject && self.pattern.as_ref().is_none_or(|p| p.is_match(volume))
    }
}

/// The access list of a peer; empty allows nothing.
#[derive(Clone, Debug, Default)]
pub struct Rules(Vec<Rule>);

impl Rules {
    /// The rules in these texts.
    pub fn parse<S: AsRef<str>>(texts: impl IntoIterator<Item = S>) -> Result<Self, RuleError> {
        let rules = texts.into_iter().map(|text| text.as_ref().parse());
        rules.collect::<Result<_, _>>().map(Self)
    }

    /// May the peer do this with `volume` (`VG/LV`)?
    pub fn allows(&self, right: Right, volume: &str) -> bool {
        let about = || self.0.iter().filter(|rule| rule.is_about(right, volume));
        about().any(|rule| !rule.exclude) && !about().any(|rule| rule.exclude)
    }

    /// The rules, in the order given.
    pub fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(texts: &[&str]) -> Rules {
        Rules::parse(texts).expect("valid rules")
    }

    #[test]
    fn nothing_is_allowed_by_default() {
        for right in [Right::Feed, Right::Read, Right::Create] {
            assert!(!rules(&[]).allows(right, "vg/lv"));
            assert!(!rules(&["!all"]).allows(right, "vg/lv"));
        }
    }

    #[test]
    fn a_word_allows_only_itself() {
        let rules = rules(&["feed"]);
        assert!(rules.allows(Right::Feed, "vg/lv"));
        assert!(!rules.allows(Right::Read, "vg/lv"));
        assert!(!rules.allows(Right::Create, "vg/lv"));
    }

    #[test]
    fn the_exclusion_wins_wherever_it_stands() {
        for order in [
            ["all:vgb/*", "!all:vgb/secret*"],
            ["!all:vgb/secret*", "all:vgb/*"],
        ] {
            let rules = rules(&order);
            assert!(rules.allows(Right::Read, "vgb/web"));
            assert!(!rules.allows(Right::Read, "vgb/secret1"));
            assert!(!rules.allows(Right::Read, "vgc/web"));
        }
        let partly = rules(&["all", "!create"]);
        assert!(partly.allows(Right::Feed, "vg/lv"));
        assert!(!partly.allows(Right::Create, "vg/lv"));
    }

    #[test]
    fn patterns_match_the_whole_name_as_in_case() {
        assert!(rules(&["feed:*"]).allows(Right::Feed, "vg/lv"));
        assert!(rules(&["feed:v*b"]).allows(Right::Feed, "vg/web"));
        assert!(!rules(&["feed:vg"]).allows(Right::Feed, "vg/web"));
        assert!(!rules(&["feed:web"]).allows(Right::Feed, "vg/web"));
        assert!(rules(&["feed:vg/[a-c]?"]).allows(Right::Feed, "vg/b1"));
        assert!(!rules(&["feed:vg/[!a-c]?"]).allows(Right::Feed, "vg/b1"));
        assert!(!rules(&["feed:VG/*"]).allows(Right::Feed, "vg/b1"));
    }

    #[test]
    fn wrong_rules_say_what_is_wrong() {
        let error = |text: &str| text.parse::<Rule>().expect_err(text);
        assert_eq!(error("write"), RuleError::Word("write".into()));
        assert_eq!(error(""), RuleError::Word(String::new()));
        assert_eq!(error("!!all"), RuleError::Word("!all".into()));
        assert_eq!(error("feed:"), RuleError::EmptyPattern("feed:".into()));
        assert!(matches!(error("feed:[a"), RuleError::Pattern { .. }));
        assert!(matches!(error(&"x".repeat(513)), RuleError::TooLong(513)));
    }

    #[test]
    fn rules_print_as_they_were_read() {
        for text in ["feed", "!all:vgb/secret*", "create:a/b", "read:*"] {
            assert_eq!(text.parse::<Rule>().expect(text).to_string(), text);
        }
    }
}
