//! Names, paths, addresses and fingerprints as typed, checked before anybody is asked.

use crate::api::Failure;
use crate::api::LvName;
use crate::cli::failure::usage;
use std::path::{Path, PathBuf};
use volmgr::names::{self, NameError};

/// A name of a group, a volume, a peer or a point: LVM's rules.
pub fn name(text: &str) -> Result<String, NameError> {
    volmgr::names::check(text).map(|()| text.to_owned())
}

/// `VG/LV`; `/dev/volmgr/VG/LV` is taken, too, as that is what people have at hand.
pub fn lv_name(text: &str) -> Result<LvName, String> {
    let short = text.strip_prefix("/dev/volmgr/").unwrap_or(text);
    let (vg, lv) = short
        .split_once('/')
        .ok_or("a volume is named VG/LV".to_owned())?;
    Ok(LvName {
        vg: name(vg).map_err(|error| error.to_string())?,
        lv: name(lv).map_err(|error| error.to_string())?,
    })
}

/// `VG` or `VG/LV`: what listings of volumes are narrowed by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VgOrLv {
    /// All of a group.
    Vg(String),
    /// One volume.
    Lv(LvName),
}

/// `VG` or `VG/LV`.
pub fn vg_or_lv(text: &str) -> Result<VgOrLv, String> {
    if text.contains('/') {
        lv_name(text).map(VgOrLv::Lv)
    } else {
        name(text)
            .map(VgOrLv::Vg)
            .map_err(|error| error.to_string())
    }
}

/// A time as 90s, 30m, 12h, 7d or 2w, in seconds; `never` is 0.
pub fn period(text: &str) -> Result<u64, String> {
    if text == "never" {
        return Ok(0);
    }
    let bad = || format!("{text:?} is not a time such as 90s, 30m, 12h, 7d, 2w or never");
    let unit = text.chars().last().ok_or_else(bad)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        'w' => 604_800,
        _ => return Err(bad()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| bad())?;
    let whole = number.checked_mul(seconds).filter(|whole| *whole > 0);
    whole.ok_or_else(bad)
}

/// `PEER` or `PEER:VG/LV`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerTarget {
    /// The peer.
    pub peer: String,
    /// The volume over there, where it is not called the same.
    pub target: Option<LvName>,
}

/// `PEER` or `PEER:VG/LV`.
pub fn peer_target(text: &str) -> Result<PeerTarget, String> {
    let (peer, target) = match text.split_once(':') {
        Some((peer, target)) => (peer, Some(lv_name(target)?)),
        None => (text, None),
    };
    Ok(PeerTarget {
        peer: name(peer).map_err(|error| error.to_string())?,
        target,
    })
}

/// A tag, with or without the `@` that selects by it.
pub fn tag(text: &str) -> Result<String, String> {
    let tag = text.strip_prefix('@').unwrap_or(text);
    match names::check_tag(tag) {
        Ok(()) => Ok(tag.to_owned()),
        Err(error) => Err(error.to_string().replace("name", "tag")),
    }
}

/// `HOST:PORT`; an IPv6 address stands in brackets.
pub fn address(text: &str) -> Result<String, String> {
    let (host, port) = text
        .rsplit_once(':')
        .ok_or("an address is HOST:PORT".to_owned())?;
    match port.parse::<u16>() {
        Ok(1..) if port.bytes().all(|byte| byte.is_ascii_digit()) => {}
        _ => return Err(format!("'{port}' is not a port (1 to 65535)")),
    }
    let bracketed = host.starts_with('[') && host.ends_with(']') && host.len() > 2;
    let odd = |c: char| c.is_whitespace() || c.is_control() || c == '/';
    if host.is_empty() || host == "[]" || host.contains(odd) {
        return Err("an address is HOST:PORT".into());
    }
    if host.contains(':') && !bracketed {
        return Err("an IPv6 address stands in brackets: [::1]:PORT".into());
    }
    Ok(text.to_owned())
}

/// A fingerprint, however it was copied: any case, with or without `sha256:`, bytes with or without
/// colons or blanks between them. Normalised: `sha256:` and 64 lower-case hexadecimal digits.
pub fn fingerprint(text: &str) -> Result<String, String> {
    let text = text.trim();
    let digits = match text.get(..7) {
        Some(prefix) if prefix.eq_ignore_ascii_case("sha256:") => &text[7..],
        _ => text,
    };
    let digits: String = digits
        .chars()
        .filter(|c| !c.is_whitespace() && !matches!(c, ':' | '-'))
        .map(|c| c.to_ascii_lowercase())
        .collect();
    if !digits.chars().all(|c| c.is_ascii_hexdigit()) {
        return Err(
            "a fingerprint is sha256: and hexadecimal digits ('volmgr nodeshow' prints it)".into(),
        );
    }
    if digits.len() != 64 {
        return Err(format!(
            "a fingerprint has 64 hexadecimal digits, this one {} ('volmgr nodeshow' prints it)",
            digits.len()
        ));
    }
    Ok(format!("sha256:{digits}"))
}

/// Makes a path absolute, for a daemon that runs in another folder. Symbolic links stay: their
/// names are often the stable ones.
pub fn absolute(path: &Path) -> Result<String, Failure> {
    let shown = path.display().to_string();
    let absolute =
        std::path::absolute(path).map_err(|error| usage(&shown, "cannot use path", error, ""))?;
    absolute.into_os_string().into_string().map_err(|_| {
        usage(
            &shown,
            "cannot use path",
            "it is not UTF-8",
            "rename it, or use a link",
        )
    })
}

/// [`absolute`] for many.
pub fn absolute_all(paths: &[PathBuf]) -> Result<Vec<String>, Failure> {
    paths.iter().map(|path| absolute(path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes() {
        let web = LvName {
            vg: "vg0".into(),
            lv: "web".into(),
        };
        assert_eq!(lv_name("vg0/web"), Ok(web.clone()));
        assert_eq!(lv_name("/dev/volmgr/vg0/web"), Ok(web.clone()));
        for bad in [
            "vg0",
            "vg0/",
            "/web",
            "vg0/web/x",
            "/dev/vg0/web",
            "vg0//web",
        ] {
            assert!(lv_name(bad).is_err(), "{bad}");
        }
        assert_eq!(vg_or_lv("vg0"), Ok(VgOrLv::Vg("vg0".into())));
        assert_eq!(vg_or_lv("vg0/web"), Ok(VgOrLv::Lv(web.clone())));
        let target = peer_target("b:vg0/web").unwrap();
        assert_eq!((target.peer.as_str(), target.target), ("b", Some(web)));
        assert_eq!(peer_target("b").unwrap().target, None);
        for bad in ["", ":vg0/web", "b:", "b:web", "b:a/b:c"] {
            assert!(peer_target(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses() {
        for good in ["127.0.0.1:7000", "host.example:1", "[::1]:65535"] {
            assert_eq!(address(good).as_deref(), Ok(good));
        }
        for bad in [
            "",
            "host",
            ":1",
            "host:",
            "host:0",
            "host:65536",
            "host:+1",
            "::1:7000",
            "a b:1",
            "[]:1",
            "http://x:1",
        ] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn fingerprints_however_they_were_copied() {
        let digits = "0123456789abcdef".repeat(4);
        let normal = format!("sha256:{digits}");
        let colons: Vec<String> = digits
            .as_bytes()
            .chunks(2)
            .map(|pair| String::from_utf8_lossy(pair).to_uppercase())
            .collect();
        for text in [
            normal.clone(),
            digits.clone(),
            format!("SHA256:{}", digits.to_uppercase()),
            colons.join(":"),
            format!(" sha256:{} ", colons.join(" ")),
        ] {
            assert_eq!(fingerprint(&text), Ok(normal.clone()), "{text}");
        }
        for bad in [
            "",
            "sha256:",
            "md5:0123",
            &digits[1..],
            &format!("{digits}0"),
            "sha256ä",
        ] {
            assert!(fingerprint(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn paths_become_absolute() {
        assert_eq!(absolute(Path::new("/dev/sdb")), Ok("/dev/sdb".into()));
        let here = std::env::current_dir().unwrap();
        assert_eq!(
            absolute(Path::new("./disk.img")),
            Ok(here.join("disk.img").to_str().unwrap().to_owned())
        );
        assert_eq!(absolute(Path::new("")).unwrap_err().code, 3);
    }
}
