//! Breadth first through all states, so that the way to one that is wrong is a shortest one.

use super::world::{Setup, Step, World};
use std::collections::hash_map::DefaultHasher;
use std::collections::{HashSet, VecDeque};
use std::fmt::{Debug, Write};
use std::hash::{Hash, Hasher};

/// What a search has found.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// States that differ.
    pub states: usize,
    /// Steps from one to another.
    pub steps: usize,
    /// The longest way, in steps.
    pub depth: usize,
    /// States in which nothing more comes by itself.
    pub at_rest: usize,
    /// The search ended before there was nothing left to be seen.
    pub cut_short: bool,
    /// The first state that is wrong.
    pub wrong: Option<Found>,
}

/// A state that is wrong.
#[derive(Clone, Debug)]
pub struct Found {
    /// What is wrong.
    pub what: String,
    /// The steps to it.
    pub way: Vec<Step>,
}

fn hash(world: &World) -> u64 {
    let mut hasher = DefaultHasher::new();
    world.hash(&mut hasher);
    hasher.finish()
}

/// Where a state was reached from, and by what.
struct Origin {
    from: u32,
    step: Option<Step>,
}

fn way(origins: &[Origin], mut at: usize, last: Step) -> Vec<Step> {
    let mut way = vec![last];
    while let Some(step) = origins[at].step {
        way.push(step);
        at = origins[at].from as usize;
    }
    way.reverse();
    way
}

/// Looks at every state that can be reached, or at the first `most`.
pub fn explore(setup: &Setup, most: usize) -> Outcome {
    let first = World::new(setup);
    let mut outcome = Outcome {
        states: 1,
        steps: 0,
        depth: 0,
        at_rest: 0,
        cut_short: false,
        wrong: None,
    };
    let mut seen = HashSet::from([hash(&first)]);
    let mut origins = vec![Origin {
        from: 0,
        step: None,
    }];
    let mut queue = VecDeque::from([(0usize, 0usize, first)]);
    while let Some((at, depth, world)) = queue.pop_front() {
        outcome.depth = depth;
        let mut steps = world.own_steps();
        if steps.is_empty() {
            outcome.at_rest += 1;
        }
        let quiet = steps.is_empty();
        steps.extend(world.other_steps());
        for step in steps {
            let mut next = world.clone();
            outcome.steps += 1;
            let taken = next.take(step).and_then(|()| next.check());
            let taken = taken.and_then(|()| match next.own_steps().is_empty() {
                true => next.at_rest(),
                false => Ok(()),
            });
            if let Err(what) = taken {
                let way = way(&origins, at, step);
                outcome.wrong = Some(Found { what, way });
                return outcome;
            }
            if !seen.insert(hash(&next)) {
                continue;
            }
            outcome.states += 1;
            if outcome.states >= most {
                outcome.cut_short = true;
                return outcome;
            }
            origins.push(Origin {
                from: u32::try_from(at).expect("fewer states than that"),
                step: Some(step),
            });
            queue.push_back((origins.len() - 1, depth + 1, next));
        }
        debug_assert!(!quiet || world.at_rest().is_ok());
    }
    outcome
}

/// The way to a state, with what it was like on the way.
pub fn retell(setup: &Setup, way: &[Step]) -> String {
    let mut world = World::new(setup);
    let mut out = String::new();
    let line = |out: &mut String, text: &dyn Debug, world: &World| {
        let values: Vec<_> = world.nodes.iter().map(|n| (n.data, n.durable)).collect();
        let maps: Vec<_> = world.links.iter().map(|l| l.maps).collect();
        let states: Vec<_> = world
            .links
            .iter()
            .map(|l| {
                l.conn
                    .as_ref()
                    .map(|c| [0, 1].map(|s: usize| c.sides[s].session.0.state()))
            })
            .collect();
        writeln!(
            out,
            "{text:?}\n    data {values:?} maps {maps:?} {states:?}"
        )
        .expect("writing to a String cannot fail");
    };
    line(&mut out, &"start", &world);
    for step in way {
        if let Step::Deliver(link, side) = step
            && let Some(conn) = &world.links[*link].conn
            && let Some(message) = conn.sides[*side].inbox.front()
        {
            writeln!(out, "  {:?}", message.0).expect("writing to a String cannot fail");
        }
        let taken = world.take(*step);
        line(&mut out, step, &world);
        if let Err(what) = taken {
            writeln!(out, "{what}").expect("writing to a String cannot fail");
        }
    }
    out
}
