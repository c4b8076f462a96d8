//! What the parts together make of headers.

use super::*;

#[test]
fn ranges_tell_where_they_begin_and_how_long_the_whole_is() {
    for (text, expected) in [
        ("bytes 100-199/200", Some((100, 200))),
        ("bytes 0-0/1", Some((0, 1))),
        ("bytes */200", None),
        ("bytes 100-199/*", None),
        ("items 1-2/3", None),
        ("bytes 99999999999999999999-1/2", None),
        ("", None),
    ] {
        assert_eq!(parse_range(text), expected, "{text}");
    }
}
