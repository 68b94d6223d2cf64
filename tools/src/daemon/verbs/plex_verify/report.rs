//! What a comparison of plexes says.

use super::super::places::{Differing, lines, names};
use super::super::report::key;
use super::super::{chain, fail};
use super::{Difference, RANGES_MAX, Scrub, joined};
use crate::api::{Believe, Failure, ReportKind};
use crate::daemon::rows::human;
use volmgr::engine::PlexId;

impl Scrub<'_> {
    /// Keeps it for the report.
    pub(super) fn tell(&mut self, difference: Difference) {
        let last = self.told.last_mut();
        if let Some(last) = last
            && let [both] = &joined([last.clone(), difference.clone()], u64::MAX)[..]
        {
            last.clone_from(both);
            return;
        }
        self.sums.ranges += 1;
        if self.told.len() < RANGES_MAX {
            self.told.push(difference);
        }
    }

    /// Says what was found, as lines and as an event.
    pub(super) async fn result(self) -> Result<(), Failure> {
        let (lv, out) = (self.lv, &self.ctx.out);
        let count = self.plexes.len();
        let mut rows = Vec::new();
        for difference in &self.told {
            out.message(self.words_of(difference));
            let differing = Differing {
                lv,
                range: difference.range,
                sides: self.sides(difference),
                repaired: difference.believed.is_some(),
            };
            for plex in &self.volume.plexes {
                if self.plexes.contains(&PlexId(plex.number)) {
                    for line in lines(self.view, plex, difference.range) {
                        out.message(line);
                    }
                    rows.extend(differing.rows(self.view, plex));
                }
            }
        }
        out.report(key(ReportKind::Difference), rows);
        let hidden = self.sums.ranges.saturating_sub(self.told.len() as u64);
        if hidden > 0 {
            out.message(format!("{lv}: {hidden} more range(s) differ"));
        }
        if self.sums.mended > 0 {
            let mended = self.sums.mended;
            out.warning(format!(
                "{lv}: {mended} bytes could not be read from a plex and were rewritten (see `volmgr plexs -o +plex_read_errors`)"
            ));
        }
        if self.sums.busy > 0 {
            let busy = human(self.sums.busy);
            out.warning(format!(
                "{lv}: {busy} are written too often to be compared (again when there is less going on)"
            ));
        }
        if self.sums.different == 0 {
            let but = if self.sums.busy > 0 {
                ", but for those"
            } else {
                ""
            };
            out.message(format!("{count} plexes of {lv} are equal{but}."));
            return Ok(());
        }
        let text = format!(
            "{} bytes in {} range(s){}",
            self.sums.different,
            self.sums.ranges,
            self.told.first().map_or(String::new(), |first| format!(
                ", the first at byte {}: {}",
                first.range.start(),
                self.sides(first)
            ))
        );
        self.ctx.node.event("plexes-differ", &lv.to_string(), &text);
        if self.sums.repaired > 0 {
            let flushed = self.lane.quiesce().await;
            flushed.map_err(|error| fail(lv, self.what, chain(&error), "see `volmgr events`"))?;
            let text = format!(
                "{} bytes made equal by the word of {}",
                self.sums.repaired,
                self.whose()
            );
            self.ctx
                .node
                .event("plexes-repaired", &lv.to_string(), &text);
            out.message(format!("{lv}: {text}."));
        }
        if self.sums.repaired == self.sums.different {
            return Ok(());
        }
        let left = self.sums.different - self.sums.repaired;
        Err(match &self.asked.repair {
            None => fail(
                lv,
                "its plexes differ",
                text,
                match count {
                    2 => "--repair --believe PLEX, or --peer PEER, says which is right",
                    _ => "--repair makes them equal where more than half agree",
                },
            ),
            Some(Believe::Peer(peer)) => fail(
                lv,
                "its plexes still differ",
                format!("in {left} bytes no plex has what {peer} has"),
                "--repair --believe PLEX says which is right",
            ),
            Some(_) => fail(
                lv,
                "its plexes still differ",
                format!("in {left} bytes no content is that of more than half of {count} plexes"),
                "--repair --believe PLEX, or --peer PEER, says which is right",
            ),
        })
    }

    fn whose(&self) -> String {
        match &self.asked.repair {
            Some(Believe::Plex(name)) => name.clone(),
            Some(Believe::Peer(peer)) => format!("peer {peer}"),
            _ => "the majority".into(),
        }
    }

    /// Who agrees with whom.
    fn sides(&self, difference: &Difference) -> String {
        let side = |class: usize| {
            let all = self.plexes.iter().zip(&difference.classes);
            names(all.filter(|(_, c)| **c == class).map(|(plex, _)| *plex))
        };
        let mut heads: Vec<usize> = difference.classes.clone();
        heads.sort_unstable();
        heads.dedup();
        let sides: Vec<String> = heads.into_iter().map(side).collect();
        sides.join(" against ")
    }

    fn words_of(&self, difference: &Difference) -> String {
        let range = difference.range;
        let outcome = match difference.believed {
            Some(from) => format!("; made equal to {}", names([self.plexes[from]])),
            None => String::new(),
        };
        format!(
            "{}: plexes differ at byte {}, {} bytes: {}{outcome}",
            self.lv,
            range.start(),
            range.len(),
            self.sides(difference)
        )
    }
}
