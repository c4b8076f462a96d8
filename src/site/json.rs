//! JSON written by people: all faults of a file are reported at once, each with its position.
//!
//! Start at [`read`]: it hands the document to a function that takes the values out, one line per key.
//! A value that is not as expected is recorded as a fault and replaced by a placeholder, so that reading
//! continues; placeholders never leave [`read`]. JSON between machines (manifests, OCI
//! state) stays with miniserde.

pub mod bounds;
mod output;
mod parse;

use std::cell::RefCell;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use crate::log::Level;
pub use output::write;
use parse::{Kind, Node};

/// A message about a position in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    line: usize,
    column: usize,
    path: String,
    what: String,
    /// The part of the file that was found instead of what was expected.
    found: Option<String>,
    /// The line itself, and how many characters of it are meant.
    source: String,
    width: usize,
}

impl Diagnostic {
    fn new(text: &str, span: &Range<usize>, path: String, what: String) -> Self {
        let before = text.get(..span.start).unwrap_or(text);
        let after = text.get(span.start..).unwrap_or_default();
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let source = text.get(start..).unwrap_or_default().lines().next().unwrap_or_default();
        let meant = text.get(span.clone()).unwrap_or(after).lines().next().unwrap_or_default();
        Self {
            line: before.matches('\n').count() + 1,
            column: before.get(start..).unwrap_or_default().chars().count() + 1,
            path,
            what,
            found: None,
            source: source.to_owned(),
            width: meant.chars().count().max(1),
        }
    }

    /// `file:line:column: path.to.key: what, found value`; the value only with `values`, for those
    /// who may read the file.
    #[must_use]
    pub fn describe(&self, file: &str, values: bool) -> String {
        let Self { line, column, path, what, .. } = self;
        let colon = if path.is_empty() { "" } else { ": " };
        let found = self.found.as_ref().filter(|_| values);
        let found = found.map(|found| format!(", found {found}")).unwrap_or_default();
        format!("{file}:{line}:{column}: {path}{colon}{what}{found}")
    }

    /// The line that is meant, with `^~~~` under the place. Only for those who may read the file.
    #[must_use]
    pub fn excerpt(&self) -> String {
        // Tabs stay tabs, so that the mark stands right however wide they are shown.
        let blank = |c| if c == '\t' { '\t' } else { ' ' };
        let indent: String = self.source.chars().take(self.column - 1).map(blank).collect();
        format!("    {}\n    {indent}^{}", self.source, "~".repeat(self.width - 1))
    }
}

/// Result of reading a file.
#[derive(Debug)]
pub struct Reading<T> {
    /// The value, or every fault of the file in the order of its text.
    pub value: Result<T, Vec<Diagnostic>>,
    /// Notes that do not prevent its use: unknown keys, keys without effect.
    pub notes: Vec<(Level, Diagnostic)>,
}

impl<T> Reading<T> {
    /// Value, or one error with all faults, and notes. Messages call the file `file`, and show its
    /// values and lines only if it is `readable` for the caller.
    pub fn explain(self, file: &str, readable: bool) -> (crate::Result<T>, Vec<(Level, String)>) {
        let describe = |fault: &Diagnostic| {
            let excerpt = readable.then(|| fault.excerpt());
            std::iter::once(fault.describe(file, readable)).chain(excerpt)
        };
        let value = self.value.map_err(|faults| {
            crate::Error::from_lines(&faults.iter().flat_map(describe).collect::<Vec<_>>())
        });
        let notes = self.notes.iter().map(|(level, note)| (*level, note.describe(file, readable)));
        (value, notes.collect())
    }
}

/// Reads `text` with `take`, which takes out of the document what it is made of.
pub fn read<T>(text: &str, take: impl FnOnce(&Value<'_>) -> T) -> Reading<T> {
    let diagnostics = Diagnostics { text, faults: RefCell::default(), notes: RefCell::default() };
    let value = match parse::parse(text) {
        Err(fault) => {
            diagnostics.fault(&fault.at, String::new(), fault.what, fault.found);
            None
        }
        Ok((node, doubled)) => {
            for (key, at) in doubled {
                diagnostics.fault(&at, key, "given twice".into(), None);
            }
            Some(take(&Value { node: &node, path: String::new(), diagnostics: &diagnostics }))
        }
    };
    let mut faults = diagnostics.faults.into_inner();
    let mut notes = diagnostics.notes.into_inner();
    faults.sort_by_key(|fault| (fault.line, fault.column));
    notes.sort_by_key(|(_, note)| (note.line, note.column));
    let value = value.filter(|_| faults.is_empty()).ok_or(faults);
    Reading { value, notes }
}

/// Collects faults and notes while values are taken.
#[derive(Debug)]
struct Diagnostics<'a> {
    text: &'a str,
    faults: RefCell<Vec<Diagnostic>>,
    notes: RefCell<Vec<(Level, Diagnostic)>>,
}

impl Diagnostics<'_> {
    fn fault(&self, at: &Range<usize>, path: String, what: String, found: Option<String>) {
        let remark = Diagnostic { found, ..Diagnostic::new(self.text, at, path, what) };
        self.faults.borrow_mut().push(remark);
    }

    fn note(&self, level: Level, at: &Range<usize>, path: String, what: String) {
        self.notes.borrow_mut().push((level, Diagnostic::new(self.text, at, path, what)));
    }
}

/// A value of the document, which knows its place.
#[derive(Debug)]
pub struct Value<'a> {
    node: &'a Node,
    path: String,
    diagnostics: &'a Diagnostics<'a>,
}

impl<'a> Value<'a> {
    /// Notes that this value cannot be used. `what` must not quote the file, which not everyone who
    /// reads the message may read: see [`Value::expected`].
    pub fn fault(&self, what: &str) {
        self.diagnostics.fault(&self.node.at, self.path.clone(), what.into(), None);
    }

    /// Notes something that the reader of the file should know.
    pub fn note(&self, level: Level, what: impl Into<String>) {
        self.diagnostics.note(level, &self.node.at, self.path.clone(), what.into());
    }

    /// Notes that something else was expected here.
    pub fn expected(&self, what: &str) {
        let (path, what) = (self.path.clone(), format!("expected {what}"));
        self.diagnostics.fault(&self.node.at, path, what, Some(self.found()));
    }

    /// Notes that `key`, under which this value stands, should have been something else.
    pub fn expected_key(&self, key: &str, what: &str) {
        let path = self.path.strip_suffix(key).unwrap_or_default().trim_end_matches('.');
        let (what, found) = (format!("expected {what}"), Some(format!("{key:?}")));
        self.diagnostics.fault(&self.node.at, path.to_owned(), what, found);
    }

    fn found(&self) -> String {
        const SHOWN: usize = 40;
        match self.node.kind {
            Kind::List(_) => "a list".into(),
            Kind::Map(_) => "an object".into(),
            _ => {
                let source = self.source();
                if source.chars().count() <= SHOWN {
                    return source.to_owned();
                }
                source.chars().take(SHOWN).chain("...".chars()).collect()
            }
        }
    }

    fn source(&self) -> &str {
        self.diagnostics.text.get(self.node.at.clone()).unwrap_or_default()
    }

    /// A string.
    pub fn text(&self) -> String {
        self.text_where("a string", |_| true)
    }

    /// A string that `fits`; `what` names what such a string is.
    #[must_use]
    pub fn text_where(&self, what: &str, fits: impl FnOnce(&str) -> bool) -> String {
        match &self.node.kind {
            // No name, path or variable can hold a NUL; the kernel would cut the text there.
            Kind::Text(text) if !text.contains('\0') && fits(text) => return text.clone(),
            _ => self.expected(what),
        }
        String::new()
    }

    /// `true` or `false`.
    #[must_use]
    pub fn flag(&self) -> bool {
        if let Kind::Bool(flag) = self.node.kind {
            return flag;
        }
        self.expected("true or false");
        false
    }

    /// A whole number in `range`.
    #[must_use]
    pub fn number(&self, range: std::ops::RangeInclusive<u32>) -> u32 {
        if let Kind::Number(Some(number)) = self.node.kind
            && range.contains(&number)
        {
            return number;
        }
        let (from, to) = range.into_inner();
        match to {
            u32::MAX => self.expected(&format!("a whole number, {from} or more")),
            _ => self.expected(&format!("a whole number from {from} to {to}")),
        }
        0
    }

    /// A whole number of up to 64 bits.
    #[must_use]
    pub fn wide_number(&self) -> u64 {
        let number = match self.node.kind {
            Kind::Number(_) => self.source().parse().ok(),
            _ => None,
        };
        number.unwrap_or_else(|| {
            self.expected(&format!("a whole number from 0 to {}", u64::MAX));
            0
        })
    }

    /// An absolute path without `..`; repeated and trailing slashes are taken off.
    pub fn absolute_path(&self) -> PathBuf {
        let text = self.text_where("an absolute path without \"..\"", is_absolute_path);
        Path::new(&text).components().collect()
    }

    /// One of a few words, each of which stands for a value.
    #[must_use]
    pub fn one_of<T: Copy + Default>(&self, choices: &[(&str, T)]) -> T {
        if let Kind::Text(text) = &self.node.kind
            && let Some((_, choice)) = choices.iter().find(|(name, _)| name == text)
        {
            return *choice;
        }
        let names: Vec<_> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        let one_of = if names.len() > 1 { "one of " } else { "" };
        self.expected(&format!("{one_of}{}", names.join(", ")));
        T::default()
    }

    /// A list, each of whose items `take` reads.
    pub fn list<T>(&self, take: impl FnMut(&Value<'a>) -> T) -> Vec<T> {
        self.items().iter().map(take).collect()
    }

    /// Items of a list. One function for all types that lists are read as, for size, as those below.
    #[inline(never)]
    fn items(&self) -> Vec<Value<'a>> {
        let Kind::List(items) = &self.node.kind else {
            self.expected("a list");
            return Vec::new();
        };
        let child = |(index, node)| {
            let path = format!("{}[{index}]", self.path);
            Value { node, path, diagnostics: self.diagnostics }
        };
        items.iter().enumerate().map(child).collect()
    }

    /// An object with known keys, which `take` takes out; the others are noted.
    pub fn object<T: Default>(&self, take: impl FnOnce(&mut Object<'a>) -> T) -> T {
        let Some(mut object) = self.begin() else { return T::default() };
        let value = take(&mut object);
        object.end();
        value
    }

    #[inline(never)]
    fn begin(&self) -> Option<Object<'a>> {
        if !self.is_object() {
            self.expected("an object");
            return None;
        }
        let (at, path, entries) = (self.node.at.start, self.path.clone(), self.entries());
        Some(Object { at, path, diagnostics: self.diagnostics, entries })
    }

    fn is_null(&self) -> bool {
        matches!(self.node.kind, Kind::Null)
    }

    /// Tells whether this is an object.
    #[must_use]
    pub fn is_object(&self) -> bool {
        matches!(self.node.kind, Kind::Map(_))
    }

    /// The keys of an object and what they hold, in the order of the file; of anything else none.
    #[must_use]
    pub fn entries(&self) -> Vec<(&'a str, Value<'a>)> {
        let Kind::Map(entries) = &self.node.kind else { return Vec::new() };
        let dot = if self.path.is_empty() { "" } else { "." };
        entries
            .iter()
            .map(|(key, node)| {
                let path = format!("{}{dot}{key}", self.path);
                (key.as_str(), Value { node, path, diagnostics: self.diagnostics })
            })
            .collect()
    }

    /// The value as it stands in the file, to be passed on unchanged.
    pub fn verbatim(&self) -> miniserde::json::Value {
        let copy = miniserde::json::from_str(self.source());
        copy.unwrap_or_else(|_| {
            self.expected("plain JSON");
            miniserde::json::Value::Null
        })
    }
}

/// The entries of an object that were not yet taken.
#[derive(Debug)]
pub struct Object<'a> {
    at: usize,
    path: String,
    diagnostics: &'a Diagnostics<'a>,
    entries: Vec<(&'a str, Value<'a>)>,
}

impl<'a> Object<'a> {
    /// Takes a key that may be absent.
    pub fn optional<T>(&mut self, key: &str, take: impl FnOnce(&Value<'a>) -> T) -> Option<T> {
        self.remove(key).as_ref().map(take)
    }

    /// Takes a key that must be there.
    pub fn required<T: Default>(&mut self, key: &str, take: impl FnOnce(&Value<'a>) -> T) -> T {
        let value = self.remove(key);
        if value.is_none() {
            self.missing(key);
        }
        value.as_ref().map(take).unwrap_or_default()
    }

    /// Takes the value of a key that may be absent or null.
    pub fn given(&mut self, key: &str) -> Option<Value<'a>> {
        self.remove(key).filter(|value| !value.is_null())
    }

    #[inline(never)]
    fn remove(&mut self, key: &str) -> Option<Value<'a>> {
        let index = self.entries.iter().position(|(known, _)| *known == key)?;
        Some(self.entries.swap_remove(index).1)
    }

    #[inline(never)]
    fn missing(&self, key: &str) {
        let what = format!("missing key \"{key}\"");
        self.diagnostics.fault(&(self.at..self.at + 1), self.path.clone(), what, None);
    }

    /// Notes the keys that were not taken.
    #[inline(never)]
    fn end(self) {
        for (_, unknown) in self.entries {
            unknown.note(Level::Warn, "unknown key, ignored");
        }
    }
}

/// Reports whether `text` is an absolute path without `..`.
#[must_use]
pub fn is_absolute_path(text: &str) -> bool {
    let path = Path::new(text);
    path.is_absolute() && !path.components().any(|part| part == Component::ParentDir)
}

#[cfg(test)]
mod tests;
