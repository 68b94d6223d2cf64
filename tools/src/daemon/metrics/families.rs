//! The metrics that there are.

use super::text::{Family, Kind, Labels, Text};
use crate::api::{FeedSample, Meter, OPS, OpCount, PlexSample, Sample, VolumeSample};
use crate::daemon::{Node, process, sample};
use feedplex::session::FeedState;
use volmgr::model::PlexState;

/// All metrics, as they are now.
pub async fn all(node: &Node) -> String {
    let sample = sample::gather(node, &[]).await;
    let mut text = Text::default();
    daemon(node, &mut text);
    groups(node, &mut text);
    volumes(&sample, &mut text);
    requests(&sample, &mut text);
    plexes(&sample, &mut text);
    disks(&sample, &mut text);
    feeds(&sample, &mut text);
    moved(&sample, &mut text);
    peers(node, &mut text);
    text.into_string()
}

fn daemon(node: &Node, text: &mut Text) {
    let version = env!("CARGO_PKG_VERSION");
    let uuid = node.identity.uuid.to_string();
    text.family("volmgr_node_info", Kind::Gauge, "This node; always 1.")
        .line(
            &[
                ("node", node.identity.name.as_str()),
                ("uuid", &uuid),
                ("location", &node.identity.location),
                ("version", version),
            ],
            1,
        );
    let mut events = text.family(
        "volmgr_events_total",
        Kind::Counter,
        "Events since the daemon has started, by kind.",
    );
    for (kind, count) in node.events.counts() {
        events.line(&[("kind", kind.as_str())], count);
    }
    let used = process::usage();
    text.family(
        "process_cpu_seconds_total",
        Kind::Counter,
        "Processor time of the daemon in seconds.",
    )
    .millis(&[], used.cpu_millis);
    text.family(
        "process_resident_memory_bytes",
        Kind::Gauge,
        "Memory of the daemon in bytes.",
    )
    .line(&[], used.resident_bytes);
    text.family(
        "process_open_fds",
        Kind::Gauge,
        "Open file descriptors of the daemon.",
    )
    .line(&[], used.open_files);
}

fn groups(node: &Node, text: &mut Text) {
    let views = node.groups.views();
    let mut each = |name, help, value: &dyn Fn(&crate::daemon::groups::GroupView) -> u64| {
        let mut family = text.family(name, Kind::Gauge, help);
        for view in &views {
            family.line(&[("vg", view.group.name.as_str())], value(view));
        }
    };
    each(
        "volmgr_group_missing_disks",
        "Disks of the group that are not there.",
        &|view| view.missing().len() as u64,
    );
    each(
        "volmgr_group_usable",
        "1 where the group's metadata can be used.",
        &|view| u64::from(view.trouble.is_none()),
    );
    each(
        "volmgr_group_size_bytes",
        "Space of the group in bytes.",
        &|view| {
            let extents: u64 = view.group.pvs.iter().map(|pv| pv.extent_count).sum();
            extents * view.group.extent_size
        },
    );
    each(
        "volmgr_group_free_bytes",
        "Free space of the group in bytes.",
        &|view| view.free_extents().values().sum::<u64>() * view.group.extent_size,
    );
}

/// The labels of a volume.
fn of(volume: &VolumeSample) -> [(&str, &str); 2] {
    [("vg", volume.vg.as_str()), ("lv", volume.lv.as_str())]
}

fn volumes(sample: &Sample, text: &mut Text) {
    let mut each = |name, help, value: &dyn Fn(&VolumeSample) -> u64| {
        let mut family = text.family(name, Kind::Gauge, help);
        for volume in &sample.volumes {
            family.line(&of(volume), value(volume));
        }
    };
    each(
        "volmgr_volume_active",
        "1 where the volume is served.",
        &|volume| u64::from(volume.active),
    );
    each(
        "volmgr_volume_answers",
        "1 where the volume's data path answers; 0 also for a volume that is not served.",
        &|volume| u64::from(volume.answers),
    );
    each(
        "volmgr_volume_size_bytes",
        "Size of the volume in bytes.",
        &|volume| volume.size,
    );
    each(
        "volmgr_volume_open",
        "Clients and users of the volume.",
        &|volume| volume.open,
    );
    each(
        "volmgr_volume_in_flight",
        "Requests under way.",
        &|volume| volume.in_flight,
    );
    each(
        "volmgr_volume_recovering_bytes",
        "Bytes in which plexes may differ after an unclean stop and have not been made equal yet.",
        &|volume| volume.recovering,
    );
    let mut family = text.family(
        "volmgr_volume_health",
        Kind::Gauge,
        "1 for what the volume's health is, 0 for what it is not.",
    );
    for volume in &sample.volumes {
        for health in ["ok", "resync", "degraded", "failed"] {
            let labels = [&of(volume)[..], &[("health", health)]].concat();
            family.line(&labels, u64::from(volume.health == health));
        }
    }
}

fn requests(sample: &Sample, text: &mut Text) {
    let each = |write: &mut dyn FnMut(&Labels<'_>, &OpCount)| {
        for volume in &sample.volumes {
            for (origin, meter) in [("client", &volume.clients), ("feed", &volume.fed)] {
                let labels = [&of(volume)[..], &[("origin", origin)]].concat();
                by_op(&labels, meter, write);
            }
        }
    };
    four(text, "volmgr_volume", "volume", &each);
}

/// Calls `write` for each kind of operation that has happened.
fn by_op(labels: &Labels<'_>, meter: &Meter, write: &mut dyn FnMut(&Labels<'_>, &OpCount)) {
    for (op, count) in OPS.iter().zip(&meter.by_op) {
        write(&[labels, &[("op", *op)]].concat(), count);
    }
}

/// Calls what it is given for each line of a family.
type Each<'a> = &'a dyn Fn(&mut dyn FnMut(&Labels<'_>, &OpCount));

/// The four families of whatever has operations.
fn four(text: &mut Text, prefix: &str, what: &str, each: Each<'_>) {
    let mut family = text.family(
        &format!("{prefix}_operations_total"),
        Kind::Counter,
        &format!("Operations of the {what} that have ended, since it was activated."),
    );
    each(&mut |labels, count| family.line(labels, count.ops));
    let mut family = text.family(
        &format!("{prefix}_bytes_total"),
        Kind::Counter,
        &format!("Bytes of the {what}'s operations that ended well."),
    );
    each(&mut |labels, count| family.line(labels, count.bytes));
    let mut family = text.family(
        &format!("{prefix}_errors_total"),
        Kind::Counter,
        &format!("Operations of the {what} that failed."),
    );
    each(&mut |labels, count| family.line(labels, count.errors));
    let mut family = text.family(
        &format!("{prefix}_latency_seconds"),
        Kind::Histogram,
        &format!("How long the {what}'s operations took, in seconds."),
    );
    each(&mut |labels, count| family.latency(labels, count));
}

fn plexes(sample: &Sample, text: &mut Text) {
    let each = |write: &mut dyn FnMut(&Labels<'_>, &PlexSample)| {
        for volume in &sample.volumes {
            for plex in &volume.plexes {
                let labels = [&of(volume)[..], &[("plex", plex.name.as_str())]].concat();
                write(&labels, plex);
            }
        }
    };
    let mut family = text.family(
        "volmgr_plex_in_step",
        Kind::Gauge,
        "1 where the plex has every acknowledged write.",
    );
    let active = crate::daemon::verbs::plex_state_name(PlexState::Active);
    each(&mut |labels, plex| family.line(labels, u64::from(plex.state == active)));
    let mut family = text.family(
        "volmgr_plex_dirty_bytes",
        Kind::Gauge,
        "Bytes that the plex misses.",
    );
    each(&mut |labels, plex| family.line(labels, plex.dirty));
    let mut family = text.family(
        "volmgr_plex_recent_read_errors",
        Kind::Gauge,
        "Reads of the plex that failed lately: halved every hour. From [plexes] max_read_errors on it is retired.",
    );
    each(&mut |labels, plex| family.line(labels, plex.read_errors));
    let mut family = text.family(
        "volmgr_plex_read_repairs_total",
        Kind::Counter,
        "Ranges of the plex that could not be read and were rewritten from another one, since the volume was activated.",
    );
    each(&mut |labels, plex| family.line(labels, plex.read_repairs));
    four(text, "volmgr_plex", "plex", &|write| {
        each(&mut |labels, plex| by_op(labels, &plex.meter, write));
    });
}

fn disks(sample: &Sample, text: &mut Text) {
    let each = |write: &mut dyn FnMut(&Labels<'_>, &OpCount)| {
        for volume in &sample.volumes {
            for disk in &volume.disks {
                let labels = [&of(volume)[..], &[("pv", disk.path.as_str())]].concat();
                by_op(&labels, &disk.meter, write);
            }
        }
    };
    four(text, "volmgr_disk", "disk for this volume", &each);
}

/// Calls `write` for each feed with its labels.
fn each_feed(sample: &Sample, write: &mut dyn FnMut(&Labels<'_>, &FeedSample)) {
    for volume in &sample.volumes {
        for feed in &volume.feeds {
            let own = [
                ("peer", feed.peer.as_str()),
                ("direction", feed.direction.as_str()),
            ];
            write(&[&of(volume)[..], &own].concat(), feed);
        }
    }
}

fn feeds(sample: &Sample, text: &mut Text) {
    let mut family = text.family(
        "volmgr_feed_state",
        Kind::Gauge,
        "1 for the state that the feed is in, 0 for the others.",
    );
    each_feed(sample, &mut |labels, feed| {
        for state in FeedState::ALL {
            let state = crate::daemon::feeds::state_name(*state);
            let labels = [labels, &[("state", state)]].concat();
            family.line(&labels, u64::from(feed.state == state));
        }
    });
    let mut gauge = |name, help, value: &dyn Fn(&FeedSample) -> Option<u64>| {
        let mut family = text.family(name, Kind::Gauge, help);
        each_feed(sample, &mut |labels, feed| {
            if let Some(value) = value(feed) {
                family.line(labels, value);
            }
        });
    };
    gauge(
        "volmgr_feed_consistent",
        "1 where the receiving side is known to be a consistent copy.",
        &|feed| Some(u64::from(feed.consistent)),
    );
    gauge(
        "volmgr_feed_dirty_bytes",
        "Bytes that the other side is known to miss.",
        &|feed| Some(feed.dirty),
    );
    gauge(
        "volmgr_feed_lag_bytes",
        "Bytes that are not known to be durable at the receiving side; not for a feed that ended at a point.",
        &|feed| feed.lag_bytes,
    );
    gauge(
        "volmgr_feed_rate_bytes",
        "Bytes per second, over the last second.",
        &|feed| Some(feed.rate),
    );
    let mut family = text.family(
        "volmgr_feed_lag_seconds",
        Kind::Gauge,
        "Age of the oldest change that is not known to be durable at the receiving side, as far as this \
         daemon has seen.",
    );
    each_feed(sample, &mut |labels, feed| {
        if let Some(millis) = feed.lag_millis {
            family.millis(labels, millis);
        }
    });
    four(text, "volmgr_feed", "feed", &|write| {
        each_feed(sample, &mut |labels, feed| {
            for (kind, count) in [("live", &feed.live), ("copy", &feed.copy)] {
                write(&[labels, &[("kind", kind)]].concat(), count);
            }
        });
    });
}

fn moved(sample: &Sample, text: &mut Text) {
    let mut family = text.family(
        "volmgr_feed_payload_bytes_total",
        Kind::Counter,
        "Payload of the feed in bytes, by who touched it: the kernel alone, or the daemon, too.",
    );
    each_feed(sample, &mut |labels, feed| {
        for (path, bytes) in [("kernel", feed.kernel_bytes), ("copied", feed.copied_bytes)] {
            family.line(&[labels, &[("path", path)]].concat(), bytes);
        }
    });
    let mut counter = |name, help, value: &dyn Fn(&FeedSample) -> u64| {
        let mut family: Family<'_> = text.family(name, Kind::Counter, help);
        each_feed(sample, &mut |labels, feed| family.line(labels, value(feed)));
    };
    counter(
        "volmgr_feed_zero_bytes_total",
        "Zeroes of the feed in bytes that were named instead of moved.",
        &|feed| feed.zero_bytes,
    );
    counter(
        "volmgr_feed_frames_total",
        "Frames of the feed, of any kind.",
        &|feed| feed.frames,
    );
}

fn peers(node: &Node, text: &mut Text) {
    let Some(feeds) = node.feeds() else { return };
    let mut family = text.family(
        "volmgr_peer_connected",
        Kind::Gauge,
        "1 where a feed of this peer is connected.",
    );
    for peer in node.peers.all() {
        let connected = feeds.peer_state(&peer.name) == "connected";
        family.line(&[("peer", peer.name.as_str())], u64::from(connected));
    }
}
