//! ublk-driver
