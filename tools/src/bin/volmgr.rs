//! volmgr
fn main() {}
