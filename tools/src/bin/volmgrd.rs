//! volmgrd
fn main() {}
