//! The syntax of JSON, with the place of every value. The first fault ends the reading.

use std::ops::Range;

/// A place, and what is wrong there.
#[derive(Debug)]
pub struct Fault {
    pub at: Range<usize>,
    pub what: String,
    /// The text of the file that was found instead, kept apart: not every reader may see it.
    pub found: Option<String>,
}

/// A value and the bytes that it is written in.
#[derive(Debug)]
pub struct Node {
    pub at: Range<usize>,
    pub kind: Kind,
}

#[derive(Debug)]
pub enum Kind {
    Null,
    Bool(bool),
    /// Only whole numbers of a moderate size are of use in a configuration.
    Number(Option<u32>),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

/// The keys that an object holds more than once.
pub type Doubled = Vec<(String, Range<usize>)>;

type Result<T> = std::result::Result<T, Fault>;

/// Deep enough for any configuration, and far from the end of the stack.
const MAX_DEPTH: usize = 32;

/// Reads one document.
pub fn parse(text: &str) -> Result<(Node, Doubled)> {
    let mut reader = Reader { text, at: 0, doubled: Vec::new() };
    let node = reader.value(0)?;
    reader.skip_space();
    match reader.peek() {
        None => Ok((node, reader.doubled)),
        Some(_) => Err(reader.expected("the end of the file")),
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    doubled: Doubled,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn skip_space(&mut self) {
        self.skip_while(|c| matches!(c, ' ' | '\t' | '\r' | '\n'));
    }

    /// Skips what fits, and tells what that was.
    fn skip_while(&mut self, fits: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c| !fits(c)).unwrap_or(rest.len());
        self.at += end;
        rest.get(..end).unwrap_or_default()
    }

    fn fault(&self, what: impl Into<String>) -> Fault {
        Fault { at: self.at..self.at + 1, what: what.into(), found: None }
    }

    fn expected(&self, what: &str) -> Fault {
        let found = self.peek().map_or_else(|| "the end of the file".into(), |c| format!("{c:?}"));
        Fault { found: Some(found), ..self.fault(format!("expected {what}")) }
    }

    /// Skips `wanted` if it comes next.
    fn eat(&mut self, wanted: char) -> bool {
        self.skip_space();
        let found = self.peek() == Some(wanted);
        if found {
            self.at += wanted.len_utf8();
        }
        found
    }

    fn value(&mut self, depth: usize) -> Result<Node> {
        self.skip_space();
        if depth == MAX_DEPTH {
            return Err(self.fault("nested too deeply"));
        }
        let start = self.at;
        let kind = match self.peek() {
            Some('{') => self.map(depth)?,
            Some('[') => self.list(depth)?,
            Some('"') => Kind::Text(self.string()?),
            Some('-' | '0'..='9') => self.number()?,
            _ => self.word()?,
        };
        Ok(Node { at: start..self.at, kind })
    }

    fn word(&mut self) -> Result<Kind> {
        let start = self.at;
        match self.skip_while(char::is_alphanumeric) {
            "true" => Ok(Kind::Bool(true)),
            "false" => Ok(Kind::Bool(false)),
            "null" => Ok(Kind::Null),
            "" => Err(self.expected("a value")),
            word => Err(self.expected_since(start, "a value", word)),
        }
    }

    fn number(&mut self) -> Result<Kind> {
        let start = self.at;
        let digits =
            self.skip_while(|c| matches!(c, '-' | '+' | '.' | 'e' | 'E') || c.is_ascii_digit());
        // What a number looks like is left to miniserde.
        match miniserde::json::from_str::<miniserde::json::Value>(digits) {
            Ok(_) => Ok(Kind::Number(digits.parse().ok())),
            Err(_) => Err(self.expected_since(start, "a number", digits)),
        }
    }

    /// The fault that `found`, which was read from `start` on, is not `what` has to be there.
    fn expected_since(&self, start: usize, what: &str, found: &str) -> Fault {
        let (what, found) = (format!("expected {what}"), Some(found.to_owned()));
        Fault { at: start..self.at, what, found }
    }

    fn string(&mut self) -> Result<String> {
        let start = self.at;
        let mut escaped = true; // so that the opening quote does not end it
        for (offset, c) in self.rest().char_indices() {
            match c {
                '"' if !escaped => {
                    self.at = start + offset + 1;
                    // The text between the quotes is a JSON string: miniserde undoes its escapes.
                    let quoted = self.text.get(start..self.at).unwrap_or_default();
                    return miniserde::json::from_str(quoted).map_err(|_| Fault {
                        at: start..self.at,
                        what: "malformed string".into(),
                        found: None,
                    });
                }
                '\0'..='\x1f' => break,
                _ => escaped = c == '\\' && !escaped,
            }
        }
        Err(self.fault("string is not closed on its line"))
    }

    fn list(&mut self, depth: usize) -> Result<Kind> {
        let mut items = Vec::new();
        self.eat('[');
        if self.eat(']') {
            return Ok(Kind::List(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            if self.eat(']') {
                return Ok(Kind::List(items));
            }
            if !self.eat(',') {
                return Err(self.expected("',' or ']'"));
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Kind> {
        let mut entries: Vec<(String, Node)> = Vec::new();
        self.eat('{');
        if self.eat('}') {
            return Ok(Kind::Map(entries));
        }
        loop {
            self.skip_space();
            if self.peek() != Some('"') {
                return Err(self.expected("a key in double quotes"));
            }
            let start = self.at;
            let key = self.string()?;
            let end = self.at;
            if !self.eat(':') {
                return Err(self.expected("':'"));
            }
            let value = self.value(depth + 1)?;
            if entries.iter().any(|(known, _)| *known == key) {
                self.doubled.push((key, start..end));
            } else {
                entries.push((key, value));
            }
            if self.eat('}') {
                return Ok(Kind::Map(entries));
            }
            if !self.eat(',') {
                return Err(self.expected("',' or '}'"));
            }
        }
    }
}
