//! Writing listings: LVM's columns, LVM's JSON.

use super::fields::{Field, Shape, Table};
use super::value::Units;
use crate::cli::failure::one_line;
use std::fmt::Write as _;
use std::io::{self, Write};

/// How a listing looks.
#[derive(Clone, Debug)]
pub struct Looks {
    /// JSON instead of columns.
    pub json: bool,
    /// Headings above the columns.
    pub headings: bool,
    /// Pad the columns to the same width.
    pub aligned: bool,
    /// Between columns.
    pub separator: String,
    /// Of sizes.
    pub units: Units,
    /// `VOLMGR_FIELD='value'`.
    pub prefixes: bool,
    /// Quotes around those values.
    pub quotes: bool,
    /// A line for each field instead of one for each row.
    pub rows: bool,
}

/// Writes rows as columns, indented by two, as LVM does.
pub fn basic(
    out: &mut impl Write,
    looks: &Looks,
    columns: &[&Field],
    rows: &[Vec<String>],
    widths: &mut Vec<usize>,
    headings: bool,
) -> io::Result<()> {
    let mut lines: Vec<Vec<String>> = Vec::with_capacity(rows.len() + 1);
    if looks.headings && headings {
        lines.push(columns.iter().map(|field| field.heading.into()).collect());
    }
    for row in rows {
        let cells = columns.iter().zip(row);
        lines.push(
            cells
                .map(|(field, cell)| decorate(looks, field, cell))
                .collect(),
        );
    }
    if looks.rows {
        lines = turned(lines, columns.len());
        // What is to the right, in a line of its own kind, says nothing about the next listing.
        widths.clear();
    }
    let width = lines.first().map_or(0, Vec::len);
    widths.resize(width, 0);
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(columns_of(cell));
        }
    }
    for line in &lines {
        let mut text = String::from("  ");
        for (index, cell) in line.iter().enumerate() {
            if index > 0 {
                text.push_str(&looks.separator);
            }
            let padding = match looks.aligned {
                true => widths[index] - columns_of(cell),
                false => 0,
            };
            let shape = |index: usize| columns.get(index).map(|field| field.shape);
            let right = !looks.rows && matches!(shape(index), Some(Shape::Size | Shape::Number));
            let (before, after) = if right { (padding, 0) } else { (0, padding) };
            text.extend(std::iter::repeat_n(' ', before));
            text.push_str(cell);
            text.extend(std::iter::repeat_n(' ', after));
        }
        // A separator of the admin's choice ends in what it ends in; blanks at the end serve nobody.
        let text = if looks.aligned {
            text.trim_end()
        } else {
            &text
        };
        writeln!(out, "{text}")?;
    }
    Ok(())
}

/// Lines become columns.
fn turned(lines: Vec<Vec<String>>, columns: usize) -> Vec<Vec<String>> {
    let mut turned: Vec<Vec<String>> = vec![Vec::with_capacity(lines.len()); columns];
    for line in lines {
        for (into, cell) in turned.iter_mut().zip(line) {
            into.push(cell);
        }
    }
    turned
}

/// A cell as it is written: one line, prefixed where asked for.
fn decorate(looks: &Looks, field: &Field, cell: &str) -> String {
    let cell = one_line(cell);
    if !looks.prefixes {
        return cell;
    }
    let name = field.name.to_ascii_uppercase();
    match looks.quotes {
        true => format!("VOLMGR_{name}='{}'", cell.replace('\'', r"'\''")),
        false => format!("VOLMGR_{name}={cell}"),
    }
}

/// Columns that the text takes on a terminal; names are ASCII, so characters are near enough.
fn columns_of(text: &str) -> usize {
    text.chars().count()
}

/// Writes rows as LVM's JSON, one document in one line: `{"report":[{"lv":[{"lv_name":"web"}]}]}`.
pub fn json(
    out: &mut impl Write,
    key: &str,
    columns: &[&Field],
    rows: &[Vec<String>],
) -> io::Result<()> {
    let rows: Vec<serde_json::Value> = rows
        .iter()
        .map(|row| {
            let cells = columns.iter().zip(row);
            cells
                .map(|(field, cell)| (field.name.to_owned(), cell.as_str().into()))
                .collect::<serde_json::Map<_, _>>()
                .into()
        })
        .collect();
    let mut section = serde_json::Map::new();
    section.insert(key.to_owned(), rows.into());
    let document = serde_json::json!({ "report": [section] });
    writeln!(out, "{document}")
}

/// The text of `-o help`.
pub fn field_help(table: &Table) -> String {
    let width = table.fields.iter().map(|field| field.name.len()).max();
    let width = width.unwrap_or_default();
    let mut text = format!(
        "Fields of a {}; those with * are shown without -o:\n",
        table.noun
    );
    for field in table.fields {
        let star = if field.shown { '*' } else { ' ' };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {star} {:width$}  {}", field.name, field.help);
    }
    text.push_str(
        "Selections (-S) compare fields: = != < <= > >= and =~ !~ (regular expression); sizes as in \
         lv_size>=1g.\nJoined by && (or ,) and || (or #), with ! and parentheses; values with blanks \
         or operators in quotes.\n",
    );
    text
}
