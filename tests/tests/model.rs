//! The model of feeds, looked at whole: `tests/src/model`.

use volmgr_tests::model::{Budget, Setup, explore, retell};

/// No search needs more; one that does is no search of everything.
const STATES_MAX: usize = 3_000_000;

/// Looks at everything, and fails where something is wrong.
fn run(name: &str, setup: &Setup) {
    let began = std::time::Instant::now();
    let outcome = explore(setup, STATES_MAX);
    println!(
        "{name}: {} states, {} steps, depth {}, {} at rest, {:.1} s{}",
        outcome.states,
        outcome.steps,
        outcome.depth,
        outcome.at_rest,
        began.elapsed().as_secs_f64(),
        if outcome.cut_short { ", cut short" } else { "" }
    );
    if let Some(wrong) = &outcome.wrong {
        panic!("{name}: {}\n{}", wrong.what, retell(setup, &wrong.way));
    }
    assert!(!outcome.cut_short, "{name}: not everything was looked at");
}

/// Budgets of writes, cuts, power failures, admins' words, connections: all states of each are looked at.
const TWO: [(&str, [u8; 5]); 4] = [
    ("a first copy that is cut", [1, 1, 0, 1, 2]),
    ("a first copy and a power failure", [1, 0, 1, 1, 2]),
    ("attach, detach, attach or swap", [1, 0, 0, 3, 2]),
    ("a swap that is cut", [0, 1, 0, 2, 3]),
];

fn two(held: bool, foreign: bool, [writes, cuts, crashes, admin, connections]: [u8; 5]) -> Setup {
    Setup {
        nodes: 2,
        feeds: vec![(0, 1)],
        foreign,
        held,
        budget: Budget {
            writes,
            cuts,
            crashes,
            admin,
            connections,
        },
    }
}

#[test]
fn two_nodes() {
    for (name, limits) in TWO {
        run(name, &two(true, false, limits));
    }
    run("foreign content", &two(true, true, [1, 1, 0, 2, 2]));
}

/// More of each; `make model`.
#[test]
#[ignore = "minutes"]
fn two_nodes_and_more() {
    for limits in [
        [1, 0, 1, 2, 2],
        [1, 1, 0, 3, 3],
        [2, 1, 0, 2, 3],
        [1, 1, 1, 2, 3],
    ] {
        run(&format!("{limits:?}"), &two(true, false, limits));
    }
}

/// The model can tell: a client that gets in between the look at a volume and the commit that makes it a sink
/// loses what it writes.
#[test]
fn what_is_not_held_is_lost() {
    let outcome = explore(&two(false, false, [1, 0, 0, 1, 1]), STATES_MAX);
    let wrong = outcome.wrong.expect("the model does not notice");
    assert!(wrong.what.contains("is overwritten"), "{}", wrong.what);
}
