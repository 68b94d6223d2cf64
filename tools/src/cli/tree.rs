//! Trees as lines, in colour where that can be seen.

use super::colour::Colours;
use crate::api::{Branch, Part};

/// The lines of these trees.
pub fn lines(roots: &[Branch], colours: Colours) -> Vec<String> {
    let mut lines = Vec::new();
    for root in roots {
        lines.push(line("", root, colours));
        below(root, "", colours, &mut lines);
    }
    lines
}

fn below(branch: &Branch, prefix: &str, colours: Colours, lines: &mut Vec<String>) {
    for (index, next) in branch.below.iter().enumerate() {
        let last = index + 1 == branch.below.len();
        let arm = if last { "└─ " } else { "├─ " };
        lines.push(line(&format!("{prefix}{arm}"), next, colours));
        let deeper = format!("{prefix}{}", if last { "   " } else { "│  " });
        below(next, &deeper, colours, lines);
    }
}

fn line(prefix: &str, branch: &Branch, colours: Colours) -> String {
    let part = |part: &Part| colours.paint(part.tone, &printable(&part.text));
    let parts: Vec<String> = branch.parts.iter().map(part).collect();
    format!("{prefix}{}", parts.join("  "))
}

/// Names and reasons come from elsewhere: nothing in them moves the cursor.
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Tone;

    fn tree() -> Branch {
        let mut root = Branch::new("vg0/web").with(Tone::Bad, "degraded");
        let mut plex = Branch::new("plex0").with(Tone::Good, "active");
        plex.below
            .push(Branch::new("subdisk").plain("/dev/\x1b[2Jx"));
        root.below.push(plex);
        root.below.push(Branch::new("feed").with(Tone::Plain, ""));
        root
    }

    #[test]
    fn branches_hang_from_their_roots() {
        assert_eq!(
            lines(&[tree()], Colours::Off),
            [
                "vg0/web  degraded",
                "├─ plex0  active",
                "│  └─ subdisk  /dev/?[2Jx",
                "└─ feed"
            ]
        );
    }

    #[test]
    fn colours_are_around_the_words_only() {
        let lines = lines(&[tree()], Colours::On);
        assert_eq!(lines[0], "\x1b[1mvg0/web\x1b[0m  \x1b[31mdegraded\x1b[0m");
        assert!(lines[2].starts_with("│  └─ "));
    }
}
