//! `--select`: which rows a listing shows.
//!
//! LVM's language, the usual part of it: comparisons `=`, `!=`, `<`, `<=`, `>`, `>=`, `=~`, `!~`
//! joined by `&&` (or `,`) and `||` (or `#`), with `!` and parentheses. Values with blanks or
//! operators in them are quoted. Sizes compare as sizes: `lv_size>=1g`.

use super::fields::{Field, Shape, Table};
use super::value;
use crate::api::Value;
use crate::cli::size::parse_bytes;
use regex::Regex;

/// Deepest nesting of parentheses and `!`; enough for people, safe for the stack.
const DEPTH_MAX: usize = 64;

/// A parsed selection.
#[derive(Debug)]
pub enum Selection {
    /// All of them.
    And(Vec<Selection>),
    /// One of them.
    Or(Vec<Selection>),
    /// Not this.
    Not(Box<Selection>),
    /// A comparison of the field at this place of the table.
    Test(usize, Test),
}

/// What a field is compared with.
#[derive(Debug)]
pub enum Test {
    /// Text is the same or not.
    Text(Comparison, String),
    /// Numbers compare.
    Number(Comparison, f64),
    /// The text shown matches.
    Matches(Regex),
}

/// A comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `=`
    Equal,
    /// `!=`
    Unequal,
    /// `<`
    Less,
    /// `<=`
    AtMost,
    /// `>`
    More,
    /// `>=`
    AtLeast,
}

/// What is wrong with a selection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectError {
    /// No such field.
    #[error("no field '{0}'")]
    NoSuchField(String),
    /// Something else was due.
    #[error("expected {expected} at '{found}'")]
    Expected {
        /// What was due.
        expected: &'static str,
        /// What is there instead.
        found: String,
    },
    /// Not a number where one is needed.
    #[error("'{value}' cannot be compared with {field}: {why}")]
    BadValue {
        /// The field.
        field: &'static str,
        /// The value.
        value: String,
        /// Why not.
        why: String,
    },
    /// Too many parentheses.
    #[error("nested deeper than {DEPTH_MAX}")]
    TooDeep,
}

impl Selection {
    /// Parses a selection over the fields of this table.
    pub fn parse(table: &Table, text: &str) -> Result<Selection, SelectError> {
        let mut parser = Parser { table, rest: text };
        let selection = parser.any(0)?;
        parser.blanks();
        if parser.rest.is_empty() {
            Ok(selection)
        } else {
            Err(parser.expected("'&&', '||' or the end"))
        }
    }

    /// The row (a value for each field of the table) is selected.
    pub fn matches(&self, row: &[Value]) -> bool {
        match self {
            Selection::And(all) => all.iter().all(|one| one.matches(row)),
            Selection::Or(any) => any.iter().any(|one| one.matches(row)),
            Selection::Not(inner) => !inner.matches(row),
            Selection::Test(field, test) => test.holds(row.get(*field).unwrap_or(&Value::Empty)),
        }
    }

    /// The places in the table of the fields that it looks at.
    pub fn fields(&self, all: &mut Vec<usize>) {
        match self {
            Selection::And(parts) | Selection::Or(parts) => {
                parts.iter().for_each(|part| part.fields(all));
            }
            Selection::Not(inner) => inner.fields(all),
            Selection::Test(field, _) => all.push(*field),
        }
    }
}

impl Test {
    fn holds(&self, value: &Value) -> bool {
        let shown = || value::shown(value, value::Units::default());
        match self {
            Test::Matches(regex) => regex.is_match(&shown()),
            Test::Text(comparison, text) => comparison.holds((*shown()).cmp(text)),
            Test::Number(comparison, wanted) => match value::number(value) {
                Some(number) => comparison.holds(number.total_cmp(wanted)),
                // What has no value is unequal to all numbers, and neither above nor below.
                None => *comparison == Comparison::Unequal,
            },
        }
    }
}

impl Comparison {
    fn holds(self, order: std::cmp::Ordering) -> bool {
        match self {
            Comparison::Equal => order.is_eq(),
            Comparison::Unequal => order.is_ne(),
            Comparison::Less => order.is_lt(),
            Comparison::AtMost => order.is_le(),
            Comparison::More => order.is_gt(),
            Comparison::AtLeast => order.is_ge(),
        }
    }
}

enum Operator {
    Compare(Comparison),
    Match,
    NoMatch,
}

/// Longer operators first, so that `<=` is not taken for `<`.
const OPERATORS: [(&str, Operator); 8] = [
    ("=~", Operator::Match),
    ("!~", Operator::NoMatch),
    ("!=", Operator::Compare(Comparison::Unequal)),
    ("<=", Operator::Compare(Comparison::AtMost)),
    (">=", Operator::Compare(Comparison::AtLeast)),
    ("=", Operator::Compare(Comparison::Equal)),
    ("<", Operator::Compare(Comparison::Less)),
    (">", Operator::Compare(Comparison::More)),
];

struct Parser<'a> {
    table: &'a Table,
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn blanks(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn take(&mut self, token: &str) -> bool {
        self.blanks();
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn expected(&self, expected: &'static str) -> SelectError {
        let found = match self.rest.is_empty() {
            true => "the end".to_owned(),
            false => self.rest.chars().take(20).collect(),
        };
        SelectError::Expected { expected, found }
    }

    fn any(&mut self, depth: usize) -> Result<Selection, SelectError> {
        let first = self.all(depth)?;
        let mut parts = vec![];
        while self.take("||") || self.take("#") {
            parts.push(self.all(depth)?);
        }
        Ok(joined(Selection::Or, first, parts))
    }

    fn all(&mut self, depth: usize) -> Result<Selection, SelectError> {
        let first = self.one(depth)?;
        let mut parts = vec![];
        while self.take("&&") || self.take(",") {
            parts.push(self.one(depth)?);
        }
        Ok(joined(Selection::And, first, parts))
    }

    fn one(&mut self, depth: usize) -> Result<Selection, SelectError> {
        if depth > DEPTH_MAX {
            return Err(SelectError::TooDeep);
        }
        if self.take("!") {
            return Ok(Selection::Not(Box::new(self.one(depth + 1)?)));
        }
        if self.take("(") {
            let inner = self.any(depth + 1)?;
            return match self.take(")") {
                true => Ok(inner),
                false => Err(self.expected("')'")),
            };
        }
        self.test()
    }

    fn test(&mut self) -> Result<Selection, SelectError> {
        self.blanks();
        let end = self
            .rest
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        if name.is_empty() {
            return Err(self.expected("a field"));
        }
        let field = self
            .table
            .find(name)
            .ok_or_else(|| SelectError::NoSuchField(name.to_owned()))?;
        self.rest = rest;
        for (token, operator) in &OPERATORS {
            if self.take(token) {
                let value = self.value()?;
                let place = self.table.position(field.name).unwrap_or_default();
                return build(place, field, operator, value);
            }
        }
        Err(self.expected("a comparison"))
    }

    fn value(&mut self) -> Result<String, SelectError> {
        self.blanks();
        for quote in ['"', '\''] {
            if let Some(rest) = self.rest.strip_prefix(quote) {
                let Some((value, rest)) = rest.split_once(quote) else {
                    return Err(self.expected("a value whose quotes are closed"));
                };
                self.rest = rest;
                return Ok(value.to_owned());
            }
        }
        let end = self
            .rest
            .find(|c: char| c.is_whitespace() || "&|,#()".contains(c))
            .unwrap_or(self.rest.len());
        let (value, rest) = self.rest.split_at(end);
        if value.is_empty() {
            return Err(self.expected("a value"));
        }
        self.rest = rest;
        Ok(value.to_owned())
    }
}

/// The parts side by side, however many: what grows with each of them would be the stack that is needed.
fn joined(
    how: fn(Vec<Selection>) -> Selection,
    first: Selection,
    mut rest: Vec<Selection>,
) -> Selection {
    if rest.is_empty() {
        return first;
    }
    rest.insert(0, first);
    how(rest)
}

/// What is wrong with a regular expression; the drawing that the library puts above it needs lines of its own.
fn regex_error(error: &regex::Error) -> String {
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default();
    last.trim_start_matches("error: ").to_owned()
}

fn build(
    place: usize,
    field: &'static Field,
    operator: &Operator,
    value: String,
) -> Result<Selection, SelectError> {
    let bad = |why: String| SelectError::BadValue {
        field: field.name,
        value: value.clone(),
        why,
    };
    let regex = || Regex::new(&value).map_err(|error| bad(regex_error(&error)));
    let test = match operator {
        Operator::Match => Test::Matches(regex()?),
        Operator::NoMatch => {
            let test = Selection::Test(place, Test::Matches(regex()?));
            return Ok(Selection::Not(Box::new(test)));
        }
        Operator::Compare(comparison) => match field.shape {
            Shape::Text => Test::Text(*comparison, value),
            Shape::Size => {
                let bytes = parse_bytes(value.trim_end_matches("/s"), 'm')
                    .map_err(|error| bad(error.to_string()))?;
                Test::Number(*comparison, bytes as f64)
            }
            Shape::Number | Shape::Time => {
                let number = value
                    .parse::<f64>()
                    .map_err(|error| bad(error.to_string()))?;
                Test::Number(*comparison, number)
            }
        },
    };
    Ok(Selection::Test(place, test))
}

#[cfg(test)]
mod tests {
    use super::super::fields::table;
    use super::*;
    use crate::api::ReportKind;
    use proptest::prelude::*;

    fn selects(selection: &str) -> bool {
        let lv = table(ReportKind::Lv);
        let mut row = vec![Value::Empty; lv.fields.len()];
        for (name, value) in [
            ("lv_name", Value::Text("web".into())),
            ("vg_name", Value::Text("vg0".into())),
            ("lv_size", Value::Size(2 << 30)),
            ("plex_count", Value::Number(2)),
        ] {
            row[lv.position(name).unwrap()] = value;
        }
        Selection::parse(table(ReportKind::Lv), selection)
            .unwrap_or_else(|error| panic!("{selection}: {error}"))
            .matches(&row)
    }

    #[test]
    fn comparisons() {
        for yes in [
            "lv_name=web",
            "name = web",
            "lv_name='web'",
            r#"lv_name="web""#,
            "lv_name!=db",
            "lv_size=2g",
            "lv_size>=2g",
            "lv_size<=2048",
            "lv_size>2G",
            "plex_count=2",
            "plex_count>1.5",
            "lv_name=~^w",
            "lv_name!~^x",
            "lv_path=''",
            "lv_size=~^2.00g$",
        ] {
            assert!(selects(yes), "{yes}");
        }
        for no in [
            "lv_name=we",
            "lv_size>2g",
            "lv_size<2g",
            "plex_count!=2",
            "lv_name!~w",
            "lv_path=x",
        ] {
            assert!(!selects(no), "{no}");
        }
    }

    #[test]
    fn and_binds_closer_than_or() {
        assert!(selects("lv_name=web || lv_name=db && lv_size>1t"));
        assert!(!selects("(lv_name=web || lv_name=db) && lv_size>1t"));
        assert!(selects("lv_name=web&&vg_name=vg0"));
        assert!(selects("lv_name=web,vg_name=vg0"));
        assert!(selects("lv_name=db#vg_name=vg0"));
        assert!(selects("!lv_name=db"));
        assert!(!selects("!(lv_name=db || vg_name=vg0)"));
    }

    #[test]
    fn mistakes_are_named() {
        let error = |text: &str| {
            Selection::parse(table(ReportKind::Lv), text)
                .unwrap_err()
                .to_string()
        };
        assert_eq!(error("colour=red"), "no field 'colour'");
        assert_eq!(error("lv_name"), "expected a comparison at 'the end'");
        assert_eq!(error("lv_name="), "expected a value at 'the end'");
        assert_eq!(error("(lv_name=a"), "expected ')' at 'the end'");
        assert_eq!(
            error("lv_name=a b"),
            "expected '&&', '||' or the end at 'b'"
        );
        assert!(error("lv_size=big").contains("'big' is not a size"));
        assert_eq!(
            error("lv_name=~'('"),
            "'(' cannot be compared with lv_name: unclosed group"
        );
        assert!(error("lv_name='a").contains("quotes"));
        assert_eq!(error(&"!".repeat(1000)), "nested deeper than 64");
    }

    /// A script that names all its volumes writes such a thing; what it is made of must not fill the stack.
    #[test]
    fn a_long_selection_needs_no_long_stack() {
        for (joint, wanted) in [("||", true), (",", false)] {
            let text = ["lv_name=web", "lv_name=db"].repeat(5_000).join(joint);
            let small = std::thread::Builder::new().stack_size(128 << 10);
            let selected = small.spawn(move || selects(&text)).unwrap().join().unwrap();
            assert_eq!(selected, wanted);
        }
    }

    proptest! {
        #[test]
        fn total(text in "[a-z_=<>!~&|,#()'\" 0-9.]{0,60}") {
            let outcome = Selection::parse(table(ReportKind::Lv), &text);
            if let Ok(selection) = outcome {
                selection.matches(&[]);
            }
        }
    }
}
