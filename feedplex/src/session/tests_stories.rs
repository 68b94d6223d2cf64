//! A feed's life from attaching to swapping, gone through, and cut or crashed at each step.

use super::*;

/// Backup to a point, changes, again to a point, changes, restore of the second point, and back
/// again by a live swap. Returns the number of steps.
fn story(cut_at: usize, crash: bool) -> usize {
    let mut world = World::new(cut_at, crash);
    world.go_live();
    world.write(1, 11);
    world.detach(id(100));
    world.write(2, 22);
    world.nodes[0].record.intent = Intent::Attached;
    world.go_live();
    world.write(3, 33);
    world.detach(id(101));
    world.write(5, 55);
    world.swap_split(false);
    assert_eq!(world.nodes[0].data, world.marks[&id(101)], "restored");
    world.write(6, 66);
    assert_eq!(world.nodes[0].data, world.nodes[1].data);
    swap_live(&mut world);
    world.write(7, 77);
    assert_eq!(world.nodes[0].data, world.nodes[1].data);
    assert_eq!(world.nodes[1].data[7], 77);
    world.steps
}

/// Node 1 is the live source; the roles are exchanged without anything being thrown away.
fn swap_live(world: &mut World) {
    for round in 0..4 {
        world.go_live();
        if world.nodes[0].record.role == Role::Source {
            return;
        }
        let event = Event::Swap {
            point: id(200 + round),
            name: "failback".into(),
            time: 6,
        };
        world.event(1, event);
        world.pump();
        if world.closed.contains(&CloseReason::Swapped) {
            world.disconnect();
        }
    }
    panic!("never swapped back");
}

/// Backup to a point, changes on both sides, and an online restore that is used at once; then the
/// roles are exchanged again. Returns the number of steps.
fn online_story(cut_at: usize, crash: bool) -> usize {
    let mut world = World::new(cut_at, crash);
    world.go_live();
    world.detach(id(100));
    world.write(3, 33);
    world.write(4, 44);
    world.nodes[1].data[2] = 22;
    world.nodes[1].map[2] = true;
    let mut wanted = world.nodes[1].data;
    world.client = Some((3, 34));
    wanted[3] = 34;
    world.swap_split(true);
    assert_eq!(world.client, None, "used while it was restored");
    assert_eq!(world.nodes[0].data, wanted, "restored");
    assert_eq!(world.nodes[0].missing, Some([false; REGIONS]));
    world.nodes[0].data[6] = 66;
    world.nodes[0].map[6] = true;
    wanted[6] = 66;
    swap_live(&mut world);
    assert_eq!(world.nodes[0].data, wanted);
    assert_eq!(
        world.nodes[1].data, wanted,
        "what was written here went back"
    );
    assert!(!world.nodes[0].giving && !world.nodes[1].giving);
    world.steps
}

#[test]
fn an_online_restore_goes_well() {
    assert!(online_story(usize::MAX, false) > 60);
}

#[test]
fn an_online_restore_that_is_cut_at_any_step_converges() {
    let steps = online_story(usize::MAX, false);
    for cut_at in 0..steps {
        online_story(cut_at, false);
        online_story(cut_at, true);
    }
}

#[test]
fn the_story_goes_well() {
    assert!(story(usize::MAX, false) > 100);
}

#[test]
fn a_cut_at_any_step_converges() {
    let steps = story(usize::MAX, false);
    for cut_at in 0..steps {
        story(cut_at, false);
    }
}

#[test]
fn a_crash_at_any_step_converges() {
    let steps = story(usize::MAX, false);
    for cut_at in 0..steps {
        story(cut_at, true);
    }
}
