//! Listings against goldens written by hand.

use super::*;
use crate::api::Value;

fn rows() -> Vec<Row> {
    let row = |name: &str, vg: &str, size: u64, plexes: u64, path: &str| -> Row {
        [
            ("lv_name", Value::Text(name.into())),
            ("vg_name", Value::Text(vg.into())),
            ("lv_size", Value::Size(size)),
            ("lv_active", Value::Text("active".into())),
            ("plex_count", Value::Number(plexes)),
            ("lv_health", Value::Text("ok".into())),
            ("lv_role", Value::Text("normal".into())),
            (
                "lv_path",
                match path {
                    "" => Value::Empty,
                    path => Value::Text(path.into()),
                },
            ),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), serde_json::to_value(value).unwrap()))
        .collect()
    };
    vec![
        row("web", "vg0", 1 << 30, 2, "/dev/volmgr/vg0/web"),
        row("database", "vg0", 10 << 30, 1, ""),
        row("a", "backup", 3 << 19, 12, "it's"),
    ]
}

fn show(args: ReportArgs, json: bool, rows: Vec<Row>) -> String {
    let Wanted::Listing(options) = args.resolve(ReportKind::Lv, json).unwrap() else {
        panic!("a listing was wanted");
    };
    let mut listing = Listing::new(options, Vec::new());
    listing.extend(rows);
    let mut out = Vec::new();
    listing.print(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn fields_of(text: &str) -> ReportArgs {
    ReportArgs {
        options: vec![text.to_owned()],
        ..ReportArgs::default()
    }
}

#[test]
fn columns_as_lvm_has_them() {
    assert_eq!(
        show(ReportArgs::default(), false, rows()),
        "  LV       VG      LSize Active #Plex Health Role
  a        backup  1.50m active    12 ok     normal
  database vg0    10.00g active     1 ok     normal
  web      vg0     1.00g active     2 ok     normal
"
    );
}

#[test]
fn empty_listings() {
    assert_eq!(show(ReportArgs::default(), false, vec![]), "");
    assert_eq!(
        show(ReportArgs::default(), true, vec![]),
        "{\"report\":[{\"lv\":[]}]}\n"
    );
}

#[test]
fn json_as_lvm_has_it() {
    let args = ReportArgs {
        units: Some('b'),
        nosuffix: true,
        ..fields_of("lv_name,lv_size,plex_count,lv_path")
    };
    assert_eq!(
        show(args, true, rows()),
        concat!(
            r#"{"report":[{"lv":["#,
            r#"{"lv_name":"a","lv_size":"1572864","plex_count":"12","lv_path":"it's"},"#,
            r#"{"lv_name":"database","lv_size":"10737418240","plex_count":"1","lv_path":""},"#,
            r#"{"lv_name":"web","lv_size":"1073741824","plex_count":"2","lv_path":"/dev/volmgr/vg0/web"}"#,
            "]}]}\n"
        )
    );
}

#[test]
fn choice_of_fields() {
    let headings = |args: ReportArgs| {
        let text = show(args, false, rows());
        text.lines().next().unwrap().trim().to_owned()
    };
    assert_eq!(headings(fields_of("name,vg_name")), "LV       VG");
    assert!(headings(fields_of("+path")).ends_with("Role   Path"));
    assert!(!headings(fields_of("-role,health")).contains("Role"));
    assert_eq!(headings(fields_of("lv_size,lv_size")), "LSize");
    assert!(headings(fields_of("all")).contains("LV UUID"));
    let twice = ReportArgs {
        options: vec!["lv_name".into(), "vg_name".into()],
        ..ReportArgs::default()
    };
    assert_eq!(headings(twice), "LV       VG");
}

#[test]
fn wrong_fields_are_a_wrong_command_line() {
    for args in [
        fields_of("colour"),
        fields_of("-all"),
        ReportArgs {
            sort: vec!["colour".into()],
            ..ReportArgs::default()
        },
        ReportArgs {
            select: Some("colour=red".into()),
            ..ReportArgs::default()
        },
    ] {
        assert_eq!(args.resolve(ReportKind::Lv, false).unwrap_err().code, 3);
    }
}

#[test]
fn help_on_fields() {
    let Wanted::Help(text) = fields_of("help").resolve(ReportKind::Vg, false).unwrap() else {
        panic!("help was wanted");
    };
    assert!(text.contains("  * vg_name              Name.\n"), "{text}");
    assert!(text.contains("    vg_seqno "), "{text}");
}

#[test]
fn separators_headings_prefixes() {
    let args = ReportArgs {
        separator: Some(":".into()),
        noheadings: true,
        ..fields_of("lv_name,lv_size,lv_path")
    };
    assert_eq!(
        show(args, false, rows()),
        "  a:1.50m:it's\n  database:10.00g:\n  web:1.00g:/dev/volmgr/vg0/web\n"
    );
    let args = ReportArgs {
        separator: Some(" | ".into()),
        aligned: true,
        ..fields_of("lv_name,lv_size")
    };
    assert_eq!(
        show(args, false, rows()),
        "  LV       |  LSize\n  a        |  1.50m\n  database | 10.00g\n  web      |  1.00g\n"
    );
    let args = ReportArgs {
        nameprefixes: true,
        noheadings: true,
        separator: Some(" ".into()),
        ..fields_of("lv_name,lv_path")
    };
    assert!(
        show(args, false, rows()).starts_with("  VOLMGR_LV_NAME='a' VOLMGR_LV_PATH='it'\\''s'\n")
    );
}

#[test]
fn sorting() {
    let names = |sort: &str| {
        let args = ReportArgs {
            sort: vec![sort.into()],
            noheadings: true,
            ..fields_of("lv_name")
        };
        let text = show(args, false, rows());
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names("lv_size"), "a web database");
    assert_eq!(names("-lv_size"), "database web a");
    assert_eq!(names("-vg_name,lv_name"), "database web a");
    assert_eq!(names("lv_path,lv_name"), "database web a");
}

#[test]
fn rows_become_columns() {
    let args = ReportArgs {
        rows: true,
        ..fields_of("lv_name,lv_size")
    };
    assert_eq!(
        show(args, false, rows()),
        "  LV    a     database web\n  LSize 1.50m 10.00g   1.00g\n"
    );
    let args = ReportArgs {
        rows: true,
        noheadings: true,
        separator: Some(":".into()),
        ..fields_of("lv_name,vg_name")
    };
    assert_eq!(
        show(args, false, rows()),
        "  a:database:web\n  backup:vg0:vg0\n"
    );
}

#[test]
fn tables_are_shown_as_rows_are() {
    let args = ReportArgs {
        sort: vec!["-plex_count".into()],
        select: Some("lv_size>2m".into()),
        ..fields_of("lv_name,lv_path")
    };
    let Wanted::Listing(options) = args.resolve(ReportKind::Lv, false).unwrap() else {
        panic!("a listing was wanted");
    };
    let mut listing = Listing::new(options, Vec::new());
    let wanted = listing.wanted();
    // What is shown, sorted and selected by (and the name), and nothing else.
    let needed = ["lv_name", "vg_name", "lv_size", "plex_count", "lv_path"];
    assert!(
        wanted.iter().all(|name| needed.contains(&name.as_str())),
        "{wanted:?}"
    );
    assert_eq!(wanted.len(), needed.len());
    let columns: Vec<String> = ["lv_name", "from_the_future", "lv_size", "plex_count"]
        .map(String::from)
        .into();
    let row = |name: &str, size, plexes| {
        vec![
            Value::Text(name.into()),
            Value::Number(7),
            Value::Size(size),
            Value::Number(plexes),
        ]
    };
    let rows = vec![
        row("one", 3 << 20, 1),
        row("small", 1 << 20, 9),
        row("two", 3 << 20, 2),
    ];
    listing.extend_table(&columns, rows);
    let mut out = Vec::new();
    listing.print(&mut out).unwrap();
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "  LV  Path\n  two\n  one\n"
    );
}

#[test]
fn selection() {
    let args = ReportArgs {
        select: Some("size>=1g && vg_name=vg0".into()),
        noheadings: true,
        ..fields_of("lv_name")
    };
    assert_eq!(show(args, false, rows()), "  database\n  web\n");
}

#[test]
fn listings_that_go_on_have_their_headings_once_and_stay_in_line() {
    let Ok(Wanted::Listing(options)) = fields_of("lv_name,lv_size").resolve(ReportKind::Lv, false)
    else {
        panic!("a listing was wanted");
    };
    let mut listing = Listing::new(options, Vec::new());
    let mut out = Vec::new();
    for row in rows().into_iter().rev() {
        listing.extend(vec![row]);
        listing.print_some(&mut out).unwrap();
        listing.print_some(&mut out).unwrap();
    }
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "  LV LSize\n  a  1.50m\n  database 10.00g\n  web       1.00g\n"
    );
}

#[test]
fn text_of_strangers_cannot_break_the_table() {
    let row: Row = serde_json::from_str(r#"{"lv_name":{"text":"x\u001b[2J\ny"}}"#).unwrap();
    let args = ReportArgs {
        noheadings: true,
        ..fields_of("lv_name")
    };
    assert_eq!(show(args, false, vec![row]), "  x?[2J y\n");
}
