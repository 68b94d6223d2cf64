//! Listings: which fields, which rows, in what order, and how they look.
//!
//! The daemon sends raw values (see [`crate::api::Value`]); everything about their looks is decided
//! here. [`Options`] is the parsed command line, [`Listing`] collects rows and writes them.

pub mod fields;
mod output;
pub mod select;
pub mod value;

use super::failure::usage;
use crate::api::{Failure, ReportKind, Row, Value};
use fields::{Field, Table};
pub use output::Looks;
use select::Selection;
use std::borrow::Cow;
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
    /// Show only rows for which this holds: `lv_size>=1g && vg_name=vg0`; `help` explains
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
    /// A line for each field instead of one for each row
    #[arg(long)]
    pub rows: bool,
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
    /// Where the columns stand in the table.
    places: Vec<usize>,
    sort: Vec<SortKey>,
    selection: Option<Selection>,
    looks: Looks,
}

#[derive(Clone, Copy, Debug)]
struct SortKey {
    /// The field's place in the table.
    place: usize,
    descending: bool,
}

/// A row on its way to the reader: a value for each field of the table.
type Values = Vec<Value>;

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
        let columns = self.columns(table)?;
        Ok(Wanted::Listing(Options {
            table,
            places: columns
                .iter()
                .filter_map(|field| table.position(field.name))
                .collect(),
            columns,
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
                rows: self.rows,
            },
        }))
    }

    fn asks_for_help(&self) -> bool {
        [&self.options, &self.sort]
            .into_iter()
            .flatten()
            .chain(&self.select)
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
                let whole = name.strip_prefix(table.prefix).unwrap_or(name) == "all";
                let named: Vec<&'static Field> = match whole {
                    true => table.fields.iter().collect(),
                    false => vec![find(table, name)?],
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
            let place = table.position(field.name).unwrap_or_default();
            keys.push(SortKey { place, descending });
        }
        if keys.is_empty() {
            keys.extend(table.sort.iter().filter_map(|name| {
                table.position(name).map(|place| SortKey {
                    place,
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
    rows: Vec<Values>,
    /// Only the rows whose first sort field is one of these; none shows all.
    names: Vec<String>,
    /// Those of `names` that no row had.
    unmatched: Vec<String>,
    /// Columns are never narrower than they have been: rows that come later line up.
    widths: Vec<usize>,
    printed: bool,
}

impl Listing {
    /// An empty listing, for rows of these names, or for all where there are none.
    pub fn new(options: Options, names: Vec<String>) -> Self {
        Listing {
            widths: Vec::new(),
            rows: Vec::new(),
            unmatched: names.clone(),
            names,
            printed: false,
            options,
        }
    }

    /// Names of the fields that the daemon has to send.
    pub fn wanted(&self) -> Vec<String> {
        let options = &self.options;
        let mut places = options.places.clone();
        places.extend(options.sort.iter().map(|key| key.place));
        if let Some(selection) = &options.selection {
            selection.fields(&mut places);
        }
        places.extend(self.name_place());
        places.sort_unstable();
        places.dedup();
        let fields = places
            .iter()
            .filter_map(|place| options.table.fields.get(*place));
        fields.map(|field| field.name.to_owned()).collect()
    }

    /// The names that were asked for and that no row had.
    pub fn unmatched(&self) -> &[String] {
        &self.unmatched
    }

    fn name_place(&self) -> Option<usize> {
        let name = self.options.table.sort.first()?;
        self.options.table.position(name)
    }

    /// Adds rows that the daemon has sent with all their fields.
    pub fn extend(&mut self, rows: Vec<Row>) {
        for row in rows {
            let fields = self.options.table.fields.iter();
            let values = fields.map(|field| value::of_row(&row, field.name));
            self.add(values.collect());
        }
    }

    /// Adds rows that the daemon has sent as values of these fields. Fields that are not known
    /// here (another version's) are passed over.
    pub fn extend_table(&mut self, columns: &[String], rows: Vec<Vec<Value>>) {
        let table = self.options.table;
        let places: Vec<Option<usize>> = columns.iter().map(|name| table.position(name)).collect();
        for row in rows {
            let mut values = vec![Value::Empty; table.fields.len()];
            for (place, value) in places.iter().zip(row) {
                if let Some(place) = place {
                    values[*place] = value;
                }
            }
            self.add(values);
        }
    }

    fn add(&mut self, row: Values) {
        if !self.names.is_empty()
            && let Some(place) = self.name_place()
        {
            let name = value::shown(&row[place], Units::default());
            self.unmatched.retain(|unmatched| *unmatched != name);
            if !self.names.iter().any(|wanted| *wanted == name) {
                return;
            }
        }
        let selection = self.options.selection.as_ref();
        if selection.is_none_or(|selection| selection.matches(&row)) {
            self.rows.push(row);
        }
    }

    /// Sorts and writes the rows there are, and forgets them. In JSON this is one whole document,
    /// rows or not; else headings come once, and nothing at all comes without rows.
    pub fn print(&mut self, out: &mut impl Write) -> io::Result<()> {
        let mut rows = std::mem::take(&mut self.rows);
        rows.sort_by(|left, right| self.options.order(left, right));
        let cells: Vec<Vec<Cow<'_, str>>> =
            rows.iter().map(|row| self.options.cells(row)).collect();
        // Standard output would be written line by line.
        let out = &mut io::BufWriter::new(out);
        if self.options.looks.json {
            output::json(out, self.options.table.key, &self.options.columns, &cells)?;
            return out.flush();
        }
        if cells.is_empty() {
            return Ok(());
        }
        let headings = !std::mem::replace(&mut self.printed, true);
        output::basic(
            out,
            &self.options.looks,
            &self.options.columns,
            cells,
            &mut self.widths,
            headings,
        )?;
        out.flush()
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
    fn order(&self, left: &Values, right: &Values) -> Ordering {
        self.sort
            .iter()
            .map(|key| {
                let order = value::compare(&left[key.place], &right[key.place]);
                match key.descending {
                    true => order.reverse(),
                    false => order,
                }
            })
            .find(|order| order.is_ne())
            .unwrap_or(Ordering::Equal)
    }

    fn cells<'a>(&self, row: &'a Values) -> Vec<Cow<'a, str>> {
        self.places
            .iter()
            .map(|place| value::shown(&row[*place], self.looks.units))
            .collect()
    }
}

#[cfg(test)]
mod tests;
