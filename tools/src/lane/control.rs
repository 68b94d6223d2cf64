//! Commands and results from other threads.

use super::command::{LaneCommand, Outcome};
use super::feeds::Durable;
use super::start::check_disks;
use super::thread::{Lane, Phase};
use super::{LaneError, LaneStats};
use std::sync::PoisonError;
use std::time::Instant;
use volmgr::engine::VolumeLayout;

impl Lane {
    pub fn take_commands(&mut self) {
        while let Ok(command) = self.inbox.commands.try_recv() {
            self.last_busy = self.now;
            self.command(command);
        }
        while let Ok(outcome) = self.inbox.outcomes.try_recv() {
            self.last_busy = self.now;
            match outcome {
                Outcome::Io(io, result) => self.performed(io, result),
                Outcome::Grant { id, results, done } => self.grant_ended(id, results, done),
            }
        }
    }

    fn command(&mut self, command: LaneCommand) {
        match command {
            LaneCommand::AddNbd(client) => self.add_nbd(*client),
            LaneCommand::AddUblk { queues, reply } => self.add_ublk(*queues, reply),
            LaneCommand::DropUblk { reply } => {
                self.drop_ublk();
                self.answer(reply, Ok(()));
            }
            LaneCommand::Reconfigure {
                layout,
                disks,
                reply,
            } => {
                let result = self.reconfigure(*layout, disks);
                self.answer(reply, result);
            }
            LaneCommand::FeedAttach {
                feed,
                outlet,
                reply,
            } => {
                self.feed_attach(feed, outlet);
                self.answer(reply, Ok(()));
            }
            LaneCommand::FeedOffline { feed, reply } => {
                self.feed_offline(feed);
                self.answer(reply, Ok(()));
            }
            LaneCommand::FeedBehind { feed, reply } => {
                self.engine.feed_behind(feed, &mut self.out);
                self.take_out();
                self.answer(reply, Ok(()));
            }
            LaneCommand::SetWhole { whole, reply } => {
                self.engine.set_whole(whole, &mut self.out);
                self.take_out();
                self.answer(reply, Ok(()));
            }
            LaneCommand::FeedResume { feed, reply } => {
                self.engine.feed_resume(feed, &mut self.out);
                self.take_out();
                self.answer(reply, Ok(()));
            }
            LaneCommand::Mark {
                feed,
                point,
                detach,
                reply,
            } => self.mark(feed, point, detach, reply),
            LaneCommand::SetAllDirty { feed, reply } => {
                self.engine.set_all_dirty(feed, &mut self.out);
                self.when_durable(reply);
            }
            LaneCommand::ClearFeedMap { feed, reply } => {
                self.engine.clear_feed_map(feed, &mut self.out);
                self.when_durable(reply);
            }
            LaneCommand::PrepareSlot { slot, reply } => {
                self.engine.prepare_slot(slot, &mut self.out);
                self.when_durable(reply);
            }
            LaneCommand::FeedFetch {
                feed,
                ranges,
                reply,
            } => {
                self.engine.feed_fetch(feed, &ranges, &mut self.out);
                self.take_out();
                self.answer(reply, Ok(()));
            }
            LaneCommand::PrepareRestore {
                slot,
                from,
                all,
                reply,
            } => {
                self.engine.prepare_restore(slot, from, all, &mut self.out);
                self.when_durable(reply);
            }
            LaneCommand::TrackPoint { slot, from, reply } => {
                match self.engine.track_point(slot, from, &mut self.out) {
                    Ok(()) => self.when_durable(reply),
                    Err(error) => self.answer(reply, Err(error.into())),
                }
            }
            LaneCommand::UntrackPoint { slot, reply } => {
                self.engine.untrack_point(slot);
                self.answer(reply, Ok(()));
            }
            LaneCommand::RestoreEnded { reply } => {
                self.engine.hurry_restore(&mut self.out);
                self.take_out();
                self.durables
                    .push((Instant::now(), Durable::Restore, reply));
            }
            LaneCommand::FeedMap { feed, reply } => {
                let map = self.engine.feed_map(feed).cloned();
                self.answer(reply, map.ok_or(LaneError::NoFeed));
            }
            LaneCommand::MergeFeedMap { feed, map, reply } => {
                self.engine.merge_feed_map(feed, &map, &mut self.out);
                self.when_durable(reply);
            }
            LaneCommand::CleanLog { reply } => self.clean_log(Instant::now(), reply),
            LaneCommand::TouchLog { reply } => {
                let barrier = self.engine.touch_log(&mut self.out);
                self.take_out();
                self.durables
                    .push((Instant::now(), Durable::Maps(barrier), reply));
            }
            LaneCommand::LogStamp { reply } => {
                let stamp = self.engine.log_stamp();
                self.answer(reply, Ok(stamp));
            }
            LaneCommand::Dirty {
                feeds,
                plexes,
                reply,
            } => {
                let feeds = feeds.iter().map(|feed| self.engine.dirty_bytes(*feed));
                let plexes = plexes
                    .iter()
                    .map(|plex| self.engine.plex_dirty_bytes(*plex));
                let dirty = (feeds.collect(), plexes.collect());
                self.answer(reply, Ok(dirty));
            }
            LaneCommand::Stats { reply } => {
                let stats = self.stats();
                self.answer(reply, Ok(stats));
            }
            LaneCommand::Read { range, reply } => self.read_for(range, reply),
            LaneCommand::ReadPlexes {
                range,
                plexes,
                reply,
            } => self.read_plexes_for(range, plexes, reply),
            LaneCommand::Rewrite {
                range,
                from,
                to,
                reply,
            } => self.rewrite_for(range, from, to, reply),
            LaneCommand::Freeze { reply } => {
                self.engine.freeze();
                self.answer(reply, Ok(()));
            }
            LaneCommand::Thaw => self.engine.thaw(),
            LaneCommand::Quiesce { reply } => {
                self.quiesces.push((self.serial, reply));
                self.check_quiesces();
            }
            LaneCommand::Stop { reply } => {
                self.stop_replies.push(reply);
                if matches!(self.phase, Phase::Running) {
                    let since = Instant::now();
                    self.phase = Phase::Draining {
                        since,
                        forced: false,
                    };
                    // Nothing more comes from any feed: who waits for that would hold the end up.
                    self.engine.give_up_restore(&mut self.out);
                    self.take_out();
                    self.shut_down_clients(false);
                }
            }
            #[cfg(test)]
            LaneCommand::Crash => self.phase = Phase::Ended,
        }
    }

    fn reconfigure(
        &mut self,
        layout: VolumeLayout,
        disks: Vec<super::DiskSpec>,
    ) -> Result<(), LaneError> {
        self.disks.extend(disks)?;
        check_disks(&layout, &self.disks)?;
        for disk in self.disks.iter() {
            self.ring.fix_file(&disk.io);
        }
        let taken = self.engine.reconfigure(layout.clone(), &mut self.out);
        self.take_out();
        taken?;
        self.meters.layout(&layout, &self.disks);
        self.layout = layout;
        let limits = self.limits();
        *self
            .shared
            .limits
            .write()
            .unwrap_or_else(PoisonError::into_inner) = limits;
        for (_, conn) in &mut self.conns {
            conn.set_limits(limits);
        }
        Ok(())
    }

    fn stats(&mut self) -> LaneStats {
        let feeds = self.layout.feeds.iter().map(|feed| feed.id);
        let feeds = feeds
            .map(|feed| (feed, self.meters.lag(feed, self.engine.dirty_bytes(feed))))
            .collect();
        let plexes = self.layout.plexes.iter().map(|plex| plex.id);
        LaneStats {
            feeds,
            plex_media: plexes
                .clone()
                .map(|plex| (plex, self.engine.plex_media(plex)))
                .collect(),
            plex_dirty: plexes
                .map(|plex| (plex, self.engine.plex_dirty_bytes(plex)))
                .collect(),
            opens: u32::try_from(self.conns.len()).unwrap_or(u32::MAX),
            in_flight: self.requests.len() as u64,
            recover_bytes: self.engine.recover_bytes(),
            disk_errors: self.disks.iter().map(|disk| disk.errors).collect(),
            direct: self.disks.iter().all(|disk| disk.direct),
            unregistered: self.ring.unregistered_why().map(|why| why.to_string()),
            ..self.stats.clone()
        }
    }
}
