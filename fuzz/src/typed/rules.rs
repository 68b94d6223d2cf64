//! What a peer may do: access rules, a line each.

use feedplex::access::{Right, Rules};

const RIGHTS: [Right; 3] = [Right::Feed, Right::Read, Right::Create];

/// One execution.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(rules) = Rules::parse(text.split('\n')) else {
        return;
    };
    // What is shown is what was typed.
    let lines: Vec<&str> = text.split('\n').collect();
    let shown: Vec<String> = rules.iter().map(ToString::to_string).collect();
    assert_eq!(shown, lines);
    for name in ["vg/lv", "vga/web", text] {
        for right in RIGHTS {
            // Nothing is allowed that no rule allows, nor what one of them excludes; a rule is about what its word says.
            let says = |excludes| {
                let of_kind = rules.iter().zip(&lines);
                let mut of_kind = of_kind.filter(|(_, line)| line.starts_with('!') == excludes);
                of_kind.any(|(rule, _)| rule.is_about(right, name))
            };
            let may = rules.allows(right, name);
            assert_eq!(may, says(false) && !says(true), "{right:?} {name:?}");
        }
    }
    for (rule, line) in rules.iter().zip(&lines) {
        let (words, pattern) = line.split_once(':').unwrap_or((line, "vg"));
        let word = words.trim_start_matches('!');
        for (right, name) in RIGHTS.into_iter().zip(["feed", "read", "create"]) {
            if ![name, "all"].contains(&word) {
                assert!(!rule.is_about(right, pattern), "{line}");
            } else if pattern.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
                assert!(rule.is_about(right, pattern), "{line}");
            }
        }
    }
}
