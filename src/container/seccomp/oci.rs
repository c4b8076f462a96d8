//! A seccomp profile in the words of the OCI runtime specification (config-linux.md, "Seccomp"), for
//! an OCI runtime that installs the filter.

use super::calls;
use super::profile::{Action, Comparison, Condition, Profile, Rule};
use miniserde::json::{Array, Number, Object, Value};

/// Name of the native architecture in libseccomp.
const ARCHITECTURE: &str =
    if cfg!(target_arch = "x86_64") { "SCMP_ARCH_X86_64" } else { "SCMP_ARCH_AARCH64" };

/// Writes `profile` as the object `linux.seccomp` of config.json.
pub fn to_json(profile: &Profile) -> Value {
    let errno = errno(profile.default).map(|errno| ("defaultErrnoRet", errno));
    let keys = [
        ("defaultAction", text(action(profile.default))),
        ("architectures", list([text(ARCHITECTURE)])),
        ("syscalls", list(profile.rules.iter().map(rule))),
    ];
    object(keys.into_iter().chain(errno))
}

fn rule(rule: &Rule) -> Value {
    let is_named = |call: &calls::Call| rule.calls.contains(&call.number);
    let names = calls::all().filter(is_named).map(|call| text(call.name));
    let errno = errno(rule.action).map(|errno| ("errnoRet", errno));
    let keys = [
        ("names", list(names)),
        ("action", text(action(rule.action))),
        ("args", list(rule.conditions.iter().map(condition))),
    ];
    object(keys.into_iter().chain(errno))
}

fn condition(condition: &Condition) -> Value {
    object([
        ("index", number(condition.index.into())),
        ("value", number(condition.value)),
        ("valueTwo", number(condition.second)),
        ("op", text(comparison(condition.comparison))),
    ])
}

fn action(action: Action) -> &'static str {
    match action.kind() {
        libc::SECCOMP_RET_ALLOW => "SCMP_ACT_ALLOW",
        libc::SECCOMP_RET_LOG => "SCMP_ACT_LOG",
        libc::SECCOMP_RET_TRACE => "SCMP_ACT_TRACE",
        libc::SECCOMP_RET_ERRNO => "SCMP_ACT_ERRNO",
        libc::SECCOMP_RET_TRAP => "SCMP_ACT_TRAP",
        libc::SECCOMP_RET_KILL_THREAD => "SCMP_ACT_KILL_THREAD",
        _ => "SCMP_ACT_KILL_PROCESS",
    }
}

/// Errno of an action that has one.
fn errno(action: Action) -> Option<Value> {
    let has_data = matches!(action.kind(), libc::SECCOMP_RET_ERRNO | libc::SECCOMP_RET_TRACE);
    has_data.then(|| number(action.data().into()))
}

fn comparison(comparison: Comparison) -> &'static str {
    match comparison {
        Comparison::Equal => "SCMP_CMP_EQ",
        Comparison::NotEqual => "SCMP_CMP_NE",
        Comparison::Less => "SCMP_CMP_LT",
        Comparison::LessOrEqual => "SCMP_CMP_LE",
        Comparison::Greater => "SCMP_CMP_GT",
        Comparison::GreaterOrEqual => "SCMP_CMP_GE",
        Comparison::MaskedEqual => "SCMP_CMP_MASKED_EQ",
    }
}

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

fn number(number: u64) -> Value {
    Value::Number(Number::U64(number))
}

fn list(values: impl IntoIterator<Item = Value>) -> Value {
    Value::Array(values.into_iter().collect::<Array>())
}

fn object(keys: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
    let mut object = Object::new();
    for (key, value) in keys {
        object.insert(key.to_owned(), value);
    }
    Value::Object(object)
}
