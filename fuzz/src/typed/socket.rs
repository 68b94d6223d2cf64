//! The control socket: lines of clients, as the daemon reads them, and the daemon's, as the tool reads and shows them.

use super::json;
use tools::api::{Reply, ReportKind, Request, Sample};
use tools::cli::colour::Colours;
use tools::cli::failure;
use tools::cli::report::{Listing, Options, ReportArgs, Wanted};
use tools::cli::{top, tree};
use tools::daemon::server;

/// One execution.
pub fn run(data: &[u8]) {
    let Some((kind, line)) = data.split_first() else {
        return;
    };
    match kind & 1 {
        0 => request(line),
        _ => reply(line, kind & 2 != 0),
    }
}

fn request(line: &[u8]) {
    let ended = [line, b"\n"].concat();
    match server::parse(&ended) {
        Ok(request) => assert_eq!(json::<Request>(line), Some(request)),
        Err(failed) => plain(&failure::line("", &failed)),
    }
    if !line.ends_with(b"\n") {
        assert!(server::parse(line).is_err(), "a line that was cut off");
    }
}

fn reply(line: &[u8], as_json: bool) {
    let Ok(reply) = serde_json::from_slice::<Reply>(line) else {
        return;
    };
    serde_json::to_vec(&reply).expect("was read");
    match reply {
        Reply::Failed(failed) => plain(&failure::line("lvs", &failed)),
        Reply::Warning { text } => plain(&failure::one_line(&text)),
        Reply::Tree { roots } => {
            let lines = tree::lines(&roots, Colours::Off);
            lines.iter().for_each(|line| plain(line));
        }
        Reply::Report { rows, .. } => {
            let count = rows.len();
            let mut listing = Listing::new(options(as_json), Vec::new());
            listing.extend(rows);
            shown(listing, count, as_json);
        }
        Reply::Table { columns, rows, .. } => {
            let count = rows.len();
            let mut listing = Listing::new(options(as_json), Vec::new());
            listing.extend_table(&columns, rows);
            shown(listing, count, as_json);
        }
        Reply::Sample(now) => {
            let before = Sample::default();
            let all = [(&before, &now), (&now, &now), (&now, &before)];
            for (before, now) in all {
                top::document(before, now);
                let lines = top::lines(before, now, Colours::Off);
                lines.iter().for_each(|line| plain(line));
            }
        }
        Reply::Message { .. } | Reply::Progress(_) | Reply::Done => {}
    }
}

fn options(as_json: bool) -> Options {
    let args = ReportArgs {
        options: vec!["all".into()],
        ..ReportArgs::default()
    };
    match args.resolve(ReportKind::Lv, as_json) {
        Ok(Wanted::Listing(options)) => options,
        other => panic!("{other:?}"),
    }
}

/// A line for each row, and headings; or one document.
fn shown(mut listing: Listing, rows: usize, as_json: bool) {
    let mut out = Vec::new();
    listing.print(&mut out).expect("memory can be written");
    let text = String::from_utf8(out).expect("is text");
    if as_json {
        let document: serde_json::Value = serde_json::from_str(&text).expect("was written here");
        let written = document
            .pointer("/report/0/lv")
            .and_then(|rows| rows.as_array());
        assert_eq!(written.map(Vec::len), Some(rows));
        return;
    }
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), if rows == 0 { 0 } else { 1 + rows });
    lines.into_iter().for_each(plain);
}

/// Whoever sent it: one line, and nothing that moves the cursor.
fn plain(line: &str) {
    assert!(!line.contains(char::is_control), "{line:?}");
}
