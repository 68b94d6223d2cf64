//! Sizes as the admin types them: LVM's way.
//!
//! A number, a decimal fraction if need be, and one letter. Lower-case letters count in powers of
//! 1024 (`k m g t p e`), upper-case ones in powers of 1000 (`K M G T P E`), `b` is bytes and `s`
//! sectors of 512 bytes. What a number without a letter means depends on the place: MiB nearly
//! everywhere. `+` and `-` make a size relative; `%FREE` and `%VG` are shares of a group.
//!
//! The arithmetic is exact: `0.1g` is the whole bytes in a tenth of a GiB, not what a float makes of it.

use crate::api::SizeSpec;

/// Digits after the point that are looked at; more would not change a byte of any size.
const FRACTION_DIGITS_MAX: usize = 18;

/// Why a text is no size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// No digits where a number must be.
    #[error(
        "'{0}' is not a size (a number and one of b s k m g t p e, or K M G T P E for powers of 1000)"
    )]
    NotASize(String),
    /// A letter that names no unit.
    #[error("'{1}' in '{0}' is not a unit (b s k m g t p e, or K M G T P E for powers of 1000)")]
    NoSuchUnit(String, String),
    /// More than 2^64-1 bytes.
    #[error("'{0}' is too large (the limit is 16 EiB)")]
    TooLarge(String),
    /// Zero where something is needed.
    #[error("'{0}' is nothing")]
    Zero(String),
    /// A percentage that is none.
    #[error("'{0}' is not a percentage (1%FREE to 100%FREE, 1%VG to 100%VG, +1%FREE to +100%FREE)")]
    NotAPercentage(String),
    /// Neither a number of extents nor a percentage.
    #[error("'{0}' is neither a number of extents (100, +100, -100) nor a percentage (100%FREE)")]
    NotExtents(String),
}

/// Bytes of one of a unit's letter.
pub fn unit_bytes(letter: char) -> Option<u64> {
    let base: u64 = if letter.is_ascii_uppercase() {
        1000
    } else {
        1024
    };
    let power = match letter.to_ascii_lowercase() {
        'b' => return Some(1),
        's' => return Some(512),
        'k' => 1,
        'm' => 2,
        'g' => 3,
        't' => 4,
        'p' => 5,
        'e' => 6,
        _ => return None,
    };
    base.checked_pow(power)
}

/// Parses an amount of bytes; a number without a letter counts in `plain` (a unit's letter).
pub fn parse_bytes(text: &str, plain: char) -> Result<u64, SizeError> {
    let not_a_size = || SizeError::NotASize(text.to_owned());
    let too_large = || SizeError::TooLarge(text.to_owned());
    let number_end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(number_end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return Err(not_a_size());
    }
    let mut letters = unit.chars();
    let letter = match (letters.next(), letters.next()) {
        (None, _) => plain,
        (Some(letter), None) => letter,
        _ => return Err(SizeError::NoSuchUnit(text.to_owned(), unit.to_owned())),
    };
    let unit_size = unit_bytes(letter)
        .ok_or_else(|| SizeError::NoSuchUnit(text.to_owned(), letter.to_string()))?;
    let unit_size = u128::from(unit_size);

    let whole: u128 = if whole.is_empty() {
        0
    } else {
        // Only digits are left, so the only way to fail is to be too large.
        whole.parse().map_err(|_| too_large())?
    };
    let fraction = fraction.get(..FRACTION_DIGITS_MAX).unwrap_or(fraction);
    let (fraction, scale) = fraction
        .bytes()
        .fold((0u128, 1u128), |(value, scale), digit| {
            (value * 10 + u128::from(digit - b'0'), scale * 10)
        });
    whole
        .checked_mul(unit_size)
        .and_then(|bytes| bytes.checked_add(fraction * unit_size / scale))
        .and_then(|bytes| u64::try_from(bytes).ok())
        .ok_or_else(too_large)
}

/// Parses an amount of bytes that must not be zero; a plain number is MiB.
pub fn parse_mib(text: &str) -> Result<u64, SizeError> {
    non_zero(text, parse_bytes(text, 'm')?)
}

/// Parses a stripe size: as everywhere, but a plain number is KiB, as for LVM's `-I`.
pub fn parse_kib(text: &str) -> Result<u64, SizeError> {
    non_zero(text, parse_bytes(text, 'k')?)
}

/// Parses a rate in bytes per second, with or without `/s` at the end; a plain number is MiB/s.
pub fn parse_rate(text: &str) -> Result<u64, SizeError> {
    parse_mib(text.strip_suffix("/s").unwrap_or(text))
}

/// Parses the size of a volume: absolute, relative or a percentage.
pub fn parse_spec(text: &str) -> Result<SizeSpec, SizeError> {
    if text.contains('%') {
        return parse_percentage(text);
    }
    let (sign, amount) = match text.as_bytes().first() {
        Some(b'+') => (Some('+'), &text[1..]),
        Some(b'-') => (Some('-'), &text[1..]),
        _ => (None, text),
    };
    let bytes = non_zero(text, parse_bytes(amount, 'm')?)?;
    Ok(match sign {
        Some('+') => SizeSpec::Plus(bytes),
        Some(_) => SizeSpec::Minus(bytes),
        None => SizeSpec::Bytes(bytes),
    })
}

/// Parses what `-l` takes: a number of extents, with a sign where it is relative, or a percentage.
pub fn parse_extents(text: &str) -> Result<SizeSpec, SizeError> {
    if text.contains('%') {
        return parse_percentage(text);
    }
    let wrong = || SizeError::NotExtents(text.to_owned());
    let number = |digits: &str| match digits.bytes().all(|byte| byte.is_ascii_digit()) {
        true => digits.parse::<u64>().map_err(|_| wrong()),
        false => Err(wrong()),
    };
    let spec = match text.as_bytes().first() {
        Some(b'+') => SizeSpec::PlusExtents(number(&text[1..])?),
        Some(b'-') => SizeSpec::MinusExtents(number(&text[1..])?),
        _ => SizeSpec::Extents(number(text)?),
    };
    match spec {
        SizeSpec::Extents(0) | SizeSpec::PlusExtents(0) | SizeSpec::MinusExtents(0) => {
            Err(SizeError::Zero(text.to_owned()))
        }
        spec => Ok(spec),
    }
}

/// Parses `N%FREE`, `N%VG`, `+N%FREE`.
pub fn parse_percentage(text: &str) -> Result<SizeSpec, SizeError> {
    let wrong = || SizeError::NotAPercentage(text.to_owned());
    let (number, of) = text.split_once('%').ok_or_else(wrong)?;
    let (plus, digits) = match number.strip_prefix('+') {
        Some(digits) => (true, digits),
        None => (false, number),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let percent: u32 = digits.parse().map_err(|_| wrong())?;
    if !(1..=100).contains(&percent) {
        return Err(wrong());
    }
    match (plus, of.to_ascii_uppercase().as_str()) {
        (false, "FREE") => Ok(SizeSpec::PercentFree(percent)),
        (false, "VG") => Ok(SizeSpec::PercentVg(percent)),
        (true, "FREE") => Ok(SizeSpec::PlusPercentFree(percent)),
        _ => Err(wrong()),
    }
}

fn non_zero(text: &str, bytes: u64) -> Result<u64, SizeError> {
    if bytes == 0 {
        return Err(SizeError::Zero(text.to_owned()));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KIB: u64 = 1024;
    const MIB: u64 = 1024 * KIB;
    const GIB: u64 = 1024 * MIB;

    #[test]
    fn letters_and_their_bases() {
        for (text, bytes) in [
            ("10", 10 * MIB),
            ("10g", 10 * GIB),
            ("512m", 512 * MIB),
            ("1b", 1),
            ("1B", 1),
            ("8s", 4096),
            ("8S", 4096),
            ("4k", 4 * KIB),
            ("4K", 4000),
            ("1M", 1_000_000),
            ("1G", 1_000_000_000),
            ("1t", 1024 * GIB),
            ("1T", 1_000_000_000_000),
            ("1p", 1 << 50),
            ("1P", 1_000_000_000_000_000),
            ("15e", 15 << 60),
            ("1E", 1_000_000_000_000_000_000),
            ("1.5g", 3 * GIB / 2),
            (".5g", GIB / 2),
            ("5.g", 5 * GIB),
            ("0.1g", 107_374_182),
            ("18446744073709551615b", u64::MAX),
        ] {
            assert_eq!(parse_mib(text), Ok(bytes), "{text}");
        }
        assert_eq!(parse_kib("64"), Ok(64 * KIB));
        assert_eq!(parse_rate("100m/s"), Ok(100 * MIB));
        assert_eq!(parse_rate("100"), Ok(100 * MIB));
    }

    #[test]
    fn what_is_no_size() {
        for text in ["", "g", ".", ".g", "1.2.3", "x", " 1", "1 g", "--1", "0x10"] {
            assert!(parse_mib(text).is_err(), "{text}");
        }
        assert!(matches!(parse_mib("10q"), Err(SizeError::NoSuchUnit(..))));
        assert!(matches!(parse_mib("10gb"), Err(SizeError::NoSuchUnit(..))));
        assert!(matches!(parse_mib("10ä"), Err(SizeError::NoSuchUnit(..))));
        assert!(matches!(parse_mib("16e"), Err(SizeError::TooLarge(_))));
        assert!(matches!(parse_mib("0"), Err(SizeError::Zero(_))));
        assert!(matches!(parse_mib("0.0001b"), Err(SizeError::Zero(_))));
        let digits = "9".repeat(100);
        assert_eq!(parse_mib(&digits), Err(SizeError::TooLarge(digits.clone())));
    }

    #[test]
    fn relative_and_shares() {
        assert_eq!(parse_spec("10g"), Ok(SizeSpec::Bytes(10 * GIB)));
        assert_eq!(parse_spec("+1g"), Ok(SizeSpec::Plus(GIB)));
        assert_eq!(parse_spec("-512"), Ok(SizeSpec::Minus(512 * MIB)));
        assert_eq!(parse_spec("100%FREE"), Ok(SizeSpec::PercentFree(100)));
        assert_eq!(parse_spec("50%vg"), Ok(SizeSpec::PercentVg(50)));
        assert_eq!(parse_spec("+100%FREE"), Ok(SizeSpec::PlusPercentFree(100)));
        for text in [
            "+",
            "-",
            "0%FREE",
            "101%FREE",
            "%FREE",
            "-10%FREE",
            "+10%VG",
            "10%PVS",
            "10%",
            "++1g",
            "1.5%FREE",
            "99999999999%FREE",
            "+0",
        ] {
            assert!(parse_spec(text).is_err(), "{text}");
        }
    }

    #[test]
    fn extents() {
        assert_eq!(parse_extents("100"), Ok(SizeSpec::Extents(100)));
        assert_eq!(parse_extents("+7"), Ok(SizeSpec::PlusExtents(7)));
        assert_eq!(parse_extents("-7"), Ok(SizeSpec::MinusExtents(7)));
        assert_eq!(parse_extents("50%VG"), Ok(SizeSpec::PercentVg(50)));
        for text in [
            "",
            "+",
            "-",
            "0",
            "+0",
            "1.5",
            "10g",
            "1e3",
            "99999999999999999999",
        ] {
            assert!(parse_extents(text).is_err(), "{text}");
        }
    }

    proptest! {
        /// Whole numbers with a letter agree with plain multiplication.
        #[test]
        fn agrees_with_multiplication(
            number in 1u64..1_000_000_000_000,
            letter in prop::sample::select("bsSBkmgtpeKMGTPE".chars().collect::<Vec<_>>()),
        ) {
            let expected = number.checked_mul(unit_bytes(letter).unwrap());
            prop_assert_eq!(parse_mib(&format!("{number}{letter}")).ok(), expected);
        }

        /// A fraction is never more than a byte off, and never above.
        #[test]
        fn fractions_are_cut_to_whole_bytes(whole in 0u64..1000, fraction in 0u64..1000) {
            prop_assume!(whole + fraction > 0);
            let thousandths = u128::from(whole * 1000 + fraction) * (1 << 30);
            let expected = u64::try_from(thousandths / 1000).unwrap();
            prop_assert_eq!(parse_mib(&format!("{whole}.{fraction:03}g")), Ok(expected));
        }

        /// Nothing that a hand can type makes the parser panic.
        #[test]
        fn total(text in ".{0,40}") {
            let outcome = parse_spec(&text);
            if let Ok(SizeSpec::Bytes(bytes) | SizeSpec::Plus(bytes) | SizeSpec::Minus(bytes)) = outcome {
                prop_assert!(bytes > 0);
            }
        }

        /// The same for things that look nearly right.
        #[test]
        fn total_nearly(text in "[+-]?[0-9.]{0,45}[bskmgtpeBSKMGTPE%]{0,2}(FREE|VG)?") {
            let again = parse_spec(&text);
            prop_assert_eq!(parse_spec(&text), again);
        }
    }
}
