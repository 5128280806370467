//! A TOML file as text, and mistakes in it that say where they are and how to mend them.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// One mistake in a file: where it is and how to mend it.
///
/// `Display` gives the whole of it over several lines; [`Fault::summary`] gives one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where the value came from: a file's path, `environment LB_...` or `--set ...`.
    pub source: String,
    /// Line in the file, from 1.
    pub line: Option<usize>,
    /// Path of the field, as `service[0].ports[1].published`; empty: the document itself.
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub hint: Option<String>,
    /// The offending line, and which of its characters are meant.
    pub excerpt: Option<Excerpt>,
}

/// The offending line of a [`Fault`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excerpt {
    /// The line without its end.
    pub text: String,
    /// Characters of `text` that are meant.
    pub mark: Range<usize>,
}

impl Fault {
    /// A fault of something that is not part of a text.
    pub fn new(source: impl Into<String>, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            source: source.into(),
            line: None,
            field: field.into(),
            message: message.into(),
            hint: None,
            excerpt: None,
        }
    }

    /// Adds the way to mend it.
    #[must_use]
    pub fn with_hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint;
        self
    }

    /// `FILE:LINE: FIELD: MESSAGE` in one line.
    pub fn summary(&self) -> String {
        let mut out = self.source.clone();
        if let Some(line) = self.line {
            out.push_str(&format!(":{line}"));
        }
        out.push_str(": ");
        if !self.field.is_empty() {
            out.push_str(&format!("{}: ", self.field));
        }
        out.push_str(&self.message);
        out
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.summary())?;
        let gutter = self.line.map_or(2, |line| line.to_string().len() + 2);
        if let (Some(line), Some(excerpt)) = (self.line, &self.excerpt) {
            write!(f, "\n  {line} | {}", excerpt.text)?;
            let width = excerpt.mark.len().max(1);
            // Tabs stay tabs, so that the mark stands below what it means.
            let lead: String = excerpt
                .text
                .chars()
                .take(excerpt.mark.start)
                .map(|c| if c == '\t' { '\t' } else { ' ' })
                .collect();
            write!(f, "\n{:gutter$} | {lead}{}", "", "^".repeat(width))?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n{:gutter$} = help: {hint}", "")?;
        }
        Ok(())
    }
}

/// A value that is well formed and still wrong, not yet located.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Path of the field, as in [`Fault::field`].
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub hint: Option<String>,
}

/// A TOML text and the name under which its faults are reported.
#[derive(Clone, Copy, Debug)]
pub struct Document<'a> {
    /// The file's path, for messages.
    pub name: &'a str,
    /// Its content.
    pub text: &'a str,
}

/// Where one key and its value stand in the text.
struct Place {
    field: String,
    key: Range<usize>,
    value: Range<usize>,
}

impl<'a> Document<'a> {
    /// Names a text.
    pub fn new(name: &'a str, text: &'a str) -> Self {
        Self { name, text }
    }

    /// Names bytes that ought to be a text.
    ///
    /// # Errors
    /// A fault with the line of the first byte that is not UTF-8.
    pub fn from_bytes(name: &'a str, bytes: &'a [u8]) -> Result<Self, Box<Fault>> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Self { name, text }),
            Err(error) => {
                let line = bytes[..error.valid_up_to()]
                    .iter()
                    .filter(|byte| **byte == b'\n')
                    .count()
                    + 1;
                let mut fault = Fault::new(name, "", "not UTF-8 text")
                    .with_hint(Some("TOML files are UTF-8; save the file in this encoding".into()));
                fault.line = Some(line);
                Err(Box::new(fault))
            }
        }
    }

    /// Reads the text as a `T`.
    ///
    /// # Errors
    /// A fault with line and field, and for unknown fields and values the nearest known one.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, Box<Fault>> {
        toml::from_str(self.text).map_err(|error| {
            let span = error.span();
            let message = error.message().trim().replace('\n', "; ");
            let field = span.as_ref().map(|span| self.field_at(span)).unwrap_or_default();
            let (mut message, hint) = explain(&message);
            if let (true, Some(key)) = (
                message == "duplicate key",
                span.clone().and_then(|span| self.text.get(span)),
            ) {
                message = format!("duplicate key `{key}`");
            }
            let mut fault = Fault::new(self.name, field, message).with_hint(hint);
            if let Some(span) = span {
                self.mark(&mut fault, &span);
            }
            Box::new(fault)
        })
    }

    /// Locates problems, in the order of the text. A field that is not written points at the nearest enclosing one
    /// that is.
    pub fn faults(&self, problems: impl IntoIterator<Item = Problem>) -> Vec<Fault> {
        let places: HashMap<String, (Range<usize>, Range<usize>)> = self
            .places()
            .into_iter()
            .map(|place| (place.field, (place.key, place.value)))
            .collect();
        let mut faults: Vec<Fault> = problems
            .into_iter()
            .map(|Problem { field, message, hint }| {
                let span = self.span_of(&places, &field);
                let mut fault = Fault::new(self.name, field, message).with_hint(hint);
                if let Some(span) = span {
                    self.mark(&mut fault, &span);
                }
                fault
            })
            .collect();
        faults.sort_by_key(|fault| fault.line);
        faults
    }

    /// Every field that is written, with its line.
    pub fn fields(&self) -> Vec<(String, usize)> {
        let mut places = self.places();
        places.sort_by_key(|place| place.key.start);
        let (mut line, mut counted) = (1, 0);
        let mut fields = Vec::with_capacity(places.len());
        for place in places {
            // Counted on from the field before: files may have hundreds of thousands of fields.
            let start = floor(self.text, place.key.start);
            line += self.text[counted..start].matches('\n').count();
            counted = start;
            fields.push((place.field, line));
        }
        fields
    }

    fn mark(&self, fault: &mut Fault, span: &Range<usize>) {
        let (line, column) = self.position(span.start);
        let line_start = self.text[..floor(self.text, span.start)]
            .rfind('\n')
            .map_or(0, |at| at + 1);
        let text = self.text[line_start..].lines().next().unwrap_or_default();
        let length = text.chars().count();
        let bytes = floor(self.text, span.start)..floor(self.text, span.end.max(span.start));
        let marked = self.text[bytes].lines().next().unwrap_or_default().chars().count();
        let start = column.min(length);
        fault.line = Some(line);
        if !text.trim().is_empty() {
            fault.excerpt = Some(Excerpt {
                text: text.to_owned(),
                mark: start..(start + marked).min(length),
            });
        }
    }

    /// Line from 1 and column from 0, in characters.
    fn position(&self, offset: usize) -> (usize, usize) {
        let before = &self.text[..floor(self.text, offset)];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count())
    }

    fn span_of(&self, places: &HashMap<String, (Range<usize>, Range<usize>)>, field: &str) -> Option<Range<usize>> {
        let mut wanted = field;
        loop {
            if let Some((key, value)) = places.get(wanted) {
                // A value of several lines is named by its key.
                let several = self.text.get(value.clone()).is_none_or(|text| text.contains('\n'));
                return Some(if several { key.clone() } else { value.clone() });
            }
            wanted = &wanted[..wanted.rfind(['.', '['])?];
        }
    }

    /// Path of the innermost field whose key or value holds this span.
    fn field_at(&self, span: &Range<usize>) -> String {
        let holds = |range: &Range<usize>| range.start <= span.start && span.end <= range.end && !range.is_empty();
        let mut best = (usize::MAX, String::new());
        for place in self.places() {
            for range in [&place.key, &place.value] {
                if holds(range) && range.len() < best.0 {
                    best = (range.len(), place.field.clone());
                }
            }
        }
        best.1
    }

    fn places(&self) -> Vec<Place> {
        let (table, _) = DeTable::parse_recoverable(self.text);
        let mut places = Vec::new();
        walk_table(table.get_ref(), "", &mut places);
        places
    }
}

fn walk_table(table: &DeTable<'_>, prefix: &str, places: &mut Vec<Place>) {
    for (key, value) in table {
        let name = key.get_ref();
        let bare = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        let name = if bare {
            name.to_string()
        } else {
            format!("{:?}", name.as_ref())
        };
        let field = if prefix.is_empty() {
            name
        } else {
            format!("{prefix}.{name}")
        };
        walk_value(value, field, key.span(), places);
    }
}

fn walk_value(value: &Spanned<DeValue<'_>>, field: String, key: Range<usize>, places: &mut Vec<Place>) {
    match value.get_ref() {
        DeValue::Table(table) => walk_table(table, &field, places),
        DeValue::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                walk_value(item, format!("{field}[{index}]"), item.span(), places);
            }
        }
        _ => {}
    }
    places.push(Place {
        field,
        key,
        value: value.span(),
    });
}

/// The nearest character boundary at or before `offset`.
fn floor(text: &str, offset: usize) -> usize {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}

/// Rewords serde's messages, and finds the known name that an unknown one may mean.
fn explain(message: &str) -> (String, Option<String>) {
    for (start, what) in [("unknown field `", "field"), ("unknown variant `", "value")] {
        let Some(rest) = message.strip_prefix(start) else {
            continue;
        };
        let Some((unknown, expected)) = rest.split_once('`') else {
            continue;
        };
        let known: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
        let list = known.join(", ");
        let hint = match nearest(unknown, known.iter().copied()) {
            Some(name) => format!("did you mean `{name}`? known: {list}"),
            None => format!("known: {list}"),
        };
        return (
            format!("unknown {what} `{unknown}`"),
            (!known.is_empty()).then_some(hint),
        );
    }
    for (name, meaning) in [
        ("expected u16", "expected a whole number from 0 to 65535"),
        ("expected u32", "expected a whole number from 0 to 4294967295"),
        ("expected a boolean", "expected true or false"),
        ("expected a sequence", "expected a list, [ ] or [[ ]]"),
        ("expected a map", "expected a section or { }"),
    ] {
        if let Some(start) = message.strip_suffix(name) {
            return (format!("{start}{meaning}"), None);
        }
    }
    (message.to_owned(), None)
}

/// The known name nearest to a mistyped one, if any is near.
pub fn nearest<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let unknown = unknown.to_lowercase();
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&unknown, &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= 1 + name.len() / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}
