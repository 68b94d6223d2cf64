//! From a failing run to a short one.

use super::world::{Totals, World};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Once;

thread_local! {
    /// Panics of this thread are results, not news.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Steps of a run.
pub const STEPS: u32 = 1500;

/// How a run went.
pub struct Outcome {
    /// Why it failed.
    pub failure: Option<String>,
    /// What happened, where asked for.
    pub trace: Vec<String>,
    /// Counters.
    pub totals: Totals,
}

fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                before(info);
            }
        }));
    });
}

/// Drops what holds requests that nobody will complete any more, as they went down with their daemon. A ticket lets that
/// pass only while its thread unwinds; to forget it all would cost megabytes for each seed.
pub(super) fn abandon<T>(value: T) {
    let _: std::thread::Result<()> = catch_unwind(AssertUnwindSafe(move || {
        let _dies = value;
        resume_unwind(Box::new(()))
    }));
}

/// Runs these steps of a seed, then heals everything and compares.
pub fn run(seed: u64, steps: &[u32], trace: bool) -> Outcome {
    install();
    QUIET.set(true);
    let mut world = None;
    let result = catch_unwind(AssertUnwindSafe(|| {
        let world = world.insert(World::new(seed, trace));
        world.run(steps.iter().copied());
        world.rest();
    }));
    QUIET.set(false);
    let failure = result.err().map(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        text.unwrap_or_else(|| "a panic without words".into())
    });
    let (trace, totals) = match &mut world {
        Some(world) => (world.trace.take().unwrap_or_default(), world.totals),
        None => (Vec::new(), Totals::default()),
    };
    abandon(world);
    Outcome {
        failure,
        trace,
        totals,
    }
}

/// What kind of failure it is: its first words, without numbers.
fn kind(failure: &str) -> String {
    let line = failure.lines().next().unwrap_or_default();
    let words = line.chars().filter(|c| !c.is_ascii_digit());
    words.take(40).collect()
}

/// Drops steps for as long as the run still fails in the same way; at most `tries` runs.
pub fn shrink(seed: u64, steps: &[u32], failure: &str, tries: usize) -> Vec<u32> {
    let wanted = kind(failure);
    let fails = |steps: &[u32]| {
        run(seed, steps, false)
            .failure
            .is_some_and(|failure| kind(&failure) == wanted)
    };
    let mut kept = steps.to_vec();
    let mut chunk = kept.len().div_ceil(2);
    let mut left = tries;
    while chunk > 0 {
        let mut at = 0;
        let mut dropped = false;
        while at < kept.len() && left > 0 {
            let end = (at + chunk).min(kept.len());
            let shorter: Vec<u32> = kept[..at].iter().chain(&kept[end..]).copied().collect();
            left -= 1;
            if fails(&shorter) {
                kept = shorter;
                dropped = true;
            } else {
                at = end;
            }
        }
        if left == 0 {
            break;
        }
        chunk = match (chunk, dropped) {
            (1, true) => 1,
            (n, _) => n / 2,
        };
    }
    kept
}
