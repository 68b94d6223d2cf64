//! `top`: what is going on now, again and again. The daemon sends counters; what happened between two looks
//! is worked out here, so any number of watchers cost the daemon one answer each.

use super::args::{Global, ReportFormat, Top};
use super::client::{Client, interrupts};
use super::colour::Colours;
use super::failure::{EXIT_FAILED, EXIT_INTERRUPTED, failure};
use super::report::value::{Units, duration};
use super::run::{done_or, socket};
use super::tree::printable;
use crate::api::{
    Command, Failure, FeedSample, OpCount, Reply, Request, Sample, Tone, VolumeSample,
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::{Value, json};
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// Longest time that a look may take.
const LOOK_MAX: Duration = Duration::from_secs(30);
/// Lines of a terminal that does not say how many it has.
const LINES: usize = 24;
/// Home, and clear to the end of the screen.
const REDRAW: &str = "\x1b[H\x1b[2J";

/// Looks until it has looked often enough, or until Ctrl-C.
pub fn run(global: &Global, top: &Top) -> Result<(), Failure> {
    let path = socket(global);
    let json = top.json || global.reportformat == ReportFormat::Json;
    let screen = !json && io::stdout().is_terminal();
    let mut before = match look(&path, top) {
        Err(failed) if failed.code == EXIT_INTERRUPTED => return Ok(()),
        looked => looked?,
    };
    let mut looks = 0;
    loop {
        if !pause(top.interval)? {
            return Ok(());
        }
        let now = match look(&path, top) {
            Err(failed) if failed.code == EXIT_INTERRUPTED => return Ok(()),
            looked => looked?,
        };
        let text = if json {
            document(&before, &now).to_string() + "\n"
        } else {
            let lines = lines(&before, &now, Colours::of_stdout());
            let shown = if screen { height() } else { lines.len() };
            let cut = lines.len().saturating_sub(shown);
            let text = lines[..lines.len() - cut].join("\n");
            format!("{}{text}\n", if screen { REDRAW } else { "" })
        };
        let mut out = io::stdout().lock();
        if !done_or(out.write_all(text.as_bytes()).and_then(|()| out.flush()))? {
            return Ok(());
        }
        before = now;
        looks += 1;
        if top.count.is_some_and(|count| looks >= count) {
            return Ok(());
        }
    }
}

/// The counters now.
fn look(path: &Path, top: &Top) -> Result<Sample, Failure> {
    let request = Request {
        test: false,
        yes: false,
        command: Command::Sample {
            names: top.names.clone(),
        },
    };
    let mut client = Client::send(path, &request, Some(LOOK_MAX))?;
    let mut sample = None;
    loop {
        match client.next()? {
            Reply::Sample(numbers) => sample = Some(numbers),
            Reply::Failed(failed) => return Err(failed),
            Reply::Done => {
                return sample.ok_or_else(|| {
                    failure(EXIT_FAILED, "", "reply not understood", "no numbers", "")
                });
            }
            Reply::Message { .. }
            | Reply::Tree { .. }
            | Reply::Warning { .. }
            | Reply::Progress(_)
            | Reply::Report { .. }
            | Reply::Table { .. } => {}
        }
    }
}

/// Waits; `false` after Ctrl-C. It is blocked since the first look, so that it is noticed here.
fn pause(interval: Duration) -> Result<bool, Failure> {
    let cannot = |error: nix::Error| failure(EXIT_FAILED, "", "cannot wait", error, "");
    let interrupts = interrupts().map_err(cannot)?;
    let end = Instant::now() + interval;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(true);
        }
        let mut ready = [PollFd::new(interrupts.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX);
        match poll(&mut ready, timeout) {
            Ok(0) | Err(nix::Error::EINTR) => {}
            Ok(_) => return Ok(false),
            Err(error) => return Err(cannot(error)),
        }
    }
}

/// Lines that the terminal has room for.
fn height() -> usize {
    let rows = terminal_size::terminal_size().map(|(_, rows)| usize::from(rows.0));
    rows.unwrap_or(LINES).saturating_sub(1).max(4)
}

/// One volume between two looks.
struct Moved<'a> {
    volume: &'a VolumeSample,
    /// What clients and feeds did together.
    read: OpCount,
    write: OpCount,
    secs: f64,
}

impl Moved<'_> {
    fn per_second(&self, number: u64) -> u64 {
        (number as f64 / self.secs).round() as u64
    }
}

/// What happened to each volume, the busiest first.
fn moved<'a>(before: &'a Sample, now: &'a Sample) -> Vec<Moved<'a>> {
    let millis = now.time_millis.saturating_sub(before.time_millis);
    let secs = (millis as f64 / 1000.0).max(0.001);
    let mut all: Vec<Moved<'_>> = now
        .volumes
        .iter()
        .map(|volume| {
            let old = before
                .volumes
                .iter()
                .find(|old| (&old.vg, &old.lv) == (&volume.vg, &volume.lv));
            let (clients, fed) = match old {
                Some(old) => (
                    volume.clients.since(&old.clients),
                    volume.fed.since(&old.fed),
                ),
                None => (volume.clients.clone(), volume.fed.clone()),
            };
            Moved {
                volume,
                read: clients.op("read").plus(&fed.op("read")),
                write: clients.op("write").plus(&fed.op("write")),
                secs,
            }
        })
        .collect();
    all.sort_by(|a, b| {
        let busy = |moved: &Moved<'_>| moved.read.bytes.saturating_add(moved.write.bytes);
        let name = |moved: &Moved<'_>| (moved.volume.vg.clone(), moved.volume.lv.clone());
        busy(b).cmp(&busy(a)).then_with(|| name(a).cmp(&name(b)))
    });
    all
}

/// What happened between two looks, for people.
pub fn lines(before: &Sample, now: &Sample, colours: Colours) -> Vec<String> {
    let active = now.volumes.iter().filter(|volume| volume.active).count();
    let mut lines = vec![
        format!(
            "{}  node {}  {active} of {} volume(s) active",
            time_of(now.time_millis),
            printable(&now.node),
            now.volumes.len()
        ),
        format!(
            "{:<24} {:<9} {:>10} {:>10} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>6} {:>5}",
            "volume",
            "health",
            "read/s",
            "write/s",
            "r op/s",
            "w op/s",
            "r ms",
            "w ms",
            "r99 ms",
            "w99 ms",
            "queue",
            "open"
        ),
    ];
    for moved in moved(before, now) {
        let volume = moved.volume;
        let name = printable(&format!("{}/{}", volume.vg, volume.lv));
        let (tone, health) = health(volume);
        lines.push(format!(
            "{name:<24} {} {:>10} {:>10} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>6} {:>5}",
            colours.paint(tone, &printable(&format!("{health:<9}"))),
            size(moved.per_second(moved.read.bytes)),
            size(moved.per_second(moved.write.bytes)),
            moved.per_second(moved.read.ops),
            moved.per_second(moved.write.ops),
            millis(moved.read.mean_micros()),
            millis(moved.write.mean_micros()),
            millis(moved.read.quantile_micros(0.99)),
            millis(moved.write.quantile_micros(0.99)),
            volume.in_flight,
            volume.open,
        ));
        lines.extend(volume.feeds.iter().map(|feed| feed_line(feed, colours)));
    }
    lines
}

/// `ok`, or what is wrong.
fn health(volume: &VolumeSample) -> (Tone, &str) {
    match (volume.active, volume.answers, volume.health.as_str()) {
        (true, false, _) => (Tone::Bad, "stuck"),
        (false, _, "ok") => (Tone::Plain, "inactive"),
        (_, _, "ok") => (Tone::Good, "ok"),
        (_, _, "resync") => (Tone::Busy, "resync"),
        (_, _, other) => (Tone::Bad, other),
    }
}

fn feed_line(feed: &FeedSample, colours: Colours) -> String {
    let arrow = if feed.direction == "out" {
        "==>"
    } else {
        "<=="
    };
    let tone = match feed.state.as_str() {
        "live" | "split" => Tone::Good,
        "disconnected" | "refused" => Tone::Bad,
        _ => Tone::Busy,
    };
    let mut line = format!(
        "  {arrow} {} {}",
        printable(&feed.peer),
        colours.paint(tone, &printable(&feed.state))
    );
    if feed.dirty > 0 && feed.size > 0 {
        let missing = 100.0 * feed.dirty as f64 / feed.size as f64;
        line += &format!(
            "  {:.2} %, {} to go",
            100.0 - missing.min(100.0),
            size(feed.dirty)
        );
    }
    if feed.rate > 0 {
        line += &format!("  {}/s", size(feed.rate));
        if feed.dirty > 0 {
            line += &format!(", {} left", duration(feed.dirty.div_ceil(feed.rate)));
        }
    }
    if let (Some(bytes), Some(lag)) = (feed.lag_bytes, feed.lag_millis)
        && bytes > 0
    {
        line += &format!(
            "  lag {} {}.{:01} s",
            size(bytes),
            lag / 1000,
            lag % 1000 / 100
        );
    }
    if !feed.reason.is_empty() {
        line += &format!("  ({})", printable(&feed.reason));
    }
    line
}

fn size(bytes: u64) -> String {
    Units::default().format(bytes)
}

/// Milliseconds with two decimals; `-` where nothing was timed.
fn millis(micros: Option<u64>) -> String {
    micros.map_or("-".into(), |micros| {
        format!("{}.{:02}", micros / 1000, micros % 1000 / 10)
    })
}

fn time_of(millis: u64) -> String {
    let zone = jiff::tz::TimeZone::system();
    i64::try_from(millis)
        .ok()
        .and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok())
        .map_or_else(String::new, |time| {
            time.to_zoned(zone).strftime("%H:%M:%S").to_string()
        })
}

/// The same for programs: as listings are, all values strings, sizes in bytes, times in microseconds.
pub fn document(before: &Sample, now: &Sample) -> Value {
    let text = |number: u64| Value::String(number.to_string());
    let maybe = |number: Option<u64>| text_or_empty(number);
    let mut volumes = Vec::new();
    let mut feeds = Vec::new();
    for moved in moved(before, now) {
        let volume = moved.volume;
        volumes.push(json!({
            "vg_name": volume.vg, "lv_name": volume.lv,
            "lv_active": if volume.active { "active" } else { "" },
            "lv_health": health(volume).1,
            "lv_size": text(volume.size), "lv_open": text(volume.open),
            "read_bytes_per_second": text(moved.per_second(moved.read.bytes)),
            "write_bytes_per_second": text(moved.per_second(moved.write.bytes)),
            "reads_per_second": text(moved.per_second(moved.read.ops)),
            "writes_per_second": text(moved.per_second(moved.write.ops)),
            "read_latency_us": maybe(moved.read.mean_micros()),
            "write_latency_us": maybe(moved.write.mean_micros()),
            "read_latency_p99_us": maybe(moved.read.quantile_micros(0.99)),
            "write_latency_p99_us": maybe(moved.write.quantile_micros(0.99)),
            "errors": text(volume.clients.plus(&volume.fed).total().errors),
            "queue_depth": text(volume.in_flight),
        }));
        for feed in &volume.feeds {
            feeds.push(json!({
                "vg_name": volume.vg, "lv_name": volume.lv, "peer_name": feed.peer,
                "feed_direction": feed.direction, "feed_state": feed.state,
                "feed_dirty": text(feed.dirty), "feed_rate": text(feed.rate),
                "feed_lag_bytes": maybe(feed.lag_bytes),
                "feed_lag_ms": maybe(feed.lag_millis),
                "payload_kernel_bytes": text(feed.kernel_bytes),
                "payload_copied_bytes": text(feed.copied_bytes),
            }));
        }
    }
    json!({"report": [{"top": volumes, "feed": feeds}]})
}

fn text_or_empty(number: Option<u64>) -> Value {
    Value::String(number.map_or(String::new(), |number| number.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{BUCKETS_MICROS, Meter, OPS};

    fn meter(op: &str, ops: u64, bytes: u64) -> Meter {
        let mut by_op = vec![OpCount::default(); OPS.len()];
        let mut buckets = vec![0; BUCKETS_MICROS.len() + 1];
        buckets[3] = ops;
        by_op[OPS.iter().position(|known| *known == op).unwrap()] = OpCount {
            ops,
            bytes,
            nanos: ops * 400_000,
            buckets,
            ..OpCount::default()
        };
        Meter { by_op }
    }

    fn sample(time_millis: u64, ops: u64) -> Sample {
        let volume = |lv: &str, clients: Meter| VolumeSample {
            vg: "vg0".into(),
            lv: lv.into(),
            active: true,
            answers: true,
            health: "ok".into(),
            size: 1 << 30,
            open: 1,
            in_flight: 7,
            recovering: 0,
            clients,
            fed: Meter::default(),
            plexes: Vec::new(),
            disks: Vec::new(),
            feeds: Vec::new(),
        };
        let mut busy = volume("web", meter("write", ops, ops * 4096));
        busy.feeds.push(FeedSample {
            peer: "b".into(),
            direction: "out".into(),
            state: "resync".into(),
            dirty: 1 << 29,
            rate: 1 << 26,
            size: 1 << 30,
            lag_bytes: Some(1 << 29),
            lag_millis: Some(61_500),
            ..FeedSample::default()
        });
        Sample {
            time_millis,
            node: "a".into(),
            volumes: vec![volume("idle", Meter::default()), busy],
        }
    }

    #[test]
    fn what_is_shown_is_what_happened_between_two_looks() {
        let lines = lines(&sample(1_000, 1_000), &sample(3_000, 3_000), Colours::Off);
        assert!(lines[0].contains("node a  2 of 2 volume(s) active"));
        let words: Vec<&str> = lines[2].split_whitespace().collect();
        assert_eq!(
            words,
            [
                "vg0/web", "ok", "0", "3.91m", "0", "1000", "-", "0.40", "-", "0.50", "7", "1"
            ],
            "the busiest first"
        );
        assert_eq!(
            lines[3],
            "  ==> b resync  50.00 %, 512.00m to go  64.00m/s, 8s left  lag 512.00m 61.5 s"
        );
        assert!(lines[4].starts_with("vg0/idle"));
    }

    #[test]
    fn no_word_of_a_daemon_moves_the_cursor() {
        let mut now = sample(3_000, 3_000);
        let volume = &mut now.volumes[1];
        (volume.health, volume.lv) = ("\x1b[2J".into(), "a\nb".into());
        let feed = &mut volume.feeds[0];
        (feed.peer, feed.state, feed.reason) = ("\r".into(), "\x1b[H".into(), "\x07".into());
        for line in lines(&sample(1_000, 1_000), &now, Colours::Off) {
            assert!(!line.contains(char::is_control), "{line:?}");
        }
    }

    #[test]
    fn json_has_strings_only() {
        let document = document(&sample(1_000, 1_000), &sample(3_000, 3_000));
        let report = &document["report"][0];
        assert_eq!(report["top"][0]["writes_per_second"], "1000");
        assert_eq!(report["top"][0]["read_latency_us"], "");
        assert_eq!(report["top"][0]["write_latency_p99_us"], "500");
        assert_eq!(report["feed"][0]["feed_lag_ms"], "61500");
        for list in ["top", "feed"] {
            for row in report[list].as_array().unwrap() {
                assert!(row.as_object().unwrap().values().all(Value::is_string));
            }
        }
    }
}
