//! Progress of long work: a bar on a terminal, elsewhere a line at the start and one at the end.

use super::failure::one_line;
use super::report::value::{Units, duration};
use crate::api::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::time::Instant;

/// Shows progress on standard error.
#[derive(Debug)]
pub struct Shown {
    style: Style,
    current: Option<Current>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Nothing,
    Lines,
    Bar,
}

#[derive(Debug)]
struct Current {
    what: String,
    done: u64,
    started: Instant,
    bar: Option<ProgressBar>,
}

impl Shown {
    /// Nothing when quiet, a bar on a terminal, else lines.
    pub fn new(quiet: bool, terminal: bool) -> Self {
        let style = match (quiet, terminal) {
            (true, _) => Style::Nothing,
            (false, true) => Style::Bar,
            (false, false) => Style::Lines,
        };
        Shown {
            style,
            current: None,
        }
    }

    /// The daemon says how far it is; returns a line to print, if one is due.
    pub fn update(&mut self, progress: &Progress) -> Vec<String> {
        let mut lines = Vec::new();
        if self.style == Style::Nothing {
            return lines;
        }
        let what = one_line(&progress.what);
        if self
            .current
            .as_ref()
            .is_none_or(|current| current.what != what)
        {
            lines.extend(self.finish(true));
            if self.style == Style::Lines {
                lines.push(format!("{what}: {} to do", size(progress.total)));
            }
            self.current = Some(Current {
                bar: (self.style == Style::Bar).then(|| new_bar(&what)),
                done: 0,
                started: Instant::now(),
                what,
            });
        }
        if let Some(current) = &mut self.current {
            current.done = progress.done;
            if let Some(bar) = &current.bar {
                bar.set_length(progress.total);
                bar.set_message(rate_and_eta(progress));
                bar.set_position(progress.done.min(progress.total));
            }
        }
        lines
    }

    /// The work has ended; returns the line for it, if one is due.
    pub fn finish(&mut self, well: bool) -> Option<String> {
        let current = self.current.take()?;
        if let Some(bar) = &current.bar {
            bar.abandon();
        }
        let took = current.started.elapsed().as_secs();
        let how = if well { "done" } else { "ended early" };
        (self.style == Style::Lines).then(|| {
            let done = size(current.done);
            format!("{}: {how}, {done} in {}", current.what, duration(took))
        })
    }

    /// Runs something that writes to the terminal without tearing the bar.
    pub fn aside<R>(&self, write: impl FnOnce() -> R) -> R {
        match self
            .current
            .as_ref()
            .and_then(|current| current.bar.as_ref())
        {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }
}

fn new_bar(what: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    // The template is a constant that a test parses; without it the bar would only be plainer.
    if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
        bar.set_style(style);
    }
    bar.set_prefix(what.to_owned());
    bar
}

const TEMPLATE: &str = "{prefix} [{bar:30}] {percent:>3}% {msg}";

/// `3.00g of 10.00g, 512.00m/s, 14s left`; the daemon measures the rate, so that a client which
/// comes late knows it, too.
fn rate_and_eta(progress: &Progress) -> String {
    let left = progress.total.saturating_sub(progress.done);
    let eta = match left.checked_div(progress.rate) {
        Some(seconds) => format!(", {}/s, {} left", size(progress.rate), duration(seconds)),
        None => ", stalled".to_owned(),
    };
    format!("{} of {}{eta}", size(progress.done), size(progress.total))
}

fn size(bytes: u64) -> String {
    Units::default().format(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(what: &str, done: u64) -> Progress {
        Progress {
            what: what.into(),
            done,
            total: 10 << 30,
            rate: 512 << 20,
        }
    }

    #[test]
    fn a_line_at_start_and_end_of_each_kind_of_work() {
        let mut shown = Shown::new(false, false);
        assert_eq!(
            shown.update(&progress("resync", 0)),
            ["resync: 10.00g to do"]
        );
        assert!(shown.update(&progress("resync", 1 << 30)).is_empty());
        let lines = shown.update(&progress("verify", 0));
        assert_eq!(lines, ["resync: done, 1.00g in 0s", "verify: 10.00g to do"]);
        assert_eq!(shown.finish(false).unwrap(), "verify: ended early, 0 in 0s");
        assert_eq!(shown.finish(true), None);
    }

    #[test]
    fn quiet_is_quiet() {
        let mut shown = Shown::new(true, true);
        assert!(shown.update(&progress("resync", 0)).is_empty());
        assert_eq!(shown.finish(true), None);
    }

    #[test]
    fn the_bar_says_rate_and_time_left() {
        assert!(ProgressStyle::with_template(TEMPLATE).is_ok());
        let text = rate_and_eta(&progress("resync", 3 << 30));
        assert_eq!(text, "3.00g of 10.00g, 512.00m/s, 14s left");
        let stalled = Progress {
            rate: 0,
            ..progress("resync", 0)
        };
        assert_eq!(rate_and_eta(&stalled), "0 of 10.00g, stalled");
    }
}
