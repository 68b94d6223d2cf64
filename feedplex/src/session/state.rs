//! What a feed is doing, as both sides report it.
//!
//! ```text
//!                    +-----------------------------------------------+
//!                    v                                               |
//!   start ---> Connecting ---> FullSync --+                          |
//!                |  |  |  \                +--> Live ---> Split -----+
//!                |  |  |   +-> Resync ----+    |  ^                  |
//!                |  |  |          ^   ^        |  |                  |
//!                |  |  |          |   +--------+  | (repair)         |
//!                |  |  |          +-- Behind <----+                  |
//!                |  |  +--> Split (ended before the cut)             |
//!                |  +-----> Refused -------------------------------->+
//!                +--------> Paused  -------------------------------->+
//!
//!   FullSync, Resync and Live fall Behind; a full copy that fell behind goes on as FullSync.
//!   All but Split and Refused go to Disconnected when the connection ends, to Paused when the
//!   admin says so; Disconnected goes to Connecting. Refused may be paused, too.
//! ```

use crate::wire::codec::wire_enum;

wire_enum! {
    /// What a feed is doing.
    pub enum FeedState {
        /// Shaking hands.
        Connecting = 1,
        /// The first copy, or one that has to be complete.
        FullSync = 2,
        /// Copying what the maps say.
        Resync = 3,
        /// Every write goes over at once.
        Live = 4,
        /// Connected, but too slow: tracking only.
        Behind = 5,
        /// Not connected: tracking only.
        Disconnected = 6,
        /// The admin wants tracking only.
        Paused = 7,
        /// Ended in good order: the sink holds a named point in time.
        Split = 8,
        /// The admin has to decide something first.
        Refused = 9,
    }
}

impl FeedState {
    /// May a feed go from this state to that one?
    pub fn is_valid(from: Self, to: Self) -> bool {
        use FeedState::*;
        match from {
            Connecting => !matches!(to, Connecting | Live | Behind),
            FullSync => matches!(to, Live | Behind | Disconnected | Paused),
            Resync => matches!(to, Live | Behind | Disconnected | Paused),
            Live => matches!(to, Resync | Behind | Disconnected | Paused | Split),
            Behind => matches!(to, FullSync | Resync | Disconnected | Paused),
            Disconnected => matches!(to, Connecting | Paused),
            Paused => matches!(to, Connecting | Disconnected),
            Split => matches!(to, Connecting),
            Refused => matches!(to, Connecting | Paused),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use FeedState::*;

    /// Every pair, written out: a row per state, a letter per state in the order of `ALL`.
    #[test]
    fn every_pair() {
        let table = [
            //           C F R L B D P S X
            (Connecting, ".ff..ffff"),
            (FullSync, "...ffff.."),
            (Resync, "...ffff.."),
            (Live, "..f.ffff."),
            (Behind, ".ff..ff.."),
            (Disconnected, "f.....f.."),
            (Paused, "f....f..."),
            (Split, "f........"),
            (Refused, "f.....f.."),
        ];
        assert_eq!(table.len(), FeedState::ALL.len());
        for (from, row) in table {
            for (to, letter) in FeedState::ALL.iter().zip(row.chars()) {
                assert_eq!(
                    FeedState::is_valid(from, *to),
                    letter == 'f',
                    "{from:?} to {to:?}"
                );
            }
        }
    }
}
