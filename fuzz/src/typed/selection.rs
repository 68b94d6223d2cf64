//! `-S`: selections over each table, and rows held against them.

use tools::api::{ReportKind, Value};
use tools::cli::report::{fields, select::Selection};

const KINDS: [ReportKind; 10] = [
    ReportKind::Pv,
    ReportKind::Vg,
    ReportKind::Lv,
    ReportKind::Plex,
    ReportKind::Feed,
    ReportKind::Peer,
    ReportKind::Node,
    ReportKind::Point,
    ReportKind::Event,
    ReportKind::Difference,
];

/// Longest message beside what it quotes, in bytes.
const MESSAGE_MAX: usize = 256;

/// One execution.
pub fn run(data: &[u8]) {
    let Some((kind, text)) = data.split_first() else {
        return;
    };
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    let table = fields::table(KINDS[usize::from(*kind) % KINDS.len()]);
    let selection = match Selection::parse(table, text) {
        Ok(selection) => selection,
        Err(error) => {
            let why = error.to_string();
            // One line, but for what it quotes, twice at most.
            let lines = |text: &str| text.matches('\n').count();
            assert!(lines(&why) <= 2 * lines(text), "{why}");
            assert!(why.len() <= MESSAGE_MAX + 3 * text.len(), "{why}");
            return;
        }
    };
    let mut used = Vec::new();
    selection.fields(&mut used);
    assert!(!used.is_empty() && used.iter().all(|field| *field < table.fields.len()));
    let values = [
        Value::Empty,
        Value::Size(1 << 40),
        Value::Text("web".into()),
        Value::Number(u64::MAX),
        Value::Percent(99.5),
    ];
    let rows = values.map(|value| vec![value; table.fields.len()]);
    let selected = |selection: &Selection| rows.each_ref().map(|row| selection.matches(row));
    let said = selected(&selection);
    // What a row has not got is nothing, as in one that says so.
    assert_eq!(selection.matches(&[]), said[0]);
    // Not all texts can be put in parentheses: there is a limit to their depth.
    if let Ok(opposite) = Selection::parse(table, &format!("!({text})")) {
        assert_eq!(selected(&opposite), said.map(|yes| !yes), "{text}");
    }
}
