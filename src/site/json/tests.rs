use super::*;

/// All that is said about `text` when it is read as a small configuration.
fn faults(text: &str) -> Vec<String> {
    let reading = read(text, |root| {
        root.object(|keys| {
            keys.required("flag", Value::flag);
            keys.optional("path", Value::absolute_path);
            keys.optional("level", |level| level.number(1..=9));
            keys.optional("kind", |kind| kind.one_of(&[("a", 1), ("b", 2)]));
            keys.optional("list", |list| {
                list.list(|item| item.object(|keys| keys.required("name", Value::text)))
            });
        });
    });
    let faults = reading.value.err().unwrap_or_default();
    faults.iter().map(|fault| fault.describe("f", true)).collect()
}

#[test]
fn faults_tell_place_path_expectation_and_finding() {
    let cases: &[(&str, &[&str])] = &[
        (r#"{"flag": true}"#, &[]),
        (r#" {"flag": false, "path": "/a", "level": 3, "kind": "b", "list": []} "#, &[]),
        ("{}", &[r#"f:1:1: missing key "flag""#]),
        (r#"{"flag": "yes"}"#, &[r#"f:1:10: flag: expected true or false, found "yes""#]),
        ("{\"flag\":\n null}", &["f:2:2: flag: expected true or false, found null"]),
        ("[]", &["f:1:1: expected an object, found a list"]),
        (
            r#"{"flag":true,"path":"a"}"#,
            &[r#"f:1:21: path: expected an absolute path without "..", found "a""#],
        ),
        (
            r#"{"flag":true,"path":"/a/../b"}"#,
            &[r#"f:1:21: path: expected an absolute path without "..", found "/a/../b""#],
        ),
        (
            r#"{"flag":true,"path":"/a\u0000b"}"#,
            &[r#"f:1:21: path: expected an absolute path without "..", found "/a\u0000b""#],
        ),
        (
            r#"{"flag":true,"level":10}"#,
            &["f:1:22: level: expected a whole number from 1 to 9, found 10"],
        ),
        (
            r#"{"flag":true,"level":-1.5}"#,
            &["f:1:22: level: expected a whole number from 1 to 9, found -1.5"],
        ),
        (r#"{"flag":true,"kind":"c"}"#, &[r#"f:1:21: kind: expected one of "a", "b", found "c""#]),
        (
            "{\"list\": [{\"name\": 1},\n {}, 2],\n \"flag\": [1]}",
            &[
                "f:1:20: list[0].name: expected a string, found 1",
                r#"f:2:2: list[1]: missing key "name""#,
                "f:2:6: list[2]: expected an object, found 2",
                "f:3:10: flag: expected true or false, found a list",
            ],
        ),
        (r#"{"flag":true,"flag":1}"#, &["f:1:14: flag: given twice"]),
        ("{\"flag\":true\n  \"kind\": 1}", &["f:2:3: expected ',' or '}', found '\"'"]),
        (r#"{"flag":true,}"#, &["f:1:14: expected a key in double quotes, found '}'"]),
        (r#"{"flag":tru}"#, &["f:1:9: expected a value, found tru"]),
        (r#"{"flag":012}"#, &["f:1:9: expected a number, found 012"]),
        (r#"{"flag":1-1}"#, &["f:1:9: expected a number, found 1-1"]),
        ("{\"flag\":\"a\n\"}", &["f:1:9: string is not closed on its line"]),
        (r#"{"flag":"\x"}"#, &["f:1:9: malformed string"]),
        (r#"{"flag":true} x"#, &["f:1:15: expected the end of the file, found 'x'"]),
        ("", &["f:1:1: expected a value, found the end of the file"]),
        (r#"{"é": 1, "flag": 2}"#, &["f:1:18: flag: expected true or false, found 2"]),
    ];
    for (text, expected) in cases {
        assert_eq!(faults(text), *expected, "{text}");
    }
}

#[test]
fn unknown_keys_are_notes() {
    let reading = read(r#"{"a": {"b": 1}, "c": 2}"#, |root| {
        root.object(|keys| {
            keys.required("a", |a| a.object(|_| ()));
        });
    });
    assert!(reading.value.is_ok());
    let notes: Vec<_> = reading.notes.iter().map(|(_, note)| note.describe("f", true)).collect();
    assert_eq!(notes, ["f:1:13: a.b: unknown key, ignored", "f:1:22: c: unknown key, ignored"]);
}

#[test]
fn the_excerpt_marks_the_place() {
    let reading = read("{\n\t\"é\": \"wrong\"\n}", |root| {
        root.object(|keys| keys.required("é", Value::flag))
    });
    let fault = reading.value.unwrap_err().remove(0);
    assert_eq!(fault.excerpt(), "    \t\"é\": \"wrong\"\n    \t     ^~~~~~~");
}

#[test]
fn deep_nesting_is_refused() {
    let text = "[".repeat(100_000);
    assert_eq!(faults(&text), ["f:1:33: nested too deeply"]);
}

#[test]
fn no_input_makes_it_panic() {
    let good =
        r#"{"flag": true, "päth": "/é\u00e9\n", "level": -1.5e3, "list": [{"name": null}, {}]}"#;
    // A small linear congruence, so that every run tries the same inputs.
    let mut seed = 1_u64;
    let mut random = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % below
    };
    let splices: Vec<char> = "{}[]\",:\\u0e-é\u{0}\n\u{1F600}tn".chars().collect();
    for _ in 0..20_000 {
        let mut text: Vec<char> = good.chars().collect();
        for _ in 0..=random(4) {
            let at = random(text.len());
            match random(3) {
                0 => text[at] = ' ',
                1 => text.insert(at, splices[random(splices.len())]),
                _ => text.truncate(at.max(9)),
            }
        }
        let text: String = text.into_iter().collect();
        let reading = read(&text, |root| {
            root.verbatim();
            for (_, value) in root.entries() {
                value.absolute_path();
                value.list(Value::text);
            }
        });
        for fault in reading.value.err().unwrap_or_default() {
            assert!(!fault.describe("f", true).is_empty() && fault.excerpt().contains('^'));
        }
    }
}

#[test]
fn nulls_are_pruned_at_every_depth() {
    let mut value = miniserde::json::from_str(r#"{"a":null,"b":[{"c":null,"d":1}]}"#).unwrap();
    output::prune(&mut value);
    assert_eq!(miniserde::json::to_string(&value), r#"{"b":[{"d":1}]}"#);
}
