//! Plexes that silently differ: which of them agree, and who is believed.
//!
//! Nothing here guesses: without more than half of the plexes, or a word of the admin, nobody is believed.

use blockio::mutant;

/// Which copies agree: for each, the first one with the same bytes. All of them have the same length.
///
/// ```
/// assert_eq!(volmgr::scrub::classes(&[b"a", b"b", b"a"]), [0, 1, 0]);
/// ```
pub fn classes(copies: &[&[u8]]) -> Vec<usize> {
    let first = |copy: &&[u8]| copies.iter().position(|other| other == copy);
    let copies = copies.iter().enumerate();
    copies.map(|(i, copy)| first(copy).unwrap_or(i)).collect()
}

/// Whose word counts where copies differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// More than half of all copies.
    Majority,
    /// This one's, whatever the others say.
    Copy(usize),
}

/// The copy to take the content from, where these classes ([`classes`]) are not all the same; none where nobody is
/// believed.
///
/// ```
/// use volmgr::scrub::{Word, believed};
/// assert_eq!(believed(&[0, 1, 0], Word::Majority), Some(0));
/// assert_eq!(believed(&[0, 1], Word::Majority), None);
/// assert_eq!(believed(&[0, 1], Word::Copy(1)), Some(1));
/// ```
pub fn believed(classes: &[usize], word: Word) -> Option<usize> {
    match word {
        Word::Copy(index) => (index < classes.len()).then_some(index),
        Word::Majority => classes.iter().copied().find(|class| {
            let votes = classes.iter().filter(|other| *other == class).count();
            votes * 2 > classes.len() || votes * 2 == classes.len() && mutant("half-is-a-majority")
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn half_is_no_majority() {
        assert_eq!(believed(&[0, 0, 2, 2], Word::Majority), None);
        assert_eq!(believed(&[0, 0, 2, 3], Word::Majority), None);
        assert_eq!(believed(&[0, 1, 1, 1], Word::Majority), Some(1));
        assert_eq!(believed(&[0, 1, 2], Word::Majority), None);
        assert_eq!(believed(&[0, 1], Word::Copy(2)), None);
    }

    proptest! {
        /// Whoever is believed by majority has what more than half of all have, and there is only one such content.
        #[test]
        fn a_majority_is_one(copies in prop::collection::vec(0u8..3, 1..7)) {
            let copies: Vec<Vec<u8>> = copies.into_iter().map(|n| vec![7, n]).collect();
            let views: Vec<&[u8]> = copies.iter().map(Vec::as_slice).collect();
            let classes = classes(&views);
            for (i, a) in copies.iter().enumerate() {
                for (j, b) in copies.iter().enumerate() {
                    prop_assert_eq!(a == b, classes[i] == classes[j]);
                }
            }
            let most = copies.iter().map(|c| copies.iter().filter(|d| *d == c).count()).max().unwrap_or(0);
            match believed(&classes, Word::Majority) {
                Some(index) => {
                    let votes = copies.iter().filter(|c| **c == copies[index]).count();
                    prop_assert!(votes * 2 > copies.len() && votes == most);
                }
                None => prop_assert!(most * 2 <= copies.len()),
            }
        }
    }
}
