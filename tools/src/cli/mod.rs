//! `volmgr`, the tool: parses the command line, asks the daemon, shows what it says.
//!
//! | part | does |
//! | --- | --- |
//! | `args` | verbs and options, their help and examples; turns them into [`crate::api::Command`]s |
//! | `size` | sizes as LVM takes them |
//! | `client` | the connection to the daemon |
//! | `report` | listings: fields, selection, order, units, columns, JSON |
//! | `progress` | bars and lines about long work |
//! | `tree`, `colour` | `lvdisplay` and `status` |
//! | `reference` | `docs/reference.md`, made from all these definitions |
//! | `top` | what is going on now, again and again |
//! | `pvck` | a look at a disk, without a daemon |
//! | `failure` | exit codes, and the one line that says what went wrong |
//! | `run` | what a command line leads to, from start to exit code |

pub mod args;
mod client;
pub mod colour;
mod complete;
pub mod failure;
mod pages;
mod progress;
mod pvck;
mod reference;
pub mod report;
mod run;
pub mod size;
mod tags;
pub mod top;
pub mod tree;

pub use run::main;
