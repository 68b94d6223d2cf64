//! Names of groups, volumes, peers and points: the rules are LVM2's.

use thiserror::Error;

/// Longest name in bytes.
pub const NAME_MAX: usize = 127;

/// Why a name is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// No characters at all.
    #[error("a name must not be empty")]
    Empty,
    /// More than [`NAME_MAX`] bytes.
    #[error("the name has {len} bytes, {NAME_MAX} are the most")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// It would look like an option.
    #[error("a name must not start with '-'")]
    LeadingHyphen,
    /// `.` and `..` are folders.
    #[error("\".\" and \"..\" are no names")]
    Dots,
    /// Only `a-zA-Z0-9+_.-` are allowed.
    #[error("the character {character:?} is not allowed in a name (only a-z A-Z 0-9 + _ . -)")]
    Character {
        /// The first one that is not.
        character: char,
    },
}

/// Is this a valid name of a group, volume, peer or point?
pub fn check(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if let Some(character) = name
        .chars()
        .find(|c| !(c.is_ascii_alphanumeric() || "+_.-".contains(*c)))
    {
        return Err(NameError::Character { character });
    }
    if name.len() > NAME_MAX {
        return Err(NameError::TooLong { len: name.len() });
    }
    if name.starts_with('-') {
        return Err(NameError::LeadingHyphen);
    }
    if name == "." || name == ".." {
        return Err(NameError::Dots);
    }
    Ok(())
}

/// Is this a valid tag? Tags have more characters than names, LVM2's: a tag may say `host=a/b`.
pub fn check_tag(tag: &str) -> Result<(), NameError> {
    if tag.is_empty() {
        return Err(NameError::Empty);
    }
    if let Some(character) = tag
        .chars()
        .find(|c| !(c.is_ascii_alphanumeric() || "+_.-/=!:#&".contains(*c)))
    {
        return Err(NameError::Character { character });
    }
    if tag.len() > NAME_MAX {
        return Err(NameError::TooLong { len: tag.len() });
    }
    if tag.starts_with('-') {
        return Err(NameError::LeadingHyphen);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_names() {
        for name in ["vg0", "a", "web-1_x.y+z", "...", "_", "9", &"x".repeat(127)] {
            assert_eq!(check(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn invalid_names() {
        assert_eq!(check(""), Err(NameError::Empty));
        assert_eq!(check("-x"), Err(NameError::LeadingHyphen));
        assert_eq!(check("."), Err(NameError::Dots));
        assert_eq!(check(".."), Err(NameError::Dots));
        let long = "x".repeat(128);
        assert_eq!(check(&long), Err(NameError::TooLong { len: 128 }));
        for (name, character) in [
            ("a/b", '/'),
            ("a b", ' '),
            ("ä", 'ä'),
            ("a\n", '\n'),
            ("a\0", '\0'),
        ] {
            assert_eq!(check(name), Err(NameError::Character { character }));
        }
    }

    #[test]
    fn tags() {
        for tag in ["db", "host=a/b", "a!b:c#d&e+f._-", &"x".repeat(127)] {
            assert_eq!(check_tag(tag), Ok(()), "{tag}");
        }
        for tag in ["", "-x", "@x", "a b", "a,b", "ä", &"x".repeat(128)] {
            assert!(check_tag(tag).is_err(), "{tag}");
        }
    }
}
