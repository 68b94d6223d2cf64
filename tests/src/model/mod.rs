//! The smallest faithful model of a feed: two or three nodes, two regions, all that can happen, exhaustively.
//!
//! What decides is the product's own: `feedplex`'s sessions with their commits, the truth table behind
//! [`feedplex::session::decide`], and the daemon's record keeping. What is modelled is what surrounds them: a volume as
//! one value per region with a volatile cache, its dirty maps, one ordered and one unordered stream of data, a control
//! connection, clients, admins, cuts and power failures. Every order of these steps is tried, within a [`Budget`] of
//! those that do not come by themselves; every state that can be reached is checked:
//!
//! | invariant | what is checked |
//! | --- | --- |
//! | 6 | what is told consistent, and every point, is what some source had at one moment |
//! | 7 | were the connection cut now, every region that differs is in the maps which the verdict then uses; once a feed has been live, nothing leads to a full copy unless the admin agreed to lose what is at the sink |
//! | 9 | what a client wrote and only the sink has is overwritten with the admin's word alone; sides that both changed are refused |
//! | - | a session neither fails nor stops half way, and one that says `live` has equal sides once nothing is under way |
//!
//! | file | subject |
//! | --- | --- |
//! | `world` | a state, and what may happen in it |
//! | `session` | what a session's actions lead to |
//! | `check` | the invariants |
//! | `explore` | breadth first through all states; the way to one that is wrong |

mod check;
mod explore;
mod session;
mod world;

pub use explore::{Found, Outcome, explore, retell};
pub use world::{Budget, Setup, Step, World};
