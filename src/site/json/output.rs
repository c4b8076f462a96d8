//! JSON for other programs.

/// Writes `value` for other programs: without the nulls that miniserde gives for what is absent.
#[must_use]
pub fn write(value: &impl miniserde::Serialize) -> String {
    let text = miniserde::json::to_string(value);
    match miniserde::json::from_str(&text) {
        Ok(mut value) => {
            prune(&mut value);
            miniserde::json::to_string(&value)
        }
        // What was just written can be read.
        Err(_) => text,
    }
}

/// Drops the nulls that miniserde writes for `None`.
pub(super) fn prune(value: &mut miniserde::json::Value) {
    use miniserde::json::Value;
    match value {
        Value::Array(items) => items.iter_mut().for_each(prune),
        Value::Object(entries) => {
            for (key, mut value) in std::mem::take(entries) {
                if !matches!(value, Value::Null) {
                    prune(&mut value);
                    entries.insert(key, value);
                }
            }
        }
        _ => {}
    }
}
