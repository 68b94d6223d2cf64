//! The life of a feed's control connection.

mod state;

pub use state::FeedState;
