//! `docs/model.md`, made from the product's tables.

use feedplex::generation::{Role, RoleClaim, RoleResolution, resolve_roles};
use feedplex::session::FeedState;
use std::fmt::Write;
use volmgr::model::PlexState;

/// A test of `feedplex` holds the table in this documentation against the one that decides.
const GENERATION: &str = include_str!("../../../feedplex/src/generation.rs");

const HEAD: &str = "\
<!-- Made by `MODEL_DOC=write cargo test -p volmgr-tests --test model the_document`; do not edit. -->
# The model of a feed

What two nodes may do to each other's copies, as diagrams and truth tables. Tables and state diagrams are made from the product's own
tables, and a test fails when this file is not what they say. How every order of steps is tried, and what was found, is in
[reliability.md](reliability.md#the-model-of-a-feed); why it is done so, in
[decision 21](decisions/0021-a-model-of-the-real-machines.md).

## Who feeds whom

Both sides say which role they have and since which epoch (it grows with each swap). From this side's point of view:

";

const GENERATIONS: &str = "
## What has to flow

A generation names a state of a volume's data; a volume knows those before it. Two of them are one of:

```
   equal (=)       the sink behind (<)      the sink ahead (>)       siblings (^)            unrelated (#)

   source  sink     source                          sink            source   sink           source   sink
      \\    /          |                               |                 \\     /                |       |
       g2             g3    sink              source  g3                 g3   g4               g3      g9
       |              |    /                       \\  |                    \\ /                 |       |
       g1             g2 -+                         +-g2                    g2                 g1      g8
                      |                               |                    |
                      g1                              g1                   g1
```

The first row that matches decides, on both sides alike; `-` matches anything, `~` any relation but `#`. Columns:

";

const POINT: &str = "
## A point, and back

```mermaid
sequenceDiagram
    participant S as source
    participant K as sink
    S->>S: commit: detaching at p
    S->>K: PointPrepare(p)
    S-->>K: MARK(p), in the live stream
    Note over S: from here on only the map
    K->>K: flush, commit: split at p
    K->>S: MarkDone(p)
    S->>S: commit: split at p, a new generation
    S->>K: PointCommit(p)
    Note over S,K: either side may be written now, each tracks its own changes
    S->>K: Handshake, and back: both judge the same facts
    alt only the source changed
        Note over S,K: Incremental
    else only the sink changed
        Note over S,K: SinkAhead: refused until an admin gives it up
    else both changed
        Note over S,K: Diverged: refused until an admin says whose changes go
    end
```

Wherever this is cut, the next handshake goes on from what is committed: before the sink's commit the feed is attached as before; between
the two commits the verdict is `FinishSplit`; after both it has ended.
";

fn table_line(out: &mut String, cells: &[String]) {
    writeln!(out, "| {} |", cells.join(" | ")).expect("writing to a String cannot fail");
}

fn header(out: &mut String, cells: &[&str]) {
    let cells: Vec<String> = cells.iter().map(|cell| (*cell).to_owned()).collect();
    table_line(out, &cells);
    table_line(out, &vec!["---".to_owned(); cells.len()]);
}

fn roles(out: &mut String) {
    header(out, &["ours", "theirs", "their epoch", "outcome here"]);
    for ours in Role::ALL {
        for theirs in Role::ALL {
            for (words, epoch) in [("older", 1), ("the same", 2), ("newer", 3)] {
                let claim = |role: Role, epoch| RoleClaim { role, epoch };
                let outcome = match resolve_roles(claim(*ours, 2), claim(*theirs, epoch)) {
                    RoleResolution::AsClaimed(claim) => format!("{:?}, as both say", claim.role),
                    RoleResolution::Adopt(claim) => format!("becomes {:?}", claim.role),
                    RoleResolution::PeerAdopts(claim) => {
                        format!(
                            "{:?}; the peer becomes {:?}",
                            claim.role,
                            claim.role.other()
                        )
                    }
                    RoleResolution::Conflict => "refused: RoleConflict".to_owned(),
                };
                let (ours, theirs) = (format!("{ours:?}"), format!("{theirs:?}"));
                table_line(out, &[ours, theirs, words.to_owned(), outcome]);
            }
        }
    }
}

/// The lines of the module's documentation between two others, without the comment's marks.
fn documented(from: &str, to: &str) -> Vec<&'static str> {
    let text = |line: &'static str| {
        line.strip_prefix("//!")
            .map(|text| text.strip_prefix(' ').unwrap_or(text))
    };
    let lines = GENERATION.lines().map_while(text);
    lines
        .skip_while(|line| !line.starts_with(from))
        .take_while(|line| !line.starts_with(to))
        .collect()
}

fn verdicts(out: &mut String) {
    for line in documented("* `sz`", "```text") {
        writeln!(out, "{line}").expect("writing to a String cannot fail");
    }
    let rows = documented("row sz", "```");
    let mut rows = rows.into_iter();
    let columns: Vec<&str> = rows.next().unwrap_or_default().split_whitespace().collect();
    header(out, &columns);
    for row in rows {
        let words: Vec<&str> = row.split_whitespace().collect();
        let (cells, because) = words.split_at(columns.len().saturating_sub(1).min(words.len()));
        let mut cells: Vec<String> = cells.iter().map(|cell| (*cell).to_owned()).collect();
        cells.push(because.join(" "));
        table_line(out, &cells);
    }
}

fn diagram<S: Copy + PartialEq + std::fmt::Debug>(
    out: &mut String,
    start: S,
    all: &[S],
    may: impl Fn(S, S) -> bool,
) {
    let mut line = |text: String| writeln!(out, "{text}").expect("writing to a String cannot fail");
    line("```mermaid\nstateDiagram-v2".into());
    line(format!("    [*] --> {start:?}"));
    for from in all {
        for to in all.iter().filter(|to| *to != from && may(*from, **to)) {
            line(format!("    {from:?} --> {to:?}"));
        }
    }
    line("```".into());
}

/// The whole document.
pub fn document() -> String {
    let mut out = HEAD.to_owned();
    roles(&mut out);
    out += GENERATIONS;
    verdicts(&mut out);
    out += POINT;
    out += "\n## States of a feed\n\n`FeedState::is_valid`; what they mean is in [states.md](states.md#feed).\n\n";
    diagram(
        &mut out,
        FeedState::Connecting,
        FeedState::ALL,
        FeedState::is_valid,
    );
    out += "\n## States of a data plex\n\n`PlexState::may_become`; what they mean is in [states.md](states.md#data-plex).\n\n";
    let plex = [
        PlexState::Empty,
        PlexState::Syncing,
        PlexState::Active,
        PlexState::Stale,
        PlexState::Failed,
        PlexState::Offline,
    ];
    diagram(&mut out, PlexState::Empty, &plex, PlexState::may_become);
    out
}
