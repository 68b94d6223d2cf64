//! Prometheus' text format, version 0.0.4.

use crate::api::{BUCKETS_MICROS, OpCount};
use std::fmt::Write;

/// What a family of metrics is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, but for a new beginning at 0.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by size.
    Histogram,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Names and values of labels.
pub type Labels<'a> = [(&'a str, &'a str)];

/// The text as it grows. All lines of a family must be written one after the other.
#[derive(Debug, Default)]
pub struct Text(String);

impl Text {
    /// Begins a family.
    pub fn family(&mut self, name: &str, kind: Kind, help: &str) -> Family<'_> {
        // Writing to a string does not fail.
        let _ = writeln!(
            self.0,
            "# HELP {name} {help}\n# TYPE {name} {}",
            kind.name()
        );
        Family {
            text: &mut self.0,
            name: name.to_owned(),
        }
    }

    /// The whole text.
    pub fn into_string(self) -> String {
        self.0
    }
}

/// A family of metrics that is being written.
#[derive(Debug)]
pub struct Family<'a> {
    text: &'a mut String,
    name: String,
}

impl Family<'_> {
    /// A whole number.
    pub fn line(&mut self, labels: &Labels<'_>, value: u64) {
        self.raw("", labels, &value.to_string());
    }

    /// A number of seconds, given in milliseconds.
    pub fn millis(&mut self, labels: &Labels<'_>, millis: u64) {
        let value = format!("{}.{:03}", millis / 1000, millis % 1000);
        self.raw("", labels, &value);
    }

    /// A histogram of latencies in seconds.
    pub fn latency(&mut self, labels: &Labels<'_>, count: &OpCount) {
        let mut all = 0;
        for (at, bound) in BUCKETS_MICROS.iter().enumerate() {
            all += count.buckets.get(at).copied().unwrap_or(0);
            let bound = (*bound as f64 / 1e6).to_string();
            let labels = [labels, &[("le", bound.as_str())]].concat();
            self.raw("_bucket", &labels, &all.to_string());
        }
        let timed = count.timed().to_string();
        self.raw("_bucket", &[labels, &[("le", "+Inf")]].concat(), &timed);
        self.raw("_sum", labels, &(count.nanos as f64 / 1e9).to_string());
        self.raw("_count", labels, &timed);
    }

    fn raw(&mut self, suffix: &str, labels: &Labels<'_>, value: &str) {
        let text = &mut *self.text;
        text.push_str(&self.name);
        text.push_str(suffix);
        if !labels.is_empty() {
            text.push('{');
            for (at, (name, value)) in labels.iter().enumerate() {
                if at > 0 {
                    text.push(',');
                }
                text.push_str(name);
                text.push_str("=\"");
                escape(text, value);
                text.push('"');
            }
            text.push('}');
        }
        text.push(' ');
        text.push_str(value);
        text.push('\n');
    }
}

/// Values may be paths: with anything in them.
fn escape(text: &mut String, value: &str) {
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            c => text.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_labels_are_escaped() {
        let mut text = Text::default();
        text.family("f", Kind::Gauge, "Help.")
            .line(&[("pv", "/a \"b\"\\\n")], 1);
        assert_eq!(
            text.into_string(),
            "# HELP f Help.\n# TYPE f gauge\nf{pv=\"/a \\\"b\\\"\\\\\\n\"} 1\n"
        );
    }

    #[test]
    fn buckets_are_cumulative_and_end_with_all() {
        let mut buckets = vec![0; BUCKETS_MICROS.len() + 1];
        (buckets[0], buckets[2], buckets[15]) = (3, 2, 1);
        let count = OpCount {
            nanos: 1_500_000_000,
            buckets,
            ..OpCount::default()
        };
        let mut text = Text::default();
        text.family("l", Kind::Histogram, "L.").latency(&[], &count);
        let text = text.into_string();
        for line in [
            "l_bucket{le=\"0.00005\"} 3",
            "l_bucket{le=\"0.00025\"} 5",
            "l_bucket{le=\"10\"} 5",
            "l_bucket{le=\"+Inf\"} 6",
            "l_sum 1.5",
            "l_count 6",
        ] {
            assert!(text.lines().any(|is| is == line), "{line} not in {text}");
        }
    }

    #[test]
    fn milliseconds_are_written_as_seconds() {
        let mut text = Text::default();
        text.family("t", Kind::Gauge, "T.").millis(&[], 61_005);
        assert!(text.into_string().ends_with("\nt 61.005\n"));
    }
}
