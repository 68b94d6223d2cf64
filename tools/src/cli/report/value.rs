//! How one value looks: units, rates, durations, times; and how two values compare.

use crate::api::{Row, Value};
use crate::cli::size::unit_bytes;
use std::borrow::Cow;
use std::cmp::Ordering;

/// `--units` and `--nosuffix`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Units {
    /// A unit's letter; `h` and `H` choose one for each value.
    pub letter: char,
    /// Write the letter behind the number; also `/s` behind rates.
    pub suffix: bool,
}

impl Default for Units {
    fn default() -> Self {
        Units {
            letter: 'h',
            suffix: true,
        }
    }
}

/// The letters that `--units` takes.
pub const UNIT_LETTERS: &str = "hHbBsSkKmMgGtTpPeE";

impl Units {
    /// Bytes in these units: `1.00g`.
    pub fn format(self, bytes: u64) -> String {
        let letter = match self.letter {
            'h' => human_letter(bytes, "kmgtpe"),
            'H' => human_letter(bytes, "KMGTPE"),
            letter => letter,
        };
        let unit = unit_bytes(letter).unwrap_or(1);
        let mut text = match letter {
            _ if bytes == 0 => "0".to_owned(),
            'b' | 'B' | 's' | 'S' => (bytes / unit).to_string(),
            _ => two_decimals(bytes, unit),
        };
        // LVM writes these two in upper case, so that they are not taken for something else.
        let suffix = match letter {
            'b' | 's' => letter.to_ascii_uppercase(),
            _ => letter,
        };
        if self.suffix && !(bytes == 0 && matches!(self.letter, 'h' | 'H')) {
            text.push(suffix);
        }
        text
    }
}

/// The largest unit of which there is at least one; bytes for what is less than any.
fn human_letter(bytes: u64, letters: &str) -> char {
    letters
        .chars()
        .rev()
        .find(|letter| unit_bytes(*letter).is_some_and(|unit| bytes >= unit))
        .unwrap_or('b')
}

/// `bytes / unit`, rounded to two decimals, exactly.
fn two_decimals(bytes: u64, unit: u64) -> String {
    let (bytes, unit) = (u128::from(bytes), u128::from(unit));
    let hundredths = (bytes * 100 + unit / 2) / unit;
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

/// The value of a field in a row. What is not there is [`Value::Empty`]; what a daemon of another
/// version sends in another form is shown as its JSON, rather than not at all.
pub fn of_row(row: &Row, field: &str) -> Value {
    match row.get(field) {
        None | Some(serde_json::Value::Null) => Value::Empty,
        Some(json) => serde_json::from_value(json.clone()).unwrap_or_else(|_| match json {
            serde_json::Value::String(text) => Value::Text(text.clone()),
            other => Value::Text(other.to_string()),
        }),
    }
}

/// The value as text.
pub fn format(value: &Value, units: Units) -> String {
    shown(value, units).into_owned()
}

/// The value as text, which is not copied where there is one already.
pub fn shown(value: &Value, units: Units) -> Cow<'_, str> {
    let text = match value {
        Value::Text(text) => return Cow::Borrowed(text),
        Value::Empty => return Cow::Borrowed(""),
        Value::Size(bytes) => units.format(*bytes),
        Value::Rate(bytes) if units.suffix => format!("{}/s", units.format(*bytes)),
        Value::Rate(bytes) => units.format(*bytes),
        Value::Number(number) => number.to_string(),
        Value::Percent(percent) => format!("{percent:.2}"),
        Value::Seconds(seconds) if units.suffix => duration(*seconds),
        Value::Seconds(seconds) => seconds.to_string(),
        Value::Time(seconds) => local_time(*seconds),
    };
    Cow::Owned(text)
}

/// A duration: `45s`, `3m20s`, `2h05m`, `3d04h`.
pub fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m{:02}s", seconds % 60),
        3600..86400 => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

/// A time as LVM writes it: `2026-11-21 09:14:43 +0000`, in the zone of whoever reads it.
fn local_time(seconds: u64) -> String {
    let zone = jiff::tz::TimeZone::system();
    i64::try_from(seconds)
        .ok()
        .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok())
        .map_or_else(
            || format!("@{seconds}"),
            |time| {
                time.to_zoned(zone)
                    .strftime("%Y-%m-%d %H:%M:%S %z")
                    .to_string()
            },
        )
}

/// The value as a number, where it is one.
pub fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Size(number)
        | Value::Rate(number)
        | Value::Number(number)
        | Value::Seconds(number)
        | Value::Time(number) => Some(*number as f64),
        Value::Percent(percent) => Some(*percent),
        Value::Text(_) | Value::Empty => None,
    }
}

/// Order of two values of one field: nothing first, then numbers, then texts.
pub fn compare(left: &Value, right: &Value) -> Ordering {
    fn rank(value: &Value) -> u8 {
        match value {
            Value::Empty => 0,
            Value::Text(_) => 2,
            _ => 1,
        }
    }
    match (left, right) {
        (Value::Text(left), Value::Text(right)) => left.cmp(right),
        // Through f64 values beyond 2^53 would tie.
        (Value::Size(left), Value::Size(right)) => left.cmp(right),
        _ => match (number(left), number(right)) {
            (Some(left), Some(right)) => left.total_cmp(&right),
            _ => rank(left).cmp(&rank(right)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn units(letter: char) -> Units {
        Units {
            letter,
            suffix: true,
        }
    }

    #[test]
    fn human_units_look_like_lvms() {
        for (bytes, text) in [
            (0, "0"),
            (1, "1B"),
            (1023, "1023B"),
            (1024, "1.00k"),
            (1 << 20, "1.00m"),
            ((1 << 30) - (4 << 20), "1020.00m"),
            (1 << 30, "1.00g"),
            (3 << 29, "1.50g"),
            ((1 << 40) - 1, "1024.00g"),
            (1 << 40, "1.00t"),
            (u64::MAX, "16.00e"),
        ] {
            assert_eq!(units('h').format(bytes), text);
        }
        assert_eq!(units('H').format(1 << 30), "1.07G");
        assert_eq!(units('H').format(999), "999B");
    }

    #[test]
    fn fixed_units() {
        let gib = 1 << 30;
        for (letter, text) in [
            ('b', "1073741824B"),
            ('B', "1073741824B"),
            ('s', "2097152S"),
            ('S', "2097152S"),
            ('k', "1048576.00k"),
            ('K', "1073741.82K"),
            ('m', "1024.00m"),
            ('g', "1.00g"),
            ('G', "1.07G"),
            ('t', "0.00t"),
            ('E', "0.00E"),
        ] {
            assert_eq!(units(letter).format(gib), text);
        }
        assert_eq!(units('m').format(0), "0m");
        let plain = Units {
            letter: 'b',
            suffix: false,
        };
        assert_eq!(plain.format(gib), "1073741824");
        assert_eq!(plain.format(0), "0");
    }

    #[test]
    fn every_letter_is_a_unit() {
        for letter in UNIT_LETTERS.chars() {
            assert!(!units(letter).format(5000).is_empty());
            assert!(unit_bytes(letter).is_some() || matches!(letter, 'h' | 'H'));
        }
    }

    #[test]
    fn other_shapes() {
        let human = units('h');
        let plain = Units {
            letter: 'b',
            suffix: false,
        };
        assert_eq!(format(&Value::Rate(3 << 20), human), "3.00m/s");
        assert_eq!(format(&Value::Rate(3 << 20), plain), "3145728");
        assert_eq!(format(&Value::Percent(99.999), human), "100.00");
        assert_eq!(format(&Value::Percent(12.3), human), "12.30");
        assert_eq!(format(&Value::Seconds(3725), plain), "3725");
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (200, "3m20s"),
            (7500, "2h05m"),
            (273_600, "3d04h"),
        ] {
            assert_eq!(format(&Value::Seconds(seconds), human), text);
        }
        assert_eq!(format(&Value::Empty, human), "");
        assert_eq!(
            format(&Value::Time(u64::MAX), human),
            format!("@{}", u64::MAX)
        );
        let time = format(&Value::Time(1_795_252_483), human);
        assert_eq!(time.len(), "2026-11-21 09:14:43 +0000".len(), "{time}");
    }

    #[test]
    fn rows_of_strangers() {
        let row: Row = serde_json::from_str(
            r#"{"a":{"size":5},"b":"bare","c":7,"d":null,"e":{"colour":"red"},"f":"empty"}"#,
        )
        .unwrap();
        assert_eq!(of_row(&row, "a"), Value::Size(5));
        assert_eq!(of_row(&row, "b"), Value::Text("bare".into()));
        assert_eq!(of_row(&row, "c"), Value::Text("7".into()));
        assert_eq!(of_row(&row, "d"), Value::Empty);
        assert_eq!(of_row(&row, "e"), Value::Text(r#"{"colour":"red"}"#.into()));
        assert_eq!(of_row(&row, "f"), Value::Empty);
        assert_eq!(of_row(&row, "g"), Value::Empty);
    }

    #[test]
    fn order() {
        assert_eq!(compare(&Value::Size(9), &Value::Size(10)), Ordering::Less);
        assert_eq!(
            compare(&Value::Text("9".into()), &Value::Text("10".into())),
            Ordering::Greater
        );
        assert_eq!(compare(&Value::Empty, &Value::Number(0)), Ordering::Less);
        assert_eq!(
            compare(&Value::Size(u64::MAX), &Value::Size(u64::MAX - 1)),
            Ordering::Greater
        );
    }
}
