//! Bounds the memory of a JSON document before a parser builds it.
//!
//! miniserde sets no limit, and a value takes more memory than its text: 32 bytes, up to 100 while
//! the list that holds it grows, and 750 as the only member of an object, which takes a whole node
//! of a B-tree. 16 MiB of `{"":0},` could so become 1.6 GB, and 16 million brackets as many layers
//! of the parser.

use crate::error::{Error, Result};

/// Maximum nesting and number of values of a JSON document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Maximum number of arrays and objects that are open at once.
    pub depth: usize,
    /// Maximum number of values: all elements and members, arrays and objects themselves included.
    /// Budget 750 bytes for each, beside the text itself, where the document becomes a
    /// `miniserde::json::Value`; 150 bytes where it becomes structures of known fields.
    pub values: usize,
}

/// Checks `text` against `limits` by the structural characters outside of strings: `[`, `{`, `,`
/// and the closing brackets. Takes one pass and no memory. The count is never below the number of
/// values, and above it by at most one for each array or object.
///
/// Any text is accepted, be it valid JSON or not: to refuse what is malformed is the parser's part.
///
/// # Errors
/// If the text nests deeper, or may hold more values, than `limits` allow.
pub fn check(text: &str, limits: Limits) -> Result<()> {
    let (mut depth, mut values) = (0_usize, 1_usize);
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => skip_string(&mut bytes),
            b'[' | b'{' => {
                depth += 1;
                values += 1;
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b',' => values += 1,
            _ => {}
        }
        if depth > limits.depth {
            return Err(Error::new(format!("nested deeper than {} levels", limits.depth)));
        }
        if values > limits.values {
            return Err(Error::new(format!("more than {} JSON values", limits.values)));
        }
    }
    Ok(())
}

/// Skips the rest of a string and its closing quotation mark. A backslash takes the meaning of the
/// character behind it (RFC 8259, section 7).
fn skip_string(bytes: &mut std::str::Bytes<'_>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => drop(bytes.next()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutate::{Random, mutate};
    use miniserde::json::Value;

    fn passes(text: &str, depth: usize, values: usize) -> bool {
        check(text, Limits { depth, values }).is_ok()
    }

    #[test]
    fn depth_is_the_number_of_open_brackets() {
        for (text, depth) in [
            ("", 0),
            ("7", 0),
            ("[]", 1),
            ("[[],[],{}]", 2),
            (r#"{"a":{"b":[1]},"c":[]}"#, 3),
            (r#"["[[[{{{", "\"[[", "\\", [1]]"#, 2),
            // Not JSON: closing brackets give nothing back that was not opened.
            ("]]]]}}}}[[", 2),
        ] {
            assert!(passes(text, depth, 100), "{text}");
            assert!(depth == 0 || !passes(text, depth - 1, 100), "{text}");
        }
    }

    #[test]
    fn the_number_of_values_is_never_underestimated() {
        for (text, values) in [
            ("null", 1),
            ("[1,2,3]", 4),
            (r#"{"a":1,"b":[2,3]}"#, 5),
            (r#"["a,b,c","\",","\\\",",""]"#, 5),
            // One too many for each container that holds nothing.
            ("[[],{}]", 5),
        ] {
            assert!(passes(text, 9, values), "{text}");
            assert!(!passes(text, 9, values - 1), "{text}");
        }
    }

    #[test]
    fn refusals_name_the_limit() {
        let error = |text: &str| check(text, Limits { depth: 3, values: 5 }).unwrap_err();
        assert_eq!(error("[[[[").to_string(), "nested deeper than 3 levels");
        assert_eq!(error("[1,2,3,4,5]").to_string(), "more than 5 JSON values");
    }

    fn count(value: &Value) -> (usize, usize) {
        let children: Vec<&Value> = match value {
            Value::Array(items) => items.iter().collect(),
            Value::Object(members) => members.values().collect(),
            _ => return (0, 1),
        };
        let counts = children.into_iter().map(count);
        let (depth, values) =
            counts.fold((0, 1), |(d, v), (depth, values)| (d.max(depth), v + values));
        (depth + 1, values)
    }

    #[test]
    fn whatever_the_parser_takes_is_within_the_limits_that_were_checked() {
        let mut random = Random::new();
        let seed = br#"{"a":[1,"x\"y",{"b":[]},[[2]]],"c\\":{"d":"[","e":null}}"#;
        let mut parsed = 0;
        for _ in 0..50_000 {
            let bytes = mutate(seed, b"[]{},:\"\\1", &mut random);
            let Ok(text) = String::from_utf8(bytes) else { continue };
            let Ok(value) = miniserde::json::from_str::<Value>(&text) else { continue };
            let (depth, values) = count(&value);
            assert!(depth == 0 || !passes(&text, depth - 1, usize::MAX), "{text}");
            assert!(!passes(&text, usize::MAX, values - 1), "{text}");
            parsed += 1;
        }
        assert!(parsed > 100, "{parsed}");
    }

    #[test]
    fn a_value_takes_32_bytes_beside_what_it_holds() {
        assert_eq!(size_of::<Value>(), 32);
    }
}
