//! What people type for an option: sizes, rates, extents, percentages, periods, names, addresses, fingerprints.

use feedplex::identity::Fingerprint;
use feedplex::transport::From;
use tools::api::SizeSpec;
use tools::cli::args::parse;
use tools::cli::report::value::{UNIT_LETTERS, Units};
use tools::cli::size::{self, SizeError};
use tools::daemon::config::NbdAddress;
use volmgr::names::{NAME_MAX, check, check_tag};

/// One execution.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    amount(text);
    for parse in [
        size::parse_spec,
        size::parse_extents,
        size::parse_percentage,
    ] {
        if let Ok(spec) = parse(text) {
            relative(spec);
        }
    }
    period(text);
    names(text);
    places(text);
}

/// An amount, and how listings show it: rounded to hundredths of a unit, and never more than that away.
fn amount(text: &str) {
    let Ok(bytes) = size::parse_bytes(text, 'm') else {
        assert!(size::parse_mib(text).is_err());
        return;
    };
    assert_eq!(size::parse_mib(text).ok(), (bytes > 0).then_some(bytes));
    assert_eq!(size::parse_rate(text), size::parse_mib(text));
    assert_eq!(size::parse_bytes(&format!("{bytes}"), 'b'), Ok(bytes));
    // A plain number counts in KiB there.
    if let Ok(smaller) = size::parse_kib(text) {
        assert!(smaller == bytes || smaller == bytes / 1024, "{text}");
    }
    let letters = UNIT_LETTERS.as_bytes();
    let units = Units {
        letter: char::from(letters[text.len() % letters.len()]),
        suffix: true,
    };
    let shown = units.format(bytes);
    let unit = shown.chars().last().and_then(size::unit_bytes).unwrap_or(1);
    let off = match unit {
        0..=512 => unit - 1,
        _ => unit / 200 + 1,
    };
    match size::parse_bytes(&shown, 'b') {
        Ok(again) => assert!(again.abs_diff(bytes) <= off, "{bytes}, {shown}"),
        Err(SizeError::TooLarge(_)) => assert!(u64::MAX - bytes < off, "{bytes}, {shown}"),
        Err(error) => panic!("{shown}: {error}"),
    }
}

/// Is never nothing, nor more than all; typed again it is the same.
fn relative(spec: SizeSpec) {
    let (number, most, typed) = match spec {
        SizeSpec::Bytes(n) => (n, u64::MAX, format!("{n}b")),
        SizeSpec::Plus(n) => (n, u64::MAX, format!("+{n}b")),
        SizeSpec::Minus(n) => (n, u64::MAX, format!("-{n}b")),
        SizeSpec::PercentFree(n) => (n.into(), 100, format!("{n}%FREE")),
        SizeSpec::PercentVg(n) => (n.into(), 100, format!("{n}%VG")),
        SizeSpec::PlusPercentFree(n) => (n.into(), 100, format!("+{n}%FREE")),
        SizeSpec::Extents(n) => (n, u64::MAX, format!("{n}")),
        SizeSpec::PlusExtents(n) => (n, u64::MAX, format!("+{n}")),
        SizeSpec::MinusExtents(n) => (n, u64::MAX, format!("-{n}")),
    };
    assert!((1..=most).contains(&number), "{spec:?}");
    let extents = matches!(
        spec,
        SizeSpec::Extents(_) | SizeSpec::PlusExtents(_) | SizeSpec::MinusExtents(_)
    );
    let again = match extents {
        true => size::parse_extents(&typed),
        false => size::parse_spec(&typed),
    };
    assert_eq!(again, Ok(spec));
}

fn period(text: &str) {
    if let Ok(seconds) = parse::period(text) {
        assert!(seconds > 0 || text == "never");
        if seconds > 0 {
            assert_eq!(parse::period(&format!("{seconds}s")), Ok(seconds));
        }
    }
}

/// Names become parts of paths.
fn names(text: &str) {
    let plain = |name: &str| {
        assert!((1..=NAME_MAX).contains(&name.len()) && ![".", ".."].contains(&name));
        assert!(!name.starts_with('-') && !name.contains(['/', '\n', ' ', '\0', '\u{1b}']));
    };
    if check(text).is_ok() {
        plain(text);
        assert!(check_tag(text).is_ok());
    }
    if let Ok(tag) = parse::tag(text) {
        assert!((1..=NAME_MAX).contains(&tag.len()) && tag.is_ascii());
        assert_eq!(parse::tag(&format!("@{tag}")), Ok(tag));
    }
    if let Ok(name) = parse::lv_name(text) {
        plain(&name.vg);
        plain(&name.lv);
        assert_eq!(parse::lv_name(&name.to_string()), Ok(name));
    }
    if let Ok(peer) = parse::peer_target(text) {
        plain(&peer.peer);
    }
}

fn places(text: &str) {
    if let Ok(address) = parse::address(text) {
        assert!(!address.contains(['\n', ' ', '\0', '/']));
    }
    if let Ok(address) = text.parse::<NbdAddress>() {
        assert_eq!(address.to_string().parse().as_ref(), Ok(&address));
    }
    if let Ok(from) = text.parse::<From>() {
        assert_eq!(from.to_string().parse().as_ref(), Ok(&from));
    }
    // However it was copied, it is the one that nodes show.
    if let Ok(typed) = parse::fingerprint(text) {
        let fingerprint: Fingerprint = typed.parse().expect("normalised");
        assert_eq!(fingerprint.to_string(), typed);
    }
    if let Ok(fingerprint) = text.parse::<Fingerprint>() {
        assert_eq!(parse::fingerprint(text), Ok(fingerprint.to_string()));
    }
}
