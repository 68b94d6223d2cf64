//! What is on a PV. Reads only.

use super::{AreaScan, Chain, MetadataError, PvIo, Stop};
use crate::label::{FRONT_LABEL, LABEL_BYTES, Label, LabelError, back_label_offset};
use crate::model::Group;
use uuid::Uuid;

/// The two copies of the label, and which one counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelScan {
    /// The front copy.
    pub front: Result<Label, LabelError>,
    /// The back copy: where the front one says it is, else at the end of the disk.
    pub back: Result<Label, LabelError>,
}

impl LabelScan {
    /// The label that counts: the front copy, where it is good.
    pub fn chosen(&self) -> Option<&Label> {
        self.front.as_ref().or(self.back.as_ref()).ok()
    }
}

/// A version of a group, as read from a PV.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The group.
    pub group: Group,
    /// Commits that this version descends from (itself included), as far as its chain tells.
    pub ancestors: Vec<Uuid>,
}

/// What is on a PV.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PvScan {
    /// Size of the disk in bytes, which may differ from the label's.
    pub size: u64,
    /// The label.
    pub label: LabelScan,
    /// The metadata areas, front and back; none without a label.
    pub areas: Vec<AreaScan>,
    /// The newest version that is good in either area.
    pub version: Option<Version>,
    /// Starts of the segments whose chain was read through and is `version`: only these can be gone on with.
    pub holds: Vec<u64>,
    /// Chains whose records are good, but whose content is not: start of the segment, and why.
    pub bad_content: Vec<(u64, String)>,
}

/// Looks at a PV: label, areas, newest version.
///
/// # Errors
/// Only where the disk cannot be read at all; everything else is in the scan.
pub fn inspect(io: &mut dyn PvIo) -> Result<PvScan, MetadataError> {
    let size = io.size();
    let label = read_label(io)?;
    let areas = match label.chosen() {
        Some(chosen) => read_areas(io, chosen),
        None => Vec::new(),
    };
    let group = label.chosen().and_then(|l| l.group);
    let content = Content::read(io, &areas, group);
    Ok(PvScan {
        size,
        label,
        areas,
        version: content.version,
        holds: content.holds,
        bad_content: content.bad,
    })
}

pub(super) fn read_areas(io: &mut dyn PvIo, label: &Label) -> Vec<AreaScan> {
    label.areas.map(|area| AreaScan::read(io, area)).into()
}

/// Reads both copies of the label.
pub(super) fn read_label(io: &mut dyn PvIo) -> Result<LabelScan, MetadataError> {
    let size = io.size();
    let front = read_copy(io, FRONT_LABEL);
    let back_at = match &front {
        Ok(Ok(label)) => back_label_offset(label.pv_size),
        _ => back_label_offset(size),
    };
    let back = match back_at {
        Some(at) => read_copy(io, at),
        None => Ok(Err(LabelError::NoMagic)),
    };
    // One copy that cannot be read is damage; two are a disk that cannot be read.
    match (front, back) {
        (Err(source), Err(_)) => Err(MetadataError::Io {
            what: "read the label",
            source,
        }),
        (front, back) => {
            let unreadable = |_| Err(LabelError::Short { len: 0 });
            Ok(LabelScan {
                front: front.unwrap_or_else(unreadable),
                back: back.unwrap_or_else(unreadable),
            })
        }
    }
}

fn read_copy(io: &mut dyn PvIo, at: u64) -> std::io::Result<Result<Label, LabelError>> {
    let whole = (LABEL_BYTES as u64).min(io.size().saturating_sub(at));
    let mut bytes = vec![0; whole as usize];
    io.read_at(at, &mut bytes)?;
    Ok(Label::decode(&bytes))
}

/// What the chains of a PV say.
#[derive(Default)]
struct Content {
    version: Option<Version>,
    /// See [`PvScan`].
    holds: Vec<u64>,
    /// See [`PvScan`].
    bad: Vec<(u64, String)>,
}

impl Content {
    /// Replays chains, newest first, until one is good, and those that claim to be as new: a checksum that is right says nothing about
    /// what a copy holds.
    fn read(io: &mut dyn PvIo, areas: &[AreaScan], group: Option<Uuid>) -> Self {
        let ours = |c: &&Chain| c.tip().is_some_and(|t| group.is_none_or(|g| g == t.group));
        let number = |c: &Chain| c.tip().map(|t| t.seqno);
        let mut chains: Vec<&Chain> = areas.iter().flat_map(|a| &a.chains).filter(ours).collect();
        chains.sort_by_key(|c| std::cmp::Reverse(number(c)));
        let mut content = Self::default();
        let mut newest = None;
        for chain in chains {
            if newest.is_some() && number(chain) != newest {
                break;
            }
            let start = chain.segment.start;
            match (chain.replay(io), &content.version) {
                (Ok(group), None) => {
                    let ancestors = chain.ancestors();
                    content.version = Some(Version { group, ancestors });
                    content.holds.push(start);
                    newest = number(chain);
                }
                (Ok(group), Some(version)) if group == version.group => content.holds.push(start),
                (Ok(_), Some(_)) => {
                    let why = "it is another version of the same number than the copy before it";
                    content.bad.push((start, why.into()));
                }
                (Err(stop), _) => content.bad.push((start, stop.to_string())),
            }
        }
        content
    }
}

impl PvScan {
    /// The label that counts.
    pub fn chosen_label(&self) -> Option<&Label> {
        self.label.chosen()
    }

    /// Everything that is not as it should be, a line each; empty for a healthy PV.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (copy, label) in [("front", &self.label.front), ("back", &self.label.back)] {
            if let Err(error) = label {
                problems.push(format!("{copy} label: {error}"));
            }
        }
        let Some(label) = self.chosen_label() else {
            return problems;
        };
        if let (Ok(front), Ok(back)) = (&self.label.front, &self.label.back)
            && front != back
        {
            problems.push("the front and the back label differ".into());
        }
        if self.size < label.pv_size {
            problems.push(format!(
                "the disk has {} bytes, its label says {}",
                self.size, label.pv_size
            ));
        }
        for (start, why) in &self.bad_content {
            problems.push(format!("metadata at byte {start}: {why}"));
        }
        for (name, area) in ["front", "back"].into_iter().zip(&self.areas) {
            self.area_problems(name, area, &mut problems);
        }
        problems
    }

    fn area_problems(&self, name: &str, area: &AreaScan, problems: &mut Vec<String>) {
        let group = self.chosen_label().and_then(|l| l.group);
        if group.is_none() {
            return;
        }
        for chain in &area.chains {
            if let Some(lost) = chain.lost_up_to {
                problems.push(format!(
                    "{name} metadata area: damaged record at byte {}, commits up to {lost} are \
                     lost from this copy",
                    chain.end
                ));
            }
        }
        let newest = area.newest(group);
        let damaged = area
            .chains
            .iter()
            .any(|c| matches!(c.stop, Stop::Damaged(_) | Stop::Unreadable(_)));
        let expected = self.version.as_ref().map(|v| v.group.commit);
        match newest.and_then(Chain::tip) {
            None => problems.push(format!("{name} metadata area: no good record")),
            Some(tip) if Some(tip.commit) != expected => problems.push(format!(
                "{name} metadata area: its newest commit is {}, not the PV's newest{}",
                tip.seqno,
                if damaged { " (damaged)" } else { "" }
            )),
            Some(_) => {}
        }
    }
}
