//! Listings: which fields, which rows, in what order, and how they look.
//!
//! The daemon sends raw values (see [`crate::api::Value`]); everything about their looks is decided
//! here. [`Options`] is the parsed command line, [`Listing`] collects rows and writes them.

pub mod fields;
mod output;
mod select;
pub mod value;

use super::failure::usage;
use crate::api::{Failure, ReportKind, Row};
use fields::{Field, Table};
pub use output::Looks;
use select::Selection;
use std::cmp::Ordering;
use std::io::{self, Write};
use value::Units;

/// The options of listings, as typed.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Listing options")]
pub struct ReportArgs {
    /// Fields to show; `+field` adds to the usual ones, `-field` leaves one out, `all` shows all,
    /// `help` explains them. The prefix of the listing may be left out: `-o name,size`
    #[arg(
        short = 'o',
        long,
        value_name = "[+|-]FIELD,…",
        allow_hyphen_values = true
    )]
    pub options: Vec<String>,
    /// Fields to sort by; `-field` sorts downwards
    #[arg(
        short = 'O',
        long,
        value_name = "[-]FIELD,…",
        allow_hyphen_values = true
    )]
    pub sort: Vec<String>,
    /// Show only rows for which this holds: `lv_size>=1g && vg_name=vg0`
    #[arg(short = 'S', long, value_name = "SELECTION")]
    pub select: Option<String>,
    /// No headings
    #[arg(long)]
    pub noheadings: bool,
    /// Text between columns; they are then not aligned
    #[arg(long, value_name = "TEXT")]
    pub separator: Option<String>,
    /// Align the columns even with --separator
    #[arg(long)]
    pub aligned: bool,
    /// Units of sizes: h (readable), b bytes, s sectors, k m g t p e; upper case counts in 1000s
    #[arg(long, value_name = "UNIT", value_parser = parse_unit)]
    pub units: Option<char>,
    /// No letter behind sizes; durations in seconds
    #[arg(long)]
    pub nosuffix: bool,
    /// Write VOLMGR_FIELD='value' for each value
    #[arg(long)]
    pub nameprefixes: bool,
    /// With --nameprefixes: no quotes
    #[arg(long, requires = "nameprefixes")]
    pub unquoted: bool,
}

fn parse_unit(text: &str) -> Result<char, String> {
    let mut letters = text.chars();
    match (letters.next(), letters.next()) {
        (Some('r'), None) => Ok('h'),
        (Some('R'), None) => Ok('H'),
        (Some(letter), None) if value::UNIT_LETTERS.contains(letter) => Ok(letter),
        _ => Err(format!("one letter of {} is needed", value::UNIT_LETTERS)),
    }
}

/// What the options mean for one kind of listing.
#[derive(Debug)]
pub struct Options {
    table: &'static Table,
    columns: Vec<&'static Field>,
    sort: Vec<SortKey>,
    selection: Option<Selection>,
    looks: Looks,
}

#[derive(Clone, Copy, Debug)]
struct SortKey {
    field: &'static Field,
    descending: bool,
}

/// What a listing's options ask for.
#[derive(Debug)]
pub enum Wanted {
    /// A listing.
    Listing(Options),
    /// `-o help`: this text.
    Help(String),
}

impl ReportArgs {
    /// Checks the options against the fields of this kind.
    pub fn resolve(&self, kind: ReportKind, json: bool) -> Result<Wanted, Failure> {
        let table = fields::table(kind);
        if self.asks_for_help() {
            return Ok(Wanted::Help(output::field_help(table)));
        }
        let selection = match &self.select {
            None => None,
            Some(text) => Some(Selection::parse(table, text).map_err(|error| {
                usage(
                    text.as_str(),
                    "cannot select",
                    error,
                    "fields: see -o help; comparisons: = != < <= > >= =~ !~ joined by && and ||",
                )
            })?),
        };
        Ok(Wanted::Listing(Options {
            table,
            columns: self.columns(table)?,
            sort: self.sort_keys(table)?,
            selection,
            looks: Looks {
                json,
                headings: !self.noheadings,
                aligned: self.separator.is_none() || self.aligned,
                separator: self.separator.clone().unwrap_or_else(|| " ".to_owned()),
                units: Units {
                    letter: self.units.unwrap_or('h'),
                    suffix: !self.nosuffix,
                },
                prefixes: self.nameprefixes,
                quotes: !self.unquoted,
            },
        }))
    }

    fn asks_for_help(&self) -> bool {
        [&self.options, &self.sort]
            .into_iter()
            .flatten()
            .any(|text| matches!(text.trim_start_matches('+'), "help" | "?"))
    }

    fn columns(&self, table: &'static Table) -> Result<Vec<&'static Field>, Failure> {
        let mut columns: Vec<&'static Field> =
            table.fields.iter().filter(|field| field.shown).collect();
        for (index, text) in self.options.iter().enumerate() {
            let (leave_out, names) = match text.strip_prefix('-') {
                Some(names) => (true, names),
                None => (false, text.trim_start_matches('+')),
            };
            if index == 0 && !leave_out && !text.starts_with('+') {
                columns.clear();
            }
            for name in names.split(',').filter(|name| !name.is_empty()) {
                let named: Vec<&'static Field> = match name {
                    "all" => table.fields.iter().collect(),
                    name => vec![find(table, name)?],
                };
                for field in named {
                    let there = columns.iter().position(|column| column.name == field.name);
                    match (leave_out, there) {
                        (true, Some(index)) => drop(columns.remove(index)),
                        (false, None) => columns.push(field),
                        (true, None) | (false, Some(_)) => {}
                    }
                }
            }
        }
        if columns.is_empty() {
            return Err(usage(
                "-o",
                "nothing to show",
                "no field is left",
                "see -o help",
            ));
        }
        Ok(columns)
    }

    fn sort_keys(&self, table: &'static Table) -> Result<Vec<SortKey>, Failure> {
        let mut keys = Vec::new();
        let given = self.sort.iter().flat_map(|text| text.split(','));
        for name in given.filter(|name| !name.is_empty()) {
            let descending = name.starts_with('-');
            let field = find(table, name.trim_start_matches(['-', '+']))?;
            keys.push(SortKey { field, descending });
        }
        if keys.is_empty() {
            keys.extend(table.sort.iter().filter_map(|name| {
                table.find(name).map(|field| SortKey {
                    field,
                    descending: false,
                })
            }));
        }
        Ok(keys)
    }
}

fn find(table: &'static Table, name: &str) -> Result<&'static Field, Failure> {
    table.find(name).ok_or_else(|| {
        usage(
            name,
            "no such field",
            format!("a {} has none of that name", table.noun),
            "'-o help' lists them",
        )
    })
}

/// A listing on its way to the reader.
#[derive(Debug)]
pub struct Listing {
    options: Options,
    rows: Vec<Row>,
    /// Columns are never narrower than they have been: rows that come later line up.
    widths: Vec<usize>,
    printed: bool,
}

impl Listing {
    /// An empty listing.
    pub fn new(options: Options) -> Self {
        Listing {
            widths: Vec::new(),
            rows: Vec::new(),
            printed: false,
            options,
        }
    }

    /// Adds rows that the daemon has sent.
    pub fn extend(&mut self, rows: Vec<Row>) {
        match &self.options.selection {
            None => self.rows.extend(rows),
            Some(selection) => {
                let selected = rows.into_iter().filter(|row| selection.matches(row));
                self.rows.extend(selected);
            }
        }
    }

    /// Sorts and writes the rows there are, and forgets them. In JSON this is one whole document,
    /// rows or not; else headings come once, and nothing at all comes without rows.
    pub fn print(&mut self, out: &mut impl Write) -> io::Result<()> {
        let mut rows = std::mem::take(&mut self.rows);
        rows.sort_by(|left, right| self.options.order(left, right));
        let cells: Vec<Vec<String>> = rows.iter().map(|row| self.options.cells(row)).collect();
        if self.options.looks.json {
            return output::json(out, self.options.table.key, &self.options.columns, &cells);
        }
        if cells.is_empty() {
            return Ok(());
        }
        let headings = !std::mem::replace(&mut self.printed, true);
        output::basic(
            out,
            &self.options.looks,
            &self.options.columns,
            &cells,
            &mut self.widths,
            headings,
        )
    }

    /// Writes what there is now, unless that is nothing: for listings that go on.
    pub fn print_some(&mut self, out: &mut impl Write) -> io::Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        self.print(out)
    }
}

impl Options {
    fn order(&self, left: &Row, right: &Row) -> Ordering {
        self.sort
            .iter()
            .map(|key| {
                let name = key.field.name;
                let order = value::compare(&value::of_row(left, name), &value::of_row(right, name));
                match key.descending {
                    true => order.reverse(),
                    false => order,
                }
            })
            .find(|order| order.is_ne())
            .unwrap_or(Ordering::Equal)
    }

    fn cells(&self, row: &Row) -> Vec<String> {
        self.columns
            .iter()
            .map(|field| value::format(&value::of_row(row, field.name), self.looks.units))
            .collect()
    }
}

#[cfg(test)]
mod tests;
