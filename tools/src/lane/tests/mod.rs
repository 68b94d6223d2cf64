//! The lane on temporary files, driven by other people's NBD clients.

mod clients;
mod commands;
mod faults;
mod feeds;
mod rig;
