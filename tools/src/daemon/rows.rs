//! Building rows of listings.

use crate::api::{Row, Value};

/// A row of these fields, in this order.
pub fn row<const N: usize>(fields: [(&str, Value); N]) -> Row {
    fields
        .into_iter()
        .map(|(name, value)| {
            let value = serde_json::to_value(value).unwrap_or(serde_json::Value::Null);
            (name.to_owned(), value)
        })
        .collect()
}

/// Text.
pub fn text(text: impl Into<String>) -> Value {
    Value::Text(text.into())
}

/// Bytes as people read them, for messages: `2.00g`.
pub fn human(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["b", "k", "m", "g", "t", "p"];
    let mut unit = 0;
    let mut value = bytes as f64;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{bytes}b")
    } else {
        format!("{value:.2}{}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_for_people() {
        assert_eq!(human(512), "512b");
        assert_eq!(human(2 << 30), "2.00g");
        assert_eq!(human(u64::MAX), "16384.00p");
    }

    #[test]
    fn rows_keep_their_order_and_tags() {
        let row = row([("b", text("x")), ("a", Value::Size(4))]);
        let json = serde_json::to_string(&row).unwrap();
        assert_eq!(json, r#"{"b":{"text":"x"},"a":{"size":4}}"#);
    }
}
