//! What a peer's handshake is for: the volume here, found or made.

use super::Feeds;
use super::entry::FeedEntry;
use super::record::{self, Ask};
use super::run::PeerLink;
use crate::api::{Command, Failure, LvName, SizeSpec};
use crate::daemon::active;
use crate::daemon::verbs::{Ctx, Out};
use crate::lane::{Frozen, LaneHandle};
use blockio::ByteRange;
use feedplex::access::{Right, Rules};
use feedplex::generation::Role;
use feedplex::session::{Event, FeedState, LocalFeed};
use feedplex::wire::control::{Handshake, RefusalCode, Refused};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::OwnedMutexGuard;
use uuid::Uuid;
use volmgr::model::{Direction, FeedMode};
use volmgr::plan;

/// How long the end of an earlier session of the same feed is waited for.
const TAKE_OVER: Duration = Duration::from_secs(10);

/// Time to prove that a volume is blank, well below what a peer waits for a sign of life.
const BLANK_PROOF: Duration = Duration::from_secs(8);

/// The volume is there.
pub struct Opened {
    /// The feed here.
    pub entry: Arc<FeedEntry>,
    /// Its volume's data path.
    pub lane: LaneHandle,
    /// No other session of the feed runs.
    pub exclusive: OwnedMutexGuard<()>,
    /// Clients do not write until the roles are settled.
    pub frozen: Option<Frozen>,
    /// For the session.
    pub local: LocalFeed,
}

fn refuse(code: RefusalCode, text: impl Into<String>) -> Refused {
    Refused {
        code,
        text: text.into(),
    }
}

impl Feeds {
    /// Finds the volume of a handshake, or makes it where the peer may.
    pub async fn open_target(
        self: &Arc<Self>,
        peer: &PeerLink,
        handshake: &Handshake,
    ) -> Result<Opened, Refused> {
        let lv = match self.volume_of_feed(handshake.feed) {
            Some((lv, recorded)) if recorded == peer.name => lv,
            Some((lv, recorded)) => {
                let text = format!(
                    "the feed into {lv} is that of peer {recorded}: the caller's disks are a copy of that \
                     node's, or have moved (feeddetach --force there forgets the feed)"
                );
                return Err(refuse(RefusalCode::Access, text));
            }
            None => self.named_target(peer, handshake)?,
        };
        let rights = self.rights(&peer.name, &lv);
        if !rights.feed && !rights.read {
            let text = format!("peer {} is not allowed to use {lv} here", peer.name);
            return Err(refuse(RefusalCode::Access, text));
        }
        let made = self.ensure_volume(peer, handshake, &lv).await?;
        match self.open_volume(peer, handshake, &lv, made).await {
            Ok(opened) => Ok(opened),
            Err(refused) => {
                if made {
                    self.unmake(&lv).await;
                }
                Err(refused)
            }
        }
    }

    fn named_target(&self, peer: &PeerLink, handshake: &Handshake) -> Result<LvName, Refused> {
        let bad = |text: String| refuse(RefusalCode::NoVolume, text);
        let (vg, lv) = handshake
            .target
            .split_once('/')
            .ok_or_else(|| bad(format!("{:?} is not VG/LV", handshake.target)))?;
        for name in [vg, lv] {
            volmgr::names::check(name).map_err(|error| bad(format!("{name:?}: {error}")))?;
        }
        let name = LvName {
            vg: vg.to_owned(),
            lv: lv.to_owned(),
        };
        // A peer without any right learns nothing of what is here.
        let rights = self.rights(&peer.name, &name);
        if !rights.feed && !rights.read {
            let text = format!("peer {} is not allowed to use {name} here", peer.name);
            return Err(refuse(RefusalCode::Access, text));
        }
        Ok(name)
    }

    async fn ensure_volume(
        self: &Arc<Self>,
        peer: &PeerLink,
        handshake: &Handshake,
        lv: &LvName,
    ) -> Result<bool, Refused> {
        if self.node.volume(lv).is_some() {
            return Ok(false);
        }
        let Some(view) = self.node.groups.view(&lv.vg) else {
            let text = format!("no volume group {} here", lv.vg);
            return Err(refuse(RefusalCode::NoVolume, text));
        };
        if !handshake.create || handshake.role != Role::Source {
            let text = format!("no volume {lv} here (--create makes it)");
            return Err(refuse(RefusalCode::NoVolume, text));
        }
        let rules = self
            .node
            .peers
            .get(&peer.name)
            .and_then(|peer| Rules::parse(&peer.allow).ok())
            .unwrap_or_default();
        if !rules.allows(Right::Create, &lv.to_string()) {
            let text = format!("peer {} is not allowed to create {lv} here", peer.name);
            return Err(refuse(RefusalCode::Access, text));
        }
        if !handshake.size.is_multiple_of(view.group.extent_size) {
            let text = format!(
                "{} bytes are not a multiple of the extent size of {} ({} bytes)",
                handshake.size, lv.vg, view.group.extent_size
            );
            return Err(refuse(RefusalCode::SinkTooSmall, text));
        }
        self.own_command(Command::Lvcreate {
            lv: lv.clone(),
            size: SizeSpec::Bytes(handshake.size),
            mirrors: 0,
            stripes: 1,
            stripe_size: None,
            pvs: Vec::new(),
            inactive: false,
            frontend: None,
            tags: Vec::new(),
        })
        .await
        .map_err(|failure| refuse(RefusalCode::NoVolume, failure.to_string()))?;
        self.node.event(
            "lv-created",
            &lv.to_string(),
            &format!("for the feed of peer {}", peer.name),
        );
        Ok(true)
    }

    /// The peer's volume has grown since the last session: so does this side's, where the peer may take
    /// space here.
    async fn grow(
        &self,
        peer: &PeerLink,
        handshake: &Handshake,
        lv: &LvName,
        size: u64,
    ) -> Result<(), Refused> {
        let too_small = |why: String| {
            let text = format!(
                "{lv} has {size} bytes here, the peer's volume has grown to {}: {why}",
                handshake.size
            );
            refuse(RefusalCode::SinkTooSmall, text)
        };
        let rules = self.node.peers.get(&peer.name);
        let rules = rules.and_then(|peer| Rules::parse(&peer.allow).ok());
        if !rules
            .unwrap_or_default()
            .allows(Right::Create, &lv.to_string())
        {
            return Err(too_small(format!(
                "peer {} may not take space here (peeradd --allow create:{lv}, then feedresume over there)",
                peer.name
            )));
        }
        let extent = self
            .node
            .groups
            .view(&lv.vg)
            .map(|view| view.group.extent_size);
        if !extent.is_some_and(|extent| handshake.size.is_multiple_of(extent)) {
            return Err(too_small("no multiple of the extent size here".into()));
        }
        crate::daemon::verbs::grow_with_peer(&self.own_ctx(), lv, handshake.size)
            .await
            .map_err(|failure| too_small(failure.to_string()))
    }

    /// For verbs run for itself; what they have to say goes nowhere.
    fn own_ctx(&self) -> Ctx {
        let (sender, _replies) = tokio::sync::mpsc::unbounded_channel();
        Ctx {
            node: self.node.clone(),
            test: false,
            yes: true,
            out: Out::new(sender),
        }
    }

    async fn own_command(&self, command: Command) -> Result<(), Failure> {
        crate::daemon::verbs::dispatch(&self.own_ctx(), &command).await
    }

    async fn unmake(&self, lv: &LvName) {
        let remove = Command::Lvremove {
            lv: lv.clone(),
            force: true,
        };
        if let Err(failure) = self.own_command(remove).await {
            tracing::warn!(%failure, "a volume made for a refused feed is left");
        }
    }

    async fn open_volume(
        self: &Arc<Self>,
        peer: &PeerLink,
        handshake: &Handshake,
        lv: &LvName,
        made: bool,
    ) -> Result<Opened, Refused> {
        let local = |error: String| refuse(RefusalCode::Local, error);
        if self.node.lane(lv).is_none() {
            // A volume has one lane: the start, or an admin, may be bringing it up just now.
            let _one_at_a_time = self.node.verb_lock().await;
            if self.node.lane(lv).is_none() {
                crate::daemon::active::activate(&self.node, lv, None)
                    .await
                    .map_err(|failure| local(failure.to_string()))?;
            }
        }
        let lane = self
            .node
            .lane(lv)
            .ok_or_else(|| local("the volume is not active".into()))?;
        let found = || {
            let found = self.node.volume(lv);
            found.ok_or_else(|| refuse(RefusalCode::NoVolume, "the volume is gone"))
        };
        let (view, volume) = found()?;
        let size = view.group.bytes_of(&volume);
        if size < handshake.size && volume.feeds.iter().any(|f| f.uuid == handshake.feed) {
            self.grow(peer, handshake, lv, size).await?;
        }
        let (view, volume) = found()?;
        let size = view.group.bytes_of(&volume);
        if size != handshake.size {
            let text = format!(
                "{lv} has {size} bytes here, the peer's volume has {} (lvextend the smaller one)",
                handshake.size
            );
            return Err(refuse(RefusalCode::SinkTooSmall, text));
        }
        let recorded = volume.feeds.iter().find(|feed| feed.uuid == handshake.feed);
        let peer_sends = handshake.role == Role::Source && !handshake.swap
            || handshake.role == Role::Sink && handshake.swap;
        let known = volume.feeds.iter().find(|feed| feed.peer == peer.name);
        if let (None, Some(other)) = (recorded, known) {
            let text = format!(
                "{lv} already has a feed with {} ({})",
                peer.name, other.peer_lv
            );
            return Err(refuse(RefusalCode::WrongState, text));
        }
        if recorded.is_none() || peer_sends {
            let other = |feed: &volmgr::model::Feed| feed.uuid != handshake.feed && feed.fills();
            let fed = volume.feeds.iter().any(other);
            if fed {
                let text = format!("{lv} is fed by another peer");
                return Err(refuse(RefusalCode::Busy, text));
            }
        }
        // An online restore reads a volume that must not change any more.
        let freezes = handshake.online && handshake.swap;
        let mut frozen = None;
        if peer_sends || freezes {
            let unused = active::freeze_unused(&self.node, volume.uuid, &lane).await;
            let unused = unused.map_err(|error| local(error.to_string()))?;
            let open = |_| refuse(RefusalCode::Busy, format!("{lv} is open here"));
            frozen = Some(unused.map_err(open)?);
        }
        let entry = match self.entry(handshake.feed) {
            Some(entry) => entry,
            None => {
                // For listings; whatever it is, nothing here depends on it.
                let peer_lv = record::shown_name(&handshake.name);
                let feed = recorded.cloned().unwrap_or_else(|| {
                    record::provisional(
                        handshake.feed,
                        &peer.name,
                        &peer_lv,
                        Direction::In,
                        false,
                        if handshake.sync_mode {
                            FeedMode::Sync
                        } else {
                            FeedMode::Async
                        },
                        0,
                    )
                });
                let entry = Arc::new(FeedEntry::new(
                    lv.clone(),
                    &feed,
                    size,
                    FeedState::Connecting,
                ));
                if recorded.is_none() {
                    entry.ask(Ask::default(), Some(feed));
                }
                self.add(entry)
            }
        };
        // An earlier session of this feed is one that the peer has given up.
        entry.send(Event::Stop);
        let exclusive = entry
            .exclusive(TAKE_OVER)
            .await
            .ok_or_else(|| refuse(RefusalCode::Busy, "an earlier session has not ended yet"))?;
        entry.update(|status| {
            status.state = FeedState::Connecting;
            status.reason.clear();
        });
        let mut local_feed = self
            .local_feed(&entry, &lane, &Ask::default())
            .await
            .map_err(local)?;
        local_feed.facts.target = lv.to_string();
        local_feed.facts.fresh =
            made || (recorded.is_none() && is_blank(&lane, size).await.map_err(local)?);
        Ok(Opened {
            entry,
            lane,
            exclusive,
            frozen,
            local: local_feed,
        })
    }

    /// The volume that has a record of this feed, and the peer in the record.
    pub fn volume_of_feed(&self, feed: Uuid) -> Option<(LvName, String)> {
        self.node.groups.views().iter().find_map(|view| {
            view.group.volumes.iter().find_map(|volume| {
                let record = volume.feeds.iter().find(|known| known.uuid == feed)?;
                let name = LvName {
                    vg: view.group.name.clone(),
                    lv: volume.name.clone(),
                };
                Some((name, record.peer.clone()))
            })
        })
    }

    /// Puts the record of a first attempt into the metadata, without session epochs.
    pub(super) async fn commit_provisional(&self, entry: &FeedEntry) -> Result<(), String> {
        let Some(feed) = entry.provisional() else {
            return Ok(());
        };
        let lv = entry.lv();
        self.node
            .commit(&lv.vg, |group| plan::add_feed(group, &lv.lv, feed))
            .map_err(|error| error.to_string())?;
        entry.committed();
        self.reconfigure(entry).await
    }
}

/// Does the volume hold nothing? Small ones are read whole; of large ones the first and last
/// Does the volume hold nothing? Only what was read is believed: a volume too large to be read in
/// [`BLANK_PROOF`] is not blank.
async fn is_blank(lane: &LaneHandle, size: u64) -> Result<bool, String> {
    const STEP: u64 = 256 << 10;
    let began = Instant::now();
    let mut start = 0;
    while start < size {
        if began.elapsed() > BLANK_PROOF {
            return Ok(false);
        }
        let len = STEP.min(size - start);
        let slice = lane
            .read_slice(ByteRange::new(start, len))
            .await
            .map_err(|error| error.to_string())?;
        if slice.as_ref().iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        start += len;
    }
    Ok(true)
}
