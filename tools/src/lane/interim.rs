//! Stand-in until the engine is merged.
use blockio::*;
use regionmap::RegionMap;
use std::collections::HashMap;
use volmgr::engine::*;

struct Req {
    ticket: Ticket,
    left: usize,
    result: Result<(), IoError>,
}
pub struct Engine {
    layout: VolumeLayout,
    next: u64,
    ios: HashMap<u64, u64>,
    reqs: HashMap<u64, Req>,
    rr: usize,
}
impl Engine {
    pub fn new(layout: VolumeLayout) -> Self {
        Self {
            layout,
            next: 0,
            ios: HashMap::new(),
            reqs: HashMap::new(),
            rr: 0,
        }
    }
    pub fn submit(&mut self, r: Request, out: &mut Vec<Action>) {
        self.next += 1;
        let id = self.next;
        if r.range.end() > self.layout.size {
            out.push(Action::Complete {
                ticket: r.ticket,
                result: Err(IoError::new(IoErrorKind::Invalid)),
            });
            return;
        }
        if self.layout.fed && r.origin == Origin::Client && r.op.modifies() {
            out.push(Action::Complete {
                ticket: r.ticket,
                result: Err(IoError::new(IoErrorKind::ReadOnly)),
            });
            return;
        }
        let mut n = 0;
        let op = match r.op {
            Op::Read => DiskOp::Read,
            Op::Write => DiskOp::Write,
            Op::Flush => DiskOp::Flush,
            Op::Discard => DiskOp::Discard,
            Op::WriteZeroes => DiskOp::WriteZeroes,
            Op::Prefetch => DiskOp::Prefetch,
        };
        let plexes: Vec<_> = if op == DiskOp::Read {
            self.rr += 1;
            vec![self.layout.plexes[self.rr % self.layout.plexes.len()].clone()]
        } else {
            self.layout.plexes.clone()
        };
        for p in &plexes {
            let mut places = vec![];
            if op == DiskOp::Flush {
                for piece in &p.map {
                    match piece {
                        Piece::Concat(d) => places.push((
                            0,
                            DiskRange {
                                disk: d.disk,
                                range: ByteRange::default(),
                            },
                        )),
                        Piece::Striped { columns, .. } => {
                            for c in columns {
                                places.push((
                                    0,
                                    DiskRange {
                                        disk: c.disk,
                                        range: ByteRange::default(),
                                    },
                                ))
                            }
                        }
                    }
                }
            } else {
                let mut at = r.range.start();
                while at < r.range.end() {
                    let mut before = 0;
                    for piece in &p.map {
                        match piece {
                            Piece::Concat(d) => {
                                let l = d.range.len();
                                if at >= before && at < before + l {
                                    let skip = at - before;
                                    let n = (l - skip).min(r.range.end() - at);
                                    places.push((
                                        at - r.range.start(),
                                        DiskRange {
                                            disk: d.disk,
                                            range: ByteRange::new(d.range.start() + skip, n),
                                        },
                                    ));
                                    at += n;
                                    break;
                                }
                                before += l;
                            }
                            Piece::Striped {
                                stripe_size,
                                columns,
                            } => {
                                let l = columns[0].range.len() * columns.len() as u64;
                                if at >= before && at < before + l {
                                    let s = (at - before) / stripe_size;
                                    let w = (at - before) % stripe_size;
                                    let c = &columns[(s % columns.len() as u64) as usize];
                                    let n = (stripe_size - w).min(r.range.end() - at);
                                    places.push((
                                        at - r.range.start(),
                                        DiskRange {
                                            disk: c.disk,
                                            range: ByteRange::new(
                                                c.range.start()
                                                    + s / columns.len() as u64 * stripe_size
                                                    + w,
                                                n,
                                            ),
                                        },
                                    ));
                                    at += n;
                                    break;
                                }
                                before += l;
                            }
                        }
                    }
                }
            }
            for (skip, at) in places {
                self.next += 1;
                self.ios.insert(self.next, id);
                n += 1;
                out.push(Action::Disk(DiskIo {
                    io: IoId(self.next),
                    op,
                    at,
                    payload: r.payload.map(|id| Payload { id, skip }),
                    flags: r.flags,
                }));
            }
        }
        self.reqs.insert(
            id,
            Req {
                ticket: r.ticket,
                left: n,
                result: Ok(()),
            },
        );
    }
    pub fn io_done(&mut self, io: IoId, result: Result<(), IoError>, out: &mut Vec<Action>) {
        let Some(id) = self.ios.remove(&io.0) else {
            return;
        };
        let r = self.reqs.get_mut(&id).unwrap();
        r.left -= 1;
        r.result = r.result.and(result);
        if r.left == 0 {
            let r = self.reqs.remove(&id).unwrap();
            out.push(Action::Complete {
                ticket: r.ticket,
                result: r.result,
            });
        }
    }
    pub fn tick(&mut self, _: u64, _: &mut Vec<Action>) {}
    pub fn reconfigure(&mut self, l: VolumeLayout, _: &mut Vec<Action>) {
        self.layout = l;
    }
    pub fn set_stop(&mut self) {}
    pub fn is_idle(&self) -> bool {
        self.reqs.is_empty()
    }
    pub fn close(&mut self, _: &mut Vec<Action>) {}
    pub fn feed_online(&mut self, _: FeedId, _: &mut Vec<Action>) {}
    pub fn feed_offline(&mut self, _: FeedId, _: &mut Vec<Action>) {}
    pub fn feed_behind(&mut self, _: FeedId, _: &mut Vec<Action>) {}
    pub fn feed_resume(&mut self, _: FeedId, _: &mut Vec<Action>) {}
    pub fn mark(&mut self, feed: FeedId, out: &mut Vec<Action>) -> IoId {
        self.next += 1;
        let io = IoId(self.next);
        out.push(Action::FeedMark { io, feed });
        io
    }
    pub fn feed_map(&self, _: FeedId) -> Option<&RegionMap> {
        None
    }
    pub fn merge_feed_map(&mut self, _: FeedId, _: &RegionMap, _: &mut Vec<Action>) {}
    pub fn clear_feed_map(&mut self, _: FeedId, _: &mut Vec<Action>) {}
    pub fn set_all_dirty(&mut self, _: FeedId, _: &mut Vec<Action>) {}
    pub fn dirty_bytes(&self, _: FeedId) -> u64 {
        0
    }
    pub fn plex_dirty_bytes(&self, _: PlexId) -> u64 {
        0
    }
}
