//! Answers of the daemon.

use serde::{Deserialize, Serialize};

/// One line of the answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "reply")]
pub enum Reply {
    /// Something for the reader, on standard output.
    Message {
        /// One line or several.
        text: String,
    },
    /// Something to worry about, on standard error.
    Warning {
        /// One line.
        text: String,
    },
    /// How far long work is.
    Progress(Progress),
    /// A listing.
    Report {
        /// The rows' key in JSON: `pv`, `vg`, …
        key: String,
        /// The rows.
        rows: Vec<Row>,
    },
    /// Trees for the reader, on standard output.
    Tree {
        /// One below the other.
        roots: Vec<super::Branch>,
    },
    /// Numbers.
    Sample(super::Sample),
    /// A part of a listing that was asked for with [`super::Command::List`]: only the columns
    /// wanted, their names once.
    Table {
        /// The rows' key in JSON: `pv`, `vg`, …
        key: String,
        /// Names of the fields.
        columns: Vec<String>,
        /// A value for each column.
        rows: Vec<Vec<Value>>,
    },
    /// The command has ended well.
    Done,
    /// The command has ended badly.
    Failed(Failure),
}

/// How far long work is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// What is being done: `full-sync`, `resync`, `verify`.
    pub what: String,
    /// Bytes done.
    pub done: u64,
    /// Bytes to do.
    pub total: u64,
    /// Bytes per second now.
    pub rate: u64,
}

/// A row of a listing: field name to value, in the order of the fields' definition.
pub type Row = serde_json::Map<String, serde_json::Value>;

/// A value in a row. It travels as tagged JSON, and only the client decides how it looks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Value {
    /// Text as it is.
    Text(String),
    /// Bytes; shown in `--units`.
    Size(u64),
    /// Bytes per second; shown in `--units`.
    Rate(u64),
    /// A plain number.
    Number(u64),
    /// Percent with two decimals.
    Percent(f64),
    /// A duration in seconds.
    Seconds(u64),
    /// Seconds since 1970-01-01 UTC; shown as a local time with offset.
    Time(u64),
    /// Nothing to say; shown empty.
    Empty,
}

/// Why a command failed: the parts of the line that the client prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{object}: {what}: {why}")]
pub struct Failure {
    /// Exit code: 3 for a wrong command line, 5 for everything else.
    pub code: u8,
    /// The object: a path, `VG/LV`, a peer.
    pub object: String,
    /// What failed.
    pub what: String,
    /// Why.
    pub why: String,
    /// What to do next; may be empty.
    pub hint: String,
}
