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
    // What is shown means what was typed, and the order says nothing.
    let mut shown: Vec<String> = rules.iter().map(ToString::to_string).collect();
    assert!(shown.iter().map(String::as_str).eq(text.split('\n')));
    shown.reverse();
    let turned = Rules::parse(&shown).expect("shown");
    let alone = |rule: &String| {
        let excludes = rule.starts_with('!');
        let text = rule.trim_start_matches('!');
        (excludes, Rules::parse([text]).expect("shown"))
    };
    let alone: Vec<(bool, Rules)> = shown.iter().map(alone).collect();
    for name in ["vg/lv", "vga/web", text] {
        for right in RIGHTS {
            let may = rules.allows(right, name);
            assert_eq!(may, turned.allows(right, name), "{right:?} {name:?}");
            // Nothing is allowed that no rule allows, nor what one of them excludes.
            let says = |kind| {
                let mut of_kind = alone.iter().filter(|(excludes, _)| *excludes == kind);
                of_kind.any(|(_, rule)| rule.allows(right, name))
            };
            assert_eq!(may, says(false) && !says(true), "{right:?} {name:?}");
        }
    }
}
