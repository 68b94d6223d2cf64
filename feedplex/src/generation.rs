//! Who may feed whom, and how much has to flow: pure decisions over what both sides have on disk.
//!
//! [`resolve_roles`] settles the direction, [`verdict`] the rest. Both sides compute both from the
//! same two handshakes and must agree.
//!
//! # The truth table of [`verdict`]
//!
//! The first row that matches decides. Columns (`-`: does not matter):
//!
//! * `sz` the sink is large enough; `gd` the source's content may be copied from: it is no half-done
//!   copy itself
//! * `sk`, `kk` the source, the sink has a durable record of the feed; `fr` the sink's volume is
//!   blank
//! * `ep` session epochs: `=` one in common, `0` none was ever agreed on, `x` foreign
//! * `ol` which side's log has not come as far as the other has seen it: `n` none, `s` the source's, `k`
//!   the sink's, `b` both
//! * `sp` ended at a point: `F` the sink has committed the point that the source is at or on the way
//!   to, `X` the source has committed a point that the sink neither is at nor descends from, `n` neither
//! * `sd`, `co` the sink is seeded, consistent
//! * `rel` generations: `=` equal, `<` the sink's is an ancestor of the source's, `>` the other way
//!   round, `^` both descend from a common one, `#` unrelated; `~` stands for any but `#`
//! * `di`, `ow` the source's map, the sink's own map is not empty
//! * `ok` the admin agreed that what is at the sink goes
//!
//! ```text
//! row sz gd sk kk fr ep ol sp sd co rel di ow ok  verdict            because
//!   1  n  -  -  -  -  -  -  -  -  -  -   -  -  -  SinkTooSmall       bytes would have no place
//!   2  y  n  -  -  -  -  -  -  -  -  -   -  -  -  SourceNotConsistent a half-done copy is nobody's source
//!   3  y  y  -  n  y  -  -  -  -  -  -   -  -  -  Full               first contact with a blank volume
//!   4  y  y  -  n  n  -  -  -  -  -  -   -  -  y  Full               the admin gave up what is there
//!   5  y  y  -  n  n  -  -  -  -  -  -   -  -  n  ForeignData        content that no feed put there
//!   6  y  y  n  y  -  -  -  -  n  -  -   -  -  -  Full               nothing there is worth keeping
//!   7  y  y  n  y  -  -  -  -  -  -  -   -  -  y  Full               the admin gave up what is there
//!   8  y  y  n  y  -  -  -  -  -  -  -   -  -  n  UnknownAtSource    the source lost its record: older
//!   9  y  y  y  y  -  x  -  -  n  -  -   -  -  -  Full               the same
//!  10  y  y  y  y  -  x  -  -  -  -  -   -  -  y  Full               maps of other histories say nothing
//!  11  y  y  y  y  -  x  s  -  -  -  -   -  -  n  SourceOlder        the log says which side is older
//!  12  y  y  y  y  -  x  k  -  -  -  -   -  -  n  SinkOlder          the same
//!  13  y  y  y  y  -  x  -  -  -  -  -   -  -  n  RolledBack         one side is older than the other saw
//!  14  y  y  y  y  -  0  -  -  -  -  -   -  -  -  Full               no byte was ever agreed on
//!  15  y  y  y  y  -  =  s  -  -  -  -   -  -  y  Full               maps of what was lost say nothing
//!  16  y  y  y  y  -  =  k  -  -  -  -   -  -  y  Full               the same
//!  17  y  y  y  y  -  =  b  -  -  -  -   -  -  y  Full               the same
//!  18  y  y  y  y  -  =  s  -  -  -  -   -  -  n  SourceOlder        rolled back within the session
//!  19  y  y  y  y  -  =  k  -  -  -  -   -  -  n  SinkOlder          the same at the other side
//!  20  y  y  y  y  -  =  b  -  -  -  -   -  -  n  RolledBack         the same at both
//!  21  y  y  y  y  -  =  n  X  -  -  -   -  -  y  Full               see 22, but given up
//!  22  y  y  y  y  -  =  n  X  -  -  -   -  -  n  RolledBack         the sink forgot a point it committed
//!  23  y  y  y  y  -  =  n  F  -  -  -   -  -  -  FinishSplit        only the source's commit is missing
//!  24  y  y  y  y  -  =  n  n  n  -  -   -  n  -  Incremental        the first copy goes on where it was
//!  25  y  y  y  y  -  =  n  n  n  -  -   -  y  -  IncrementalUnion   nothing there is worth keeping
//!  26  y  y  y  y  -  =  n  n  y  n  -   -  n  -  Incremental        a cut resync goes on
//!  27  y  y  y  y  -  =  n  n  y  n  -   -  y  -  IncrementalUnion   given up before, and a cut there
//!  28  y  y  y  y  -  =  n  n  y  y  ~   n  n  -  Nothing            unchanged on both sides
//!  29  y  y  y  y  -  =  n  n  y  y  ~   y  n  -  Incremental        changed at the source only
//!  30  y  y  y  y  -  =  n  n  y  y  ~   -  y  y  IncrementalUnion   the sink's changes are overwritten
//!  31  y  y  y  y  -  =  n  n  y  y  ~   n  y  n  SinkAhead          changed at the sink only
//!  32  y  y  y  y  -  =  n  n  y  y  ~   y  y  n  Diverged           changed on both sides
//!  33  y  y  y  y  -  =  n  n  y  y  #   -  -  y  Full               no map spans unrelated histories
//!  34  y  y  y  y  -  =  n  n  y  y  #   -  -  n  Diverged           written where no map saw it
//! ```
//!
//! Rows 24, 26, 28 and 29 trust the sink's own map over its generation name: a name changes when a
//! volume *may* be written, the map when it *was*. Rows 6 and 9 go on with a full copy that was cut between
//! the sink's commit and the source's: what was there was blank, or had been given up.
//!
//! # Example
//!
//! Two sides that were equal once:
//!
//! ```
//! use feedplex::generation::{Lineage, SinkView, SourcePoint, SourceView, Verdict, verdict};
//! use feedplex::wire::control::{FlowKind, RefusalCode};
//! use uuid::Uuid;
//!
//! let lineage = Lineage { current: Uuid::from_u128(1), history: Vec::new() };
//! let epochs = vec![Uuid::from_u128(2)]; // of the session in which both agreed last
//! let mut source = SourceView {
//!     size: 1 << 30, known: true, good: true, dirty: false, point: SourcePoint::None,
//!     epochs: epochs.clone(), stamp: 5, seen: 5, lineage: lineage.clone(),
//! };
//! let mut sink = SinkView {
//!     size: 1 << 30, known: true, fresh: false, seeded: true, consistent: true, own_changes: false,
//!     split: None, epochs, stamp: 5, seen: 5, lineage,
//! };
//! assert_eq!(verdict(&source, &sink, false), Verdict::Flow(FlowKind::Nothing));
//!
//! source.dirty = true;
//! assert_eq!(verdict(&source, &sink, false), Verdict::Flow(FlowKind::Incremental));
//!
//! sink.own_changes = true; // somebody wrote there, too: nothing flows until the admin has said which side goes
//! assert_eq!(verdict(&source, &sink, false), Verdict::Refused(RefusalCode::Diverged));
//! assert_eq!(verdict(&source, &sink, true), Verdict::Flow(FlowKind::IncrementalUnion));
//! ```

use crate::wire::codec::{Field, wire_enum};
use crate::wire::control::{FlowKind, RefusalCode};
use bincode::de::Decoder;
use bincode::enc::Encoder;
use bincode::error::{DecodeError, EncodeError};
use uuid::Uuid;

wire_enum! {
    /// Which end of a feed.
    pub enum Role {
        /// Sends payload.
        Source = 1,
        /// Receives payload.
        Sink = 2,
    }
}

impl Role {
    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::Source => Self::Sink,
            Self::Sink => Self::Source,
        }
    }
}

/// What the admin wants of a feed, as recorded. Numbers on the wire: 1 to 4 in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Intent {
    /// Connected and flowing.
    Attached,
    /// Tracking only.
    Paused,
    /// On the way to a named point.
    Detaching {
        /// The point.
        point: Uuid,
        /// Its name.
        name: String,
    },
    /// Ended at this point.
    Split {
        /// The point.
        point: Uuid,
    },
}

impl Field for Intent {
    const LEN_MIN: usize = 2;

    fn put<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        match self {
            Self::Attached => 1u16.put(encoder),
            Self::Paused => 2u16.put(encoder),
            Self::Detaching { point, name } => {
                3u16.put(encoder)?;
                point.put(encoder)?;
                name.put(encoder)
            }
            Self::Split { point } => {
                4u16.put(encoder)?;
                point.put(encoder)
            }
        }
    }

    fn take<D: Decoder>(decoder: &mut D) -> Result<Self, DecodeError> {
        Ok(match u16::take(decoder)? {
            1 => Self::Attached,
            2 => Self::Paused,
            3 => Self::Detaching {
                point: Uuid::take(decoder)?,
                name: String::take(decoder)?,
            },
            4 => Self::Split {
                point: Uuid::take(decoder)?,
            },
            _ => return Err(DecodeError::Other("unknown number of Intent")),
        })
    }
}

/// A state of a volume's data and those before it, newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lineage {
    /// This state.
    pub current: Uuid,
    /// The states before it, newest first, at most [`Lineage::HISTORY_MAX`].
    pub history: Vec<Uuid>,
}

impl Lineage {
    /// Longest history kept.
    pub const HISTORY_MAX: usize = 32;

    /// Is this the state, or one before it that is remembered?
    pub fn has(&self, state: Uuid) -> bool {
        self.current == state || self.history.contains(&state)
    }

    /// Moves on to a new state.
    pub fn advance(&mut self, next: Uuid) {
        self.history.insert(0, self.current);
        self.history.truncate(Self::HISTORY_MAX);
        self.current = next;
    }
}

/// How the sink's generation stands to the source's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// Equal.
    Same,
    /// The sink's is an ancestor of the source's.
    SinkBehind,
    /// The source's is an ancestor of the sink's.
    SinkAhead,
    /// Both descend from a common one.
    Siblings,
    /// Nothing in common.
    Unrelated,
}

impl Relation {
    /// The relation of these two.
    pub fn between(source: &Lineage, sink: &Lineage) -> Self {
        if source.current == sink.current {
            Self::Same
        } else if source.history.contains(&sink.current) {
            Self::SinkBehind
        } else if sink.history.contains(&source.current) {
            Self::SinkAhead
        } else if sink.history.iter().any(|g| source.history.contains(g)) {
            Self::Siblings
        } else {
            Self::Unrelated
        }
    }
}

/// Which role a side has or wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoleClaim {
    /// The role.
    pub role: Role,
    /// The epoch of this claim.
    pub epoch: u64,
}

/// The outcome for this side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleResolution {
    /// The claims fit each other.
    AsClaimed(RoleClaim),
    /// The peer's claim is newer: this side takes the other role.
    Adopt(RoleClaim),
    /// This side's claim is newer: the peer adopts.
    PeerAdopts(RoleClaim),
    /// Equally new and both the same role.
    Conflict,
}

/// Settles the direction: the higher epoch is right.
pub fn resolve_roles(ours: RoleClaim, theirs: RoleClaim) -> RoleResolution {
    match ours.epoch.cmp(&theirs.epoch) {
        std::cmp::Ordering::Greater => RoleResolution::PeerAdopts(ours),
        std::cmp::Ordering::Less => RoleResolution::Adopt(RoleClaim {
            role: theirs.role.other(),
            epoch: theirs.epoch,
        }),
        std::cmp::Ordering::Equal if ours.role == theirs.role => RoleResolution::Conflict,
        std::cmp::Ordering::Equal => RoleResolution::AsClaimed(ours),
    }
}

/// What the verdict has to know about the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceView {
    /// Bytes that the feed covers.
    pub size: u64,
    /// It has a durable record of the feed.
    pub known: bool,
    /// Its content may be copied from: it was the source before, or is a seeded and consistent
    /// sink that becomes the source.
    pub good: bool,
    /// Its map for the feed is not empty.
    pub dirty: bool,
    /// The point it is detaching or split at; `None` while the roles change.
    pub point: SourcePoint,
    /// Session epochs, newest first.
    pub epochs: Vec<Uuid>,
    /// How far its log has come.
    pub stamp: u64,
    /// How far it has seen the other's log come.
    pub seen: u64,
    /// State of its data.
    pub lineage: Lineage,
}

/// The point at which the source ends or has ended the feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourcePoint {
    /// None.
    None,
    /// On the way.
    Detaching(Uuid),
    /// Committed; so the sink has committed it before.
    Split(Uuid),
}

/// What the verdict has to know about the sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkView {
    /// Bytes of its volume that the feed may write.
    pub size: u64,
    /// It has a durable record of the feed.
    pub known: bool,
    /// Its volume is blank.
    pub fresh: bool,
    /// The first full copy has ended once, or it was the source; or it is in use while it is restored, and
    /// what clients write there is worth keeping.
    pub seeded: bool,
    /// Its content is a point of the source's write order, or it was the source.
    pub consistent: bool,
    /// Its own map for the feed is not empty: it was written other than by this feed.
    pub own_changes: bool,
    /// The point it has committed and not left since.
    pub split: Option<Uuid>,
    /// Session epochs, newest first.
    pub epochs: Vec<Uuid>,
    /// How far its log has come.
    pub stamp: u64,
    /// How far it has seen the other's log come.
    pub seen: u64,
    /// State of its data.
    pub lineage: Lineage,
}

/// What has to flow, or why nothing may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Data may flow, this much.
    Flow(FlowKind),
    /// The admin has to decide something first.
    Refused(RefusalCode),
}

/// The abstracted facts: one value per column of the truth table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Facts {
    size_fits: bool,
    source_good: bool,
    source_knows: bool,
    sink_knows: bool,
    fresh: bool,
    epochs: Epochs,
    older: Older,
    split: Split,
    seeded: bool,
    consistent: bool,
    relation: Relation,
    dirty: bool,
    own: bool,
    consent: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Epochs {
    Common,
    NoneYet,
    Foreign,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Older {
    Neither,
    Source,
    Sink,
    Both,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Split {
    No,
    Finish,
    Forgotten,
}

/// The columns of the table in the order of the module's documentation.
const COLUMNS: usize = 14;

/// The truth table: a pattern per row, one character per column, and the verdict.
const TABLE: [(&[u8; COLUMNS], Verdict); 34] = {
    use FlowKind::{FinishSplit, Full, Incremental, IncrementalUnion, Nothing};
    use RefusalCode as Code;
    use Verdict::{Flow, Refused};
    [
        (b"n-------------", Refused(Code::SinkTooSmall)),
        (b"yn------------", Refused(Code::SourceNotConsistent)),
        (b"yy-ny---------", Flow(Full)),
        (b"yy-nn--------y", Flow(Full)),
        (b"yy-nn--------n", Refused(Code::ForeignData)),
        (b"yyny----n-----", Flow(Full)),
        (b"yyny---------y", Flow(Full)),
        (b"yyny---------n", Refused(Code::UnknownAtSource)),
        (b"yyyy-x--n-----", Flow(Full)),
        (b"yyyy-x-------y", Flow(Full)),
        (b"yyyy-xs------n", Refused(Code::SourceOlder)),
        (b"yyyy-xk------n", Refused(Code::SinkOlder)),
        (b"yyyy-x-------n", Refused(Code::RolledBack)),
        (b"yyyy-0--------", Flow(Full)),
        (b"yyyy-=s------y", Flow(Full)),
        (b"yyyy-=k------y", Flow(Full)),
        (b"yyyy-=b------y", Flow(Full)),
        (b"yyyy-=s------n", Refused(Code::SourceOlder)),
        (b"yyyy-=k------n", Refused(Code::SinkOlder)),
        (b"yyyy-=b------n", Refused(Code::RolledBack)),
        (b"yyyy-=nX-----y", Flow(Full)),
        (b"yyyy-=nX-----n", Refused(Code::RolledBack)),
        (b"yyyy-=nF------", Flow(FinishSplit)),
        (b"yyyy-=nnn---n-", Flow(Incremental)),
        (b"yyyy-=nnn---y-", Flow(IncrementalUnion)),
        (b"yyyy-=nnyn--n-", Flow(Incremental)),
        (b"yyyy-=nnyn--y-", Flow(IncrementalUnion)),
        (b"yyyy-=nnyy~nn-", Flow(Nothing)),
        (b"yyyy-=nnyy~yn-", Flow(Incremental)),
        (b"yyyy-=nnyy~-yy", Flow(IncrementalUnion)),
        (b"yyyy-=nnyy~nyn", Refused(Code::SinkAhead)),
        (b"yyyy-=nnyy~yyn", Refused(Code::Diverged)),
        (b"yyyy-=nnyy#--y", Flow(Full)),
        (b"yyyy-=nnyy#--n", Refused(Code::Diverged)),
    ]
};

impl Facts {
    fn letters(&self) -> [u8; COLUMNS] {
        let yes = |fact| if fact { b'y' } else { b'n' };
        [
            yes(self.size_fits),
            yes(self.source_good),
            yes(self.source_knows),
            yes(self.sink_knows),
            yes(self.fresh),
            match self.epochs {
                Epochs::Common => b'=',
                Epochs::NoneYet => b'0',
                Epochs::Foreign => b'x',
            },
            match self.older {
                Older::Neither => b'n',
                Older::Source => b's',
                Older::Sink => b'k',
                Older::Both => b'b',
            },
            match self.split {
                Split::No => b'n',
                Split::Finish => b'F',
                Split::Forgotten => b'X',
            },
            yes(self.seeded),
            yes(self.consistent),
            match self.relation {
                Relation::Same => b'=',
                Relation::SinkBehind => b'<',
                Relation::SinkAhead => b'>',
                Relation::Siblings => b'^',
                Relation::Unrelated => b'#',
            },
            yes(self.dirty),
            yes(self.own),
            yes(self.consent),
        ]
    }

    /// The number of the row that decides, from 1, and its verdict.
    fn decide(&self) -> Option<(usize, Verdict)> {
        let letters = self.letters();
        let fits = |pattern: &[u8; COLUMNS]| {
            pattern.iter().zip(&letters).all(|(p, letter)| match p {
                b'-' => true,
                b'~' => *letter != b'#',
                p => p == letter,
            })
        };
        TABLE
            .iter()
            .position(|(pattern, _)| fits(pattern))
            .map(|row| (row + 1, TABLE[row].1))
    }
}

fn facts(source: &SourceView, sink: &SinkView, consent: bool) -> Facts {
    let common = source.epochs.iter().any(|e| sink.epochs.contains(e));
    let one_empty = source.epochs.is_empty() || sink.epochs.is_empty();
    Facts {
        size_fits: sink.size >= source.size,
        source_good: source.good,
        source_knows: source.known,
        sink_knows: sink.known,
        fresh: sink.fresh,
        epochs: if common {
            Epochs::Common
        } else if one_empty && !sink.seeded {
            Epochs::NoneYet
        } else {
            Epochs::Foreign
        },
        older: match (source.stamp < sink.seen, sink.stamp < source.seen) {
            (false, false) => Older::Neither,
            (true, false) => Older::Source,
            (false, true) => Older::Sink,
            (true, true) => Older::Both,
        },
        split: match (source.point, sink.split) {
            (SourcePoint::Detaching(p) | SourcePoint::Split(p), Some(q)) if p == q => Split::Finish,
            // It has left the point for a session that the source has not committed: it descends from it.
            (SourcePoint::Split(p), None) if sink.lineage.has(p) => Split::No,
            (SourcePoint::Split(_), _) => Split::Forgotten,
            (SourcePoint::None | SourcePoint::Detaching(_), _) => Split::No,
        },
        seeded: sink.seeded,
        consistent: sink.consistent,
        relation: Relation::between(&source.lineage, &sink.lineage),
        dirty: source.dirty,
        own: sink.own_changes,
        consent,
    }
}

/// The verdict of the truth table above. `consent`: the admin agreed, by name, that what is at the
/// sink is thrown away.
pub fn verdict(source: &SourceView, sink: &SinkView, consent: bool) -> Verdict {
    match facts(source, sink, consent).decide() {
        Some((_, verdict)) => verdict,
        // A test walks the whole space: some row always matches.
        None => Verdict::Refused(RefusalCode::Disagree),
    }
}

#[cfg(test)]
#[path = "generation_tests.rs"]
mod tests;
