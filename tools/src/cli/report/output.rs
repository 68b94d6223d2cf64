//! Writing listings: LVM's columns, LVM's JSON.

use super::fields::{Field, Shape, Table};
use super::value::Units;
use crate::cli::failure::one_line;
use std::borrow::Cow;
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
    rows: Vec<Vec<Cow<'_, str>>>,
    widths: &mut Vec<usize>,
    headings: bool,
) -> io::Result<()> {
    let mut lines: Vec<Vec<Cow<'_, str>>> = Vec::with_capacity(rows.len() + 1);
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
fn turned(lines: Vec<Vec<Cow<'_, str>>>, columns: usize) -> Vec<Vec<Cow<'_, str>>> {
    let mut turned: Vec<Vec<Cow<'_, str>>> = vec![Vec::with_capacity(lines.len()); columns];
    for line in lines {
        for (into, cell) in turned.iter_mut().zip(line) {
            into.push(cell);
        }
    }
    turned
}

/// A cell as it is written: one line, prefixed where asked for.
fn decorate<'a>(looks: &Looks, field: &Field, cell: Cow<'a, str>) -> Cow<'a, str> {
    let as_it_is = cell.bytes().all(|byte| byte.is_ascii_graphic());
    let cell = match as_it_is {
        true => cell,
        false => Cow::Owned(one_line(&cell)),
    };
    if !looks.prefixes {
        return cell;
    }
    let name = field.name.to_ascii_uppercase();
    Cow::Owned(match looks.quotes {
        true => format!("VOLMGR_{name}='{}'", cell.replace('\'', r"'\''")),
        false => format!("VOLMGR_{name}={cell}"),
    })
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
    rows: &[Vec<Cow<'_, str>>],
) -> io::Result<()> {
    let quoted = |text: &str| serde_json::to_string(text).map_err(io::Error::from);
    let names: Vec<String> = columns
        .iter()
        .map(|field| quoted(field.name))
        .collect::<io::Result<_>>()?;
    write!(out, "{{\"report\":[{{{}:[", quoted(key)?)?;
    for (index, row) in rows.iter().enumerate() {
        out.write_all(if index == 0 { b"{" } else { b",{" })?;
        for (column, (name, cell)) in names.iter().zip(row).enumerate() {
            let comma = if column == 0 { "" } else { "," };
            write!(out, "{comma}{name}:")?;
            serde_json::to_writer(&mut *out, &**cell)?;
        }
        out.write_all(b"}")?;
    }
    writeln!(out, "]}}]}}")
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
