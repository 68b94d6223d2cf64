//! A queue bounded by cost, which can be closed from any side.

use super::{SendError, lock};
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

/// What came out of [`Queue::pop`].
pub(super) enum Popped<T> {
    /// Items in order, and their cost; the cost counts until it is released.
    Items(Vec<T>, u64),
    /// Nothing came in time.
    Idle,
    /// The queue is closed.
    Closed,
}

/// Items from many threads for one.
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    wake: Condvar,
    cost_max: u64,
}

struct State<T> {
    items: VecDeque<(T, u64)>,
    /// Of the items here and of those popped and not released.
    cost: u64,
    closed: bool,
    /// The one who takes items sleeps, and nobody has woken it: to wake one who does not is a system call, too.
    asleep: bool,
}

impl<T> Queue<T> {
    pub(super) fn new(cost_max: u64) -> Self {
        Self {
            state: Mutex::new(State {
                items: VecDeque::new(),
                cost: 0,
                closed: false,
                asleep: false,
            }),
            wake: Condvar::new(),
            cost_max,
        }
    }

    /// Appends what `make` returns. `make` runs only if there is room, and under the queue's lock,
    /// so numbers it gives out are in the queue's order. A lone item is taken whatever it costs.
    pub(super) fn push_with<R>(
        &self,
        cost: u64,
        make: impl FnOnce() -> Result<(T, R), SendError>,
    ) -> Result<R, SendError> {
        let mut state = lock(&self.state);
        if state.closed {
            return Err(SendError::Closed);
        }
        if state.cost > 0 && state.cost.saturating_add(cost) > self.cost_max {
            return Err(SendError::Congested);
        }
        let (item, answer) = make()?;
        state.items.push_back((item, cost));
        state.cost = state.cost.saturating_add(cost);
        let asleep = std::mem::take(&mut state.asleep);
        drop(state);
        if asleep {
            self.wake.notify_one();
        }
        Ok(answer)
    }

    /// Takes items: at least one, at most `items_max`, and no more after `cost_max` is reached.
    /// Waits for the first one at most `patience`. One thread at a time may do this.
    pub(super) fn pop(&self, items_max: usize, cost_max: u64, patience: Duration) -> Popped<T> {
        let mut state = lock(&self.state);
        let began = Instant::now();
        while state.items.is_empty() && !state.closed {
            let left = patience.saturating_sub(began.elapsed());
            if left.is_zero() {
                break;
            }
            state.asleep = true;
            (state, _) = self
                .wake
                .wait_timeout(state, left)
                .unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        state.asleep = false;
        if state.closed {
            return Popped::Closed;
        }
        let mut items = Vec::new();
        let mut cost = 0u64;
        while items.len() < items_max && cost < cost_max {
            let Some((item, item_cost)) = state.items.pop_front() else {
                break;
            };
            items.push(item);
            cost = cost.saturating_add(item_cost);
        }
        if items.is_empty() {
            Popped::Idle
        } else {
            Popped::Items(items, cost)
        }
    }

    /// The popped items of this cost are gone.
    pub(super) fn release(&self, cost: u64) {
        let mut state = lock(&self.state);
        state.cost = state.cost.saturating_sub(cost);
    }

    /// Is it closed?
    pub(super) fn is_closed(&self) -> bool {
        lock(&self.state).closed
    }

    /// The cost of what is queued and not released.
    pub(super) fn cost(&self) -> u64 {
        lock(&self.state).cost
    }

    /// Nothing goes in or comes out any more. What is in there is dropped.
    pub(super) fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        let items = std::mem::take(&mut state.items);
        drop(state);
        // Outside the lock: dropping a payload may call into the front end.
        drop(items);
        self.wake.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(queue: &Queue<u32>, item: u32, cost: u64) -> Result<(), SendError> {
        queue.push_with(cost, || Ok((item, ())))
    }

    #[test]
    fn bounded_until_released() {
        let queue = Queue::new(10);
        assert_eq!(push(&queue, 1, 50), Ok(()), "a lone item is taken");
        assert_eq!(push(&queue, 2, 1), Err(SendError::Congested));
        let Popped::Items(items, cost) = queue.pop(8, 100, Duration::ZERO) else {
            panic!("an item is there");
        };
        assert_eq!((items, cost), (vec![1], 50));
        assert_eq!(push(&queue, 2, 1), Err(SendError::Congested), "in flight");
        queue.release(cost);
        assert_eq!(push(&queue, 2, 10), Ok(()));
        assert_eq!(queue.cost(), 10);
    }

    #[test]
    fn closing_wakes_and_refuses() {
        let queue = Queue::new(10);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| queue.pop(1, 1, Duration::from_secs(60)));
            queue.close();
            assert!(matches!(waiting.join().unwrap(), Popped::Closed));
        });
        assert_eq!(push(&queue, 1, 1), Err(SendError::Closed));
    }

    #[test]
    fn whoever_sleeps_is_woken() {
        let queue = Queue::new(u64::MAX);
        const ITEMS: u32 = 20_000;
        std::thread::scope(|scope| {
            let taker = scope.spawn(|| {
                let mut next = 0;
                while next < ITEMS {
                    match queue.pop(8, u64::MAX, Duration::from_secs(60)) {
                        Popped::Items(items, cost) => {
                            for item in items {
                                assert_eq!(item, next);
                                next += 1;
                            }
                            queue.release(cost);
                        }
                        _ => panic!("slept through {next}"),
                    }
                }
            });
            for item in 0..ITEMS {
                push(&queue, item, 1).unwrap();
                // So that the other side falls asleep at all sorts of moments.
                (0..item % 97).for_each(|_| std::hint::spin_loop());
            }
            taker.join().unwrap();
        });
    }

    #[test]
    fn an_empty_queue_is_idle() {
        let queue = Queue::<u32>::new(1);
        assert!(matches!(
            queue.pop(1, 1, Duration::from_millis(1)),
            Popped::Idle
        ));
    }
}
