//! The programs: `volmgr`, the tool, and `volmgrd`, the daemon, which wires all parts together.

pub mod api;
pub mod cli;
pub mod daemon;
pub mod lane;
pub mod paths;
