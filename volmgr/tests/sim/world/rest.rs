//! The world at rest: everything must be in step.

use super::*;

impl World {
    /// Everything heals and comes to rest; then all copies must be equal.
    pub fn settle(&mut self) {
        self.faults = false;
        for disk in &mut self.disks {
            disk.fail_flush = false;
            disk.fail_write = false;
        }
        for round in 0..4000 {
            for _ in 0..20 {
                self.progress();
            }
            self.tick();
            for i in 0..self.sinks.len() {
                let (id, online, behind) =
                    (self.sinks[i].id, self.sinks[i].online, self.sinks[i].behind);
                if !online {
                    self.sinks[i].online = true;
                    self.call(|engine, out| engine.feed_online(id, out));
                } else if behind {
                    self.sinks[i].behind = false;
                    self.call(|engine, out| engine.feed_resume(id, out));
                }
            }
            self.replace();
            self.point_event();
            if !self.disks.iter().any(|d| d.dead) {
                // A disk died whose plex nothing has touched since: nothing to heal.
            } else if round > 200 {
                for disk in &mut self.disks {
                    disk.dead = false;
                }
            }
            let engine = self.engine();
            if self.jobs.is_empty()
                && self.asked.is_empty()
                && engine.is_idle()
                && engine.recover_bytes() == 0
                && engine.logged_bytes() == 0
                && self.plexes.iter().all(|p| p.state == PlexState::Active)
                && self
                    .sinks
                    .iter()
                    .all(|s| s.queue.is_empty() && engine.is_caught_up(s.id))
            {
                self.inline += engine.stats().inline_bytes;
                return self.check_equal();
            }
        }
        let engine = self.engine();
        panic!(
            "no rest: {} jobs, {} requests, idle {}, recover {}, logged {}, plexes {:?}, feeds {:?}",
            self.jobs.len(),
            self.asked.len(),
            engine.is_idle(),
            engine.recover_bytes(),
            engine.logged_bytes(),
            self.plexes.iter().map(|p| p.state).collect::<Vec<_>>(),
            self.sinks
                .iter()
                .map(|s| engine.dirty_bytes(s.id))
                .collect::<Vec<_>>(),
        );
    }

    pub(super) fn check_equal(&self) {
        self.check_point();
        for sector in 0..SECTORS {
            let first = self.look(&self.plexes[0].map, sector);
            assert!(
                self.history.legal(sector, first, self.step + 1, false),
                "sector {sector} has {first}: {:?}",
                self.history.sectors[sector]
            );
            for plex in &self.plexes[1..] {
                let value = self.look(&plex.map, sector);
                assert_eq!(value, first, "{:?} differs in sector {sector}", plex.id);
            }
            for sink in &self.sinks {
                let value = sink.data[sector];
                assert_eq!(value, first, "{:?} differs in sector {sector}", sink.id);
            }
        }
    }

    /// Closes in good order; a new engine then has nothing to recover and misses nothing.
    pub fn close_and_reopen(&mut self) {
        self.closing = true;
        for i in 0..self.sinks.len() {
            self.cut(i);
        }
        self.call(|engine, out| engine.close(out));
        for _ in 0..2000 {
            if self.engine().is_idle() && self.jobs.is_empty() {
                break;
            }
            self.progress();
        }
        assert!(self.engine().is_idle(), "close does not end");
        self.closing = false;
        self.engine = None;
        self.start();
        assert_eq!(self.engine().recover_bytes(), 0);
        assert_eq!(self.engine().logged_bytes(), 0);
        for sink in &self.sinks {
            assert_eq!(self.engine().dirty_bytes(sink.id), 0, "a needless resync");
        }
    }
}
