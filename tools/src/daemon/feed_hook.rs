//! What the feeds (`daemon/feeds`) do for the rest of the daemon. The rest knows this trait only.

use super::verbs::Ctx;
use crate::api::{Command, Failure, FeedSample, LvName, ReportKind, Row};
use crate::lane::FeedLag;
use blockio::ByteRange;
use std::future::Future;
use std::pin::Pin;
use volmgr::engine::{FeedId, Note};

/// A future that a trait object may return.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The feeds of this node.
pub trait FeedService: Send + Sync {
    /// A `feed…` verb. Called without the verb lock; take it ([`super::Node::verb_lock`]) where
    /// things are changed.
    fn command<'a>(
        &'a self,
        ctx: &'a Ctx,
        command: &'a Command,
    ) -> BoxFuture<'a, Result<(), Failure>>;

    /// Rows of a listing ([`ReportKind::Feed`], [`ReportKind::Point`]).
    fn rows<'a>(
        &'a self,
        kind: ReportKind,
        lv: Option<&'a LvName>,
        peer: Option<&'a str>,
    ) -> BoxFuture<'a, Vec<Row>>;

    /// Numbers of a volume's feeds. `lags` is what its lane knows, by map slot.
    fn samples(&self, lv: &LvName, lags: &[(FeedId, FeedLag)]) -> Vec<FeedSample>;

    /// Waits a little; true where everything that was on its way between here and the peer when the wait began is at
    /// both sides now. Fails where they cannot be compared.
    fn arrived<'a>(&'a self, lv: &'a LvName, peer: &'a str)
    -> BoxFuture<'a, Result<bool, Failure>>;

    /// BLAKE3 of each block of a range, at most 4 MiB, of what the peer has; blocks are at least 4096 bytes.
    fn hashes<'a>(
        &'a self,
        lv: &'a LvName,
        peer: &'a str,
        range: ByteRange,
        block: u64,
    ) -> BoxFuture<'a, Result<Vec<[u8; 32]>, Failure>>;

    /// State of the connection to a peer for `peers`: `connected`, `idle`, …
    fn peer_state(&self, peer: &str) -> String;

    /// A volume has been activated: its lane is there ([`super::Node::lane`]).
    fn activated(&self, lv: &LvName);

    /// A volume is about to be deactivated: let go of its lane, then return.
    fn deactivating<'a>(&'a self, lv: &'a LvName) -> BoxFuture<'a, ()>;

    /// The engine of an active volume has news; called on the task that also commits plex states,
    /// so it must not block.
    fn note(&self, lv: &LvName, note: &Note);

    /// The peer list has changed.
    fn peers_changed(&self);

    /// The daemon stops: end connections in good order, then return.
    fn stop(&self) -> BoxFuture<'_, ()>;
}
