//! The reader of seccomp profiles in the format of Docker and Podman:
//! <https://docs.docker.com/engine/security/seccomp/>.
//!
//! Containers have no capabilities, so rules that need one (`includes.caps`) never apply, and rules
//! that a capability would exclude (`excludes.caps`) do. Unknown system calls are ignored, since
//! profiles name those of all architectures and of later kernels. Everything else that is wrong is
//! an error with its place.

use super::calls::Numbers;
use super::profile::{Action, Comparison, Condition, Profile, Rule};
use crate::error::{Context, Error, Result};
use crate::log::Level;
use crate::site::json::bounds::{self, Limits};
use crate::site::json::{self, Object, Value};

/// Limits of a profile, twenty times the values of Docker's. Bounds the compiler as well.
const LIMITS: Limits = Limits { depth: 8, values: 16_384 };

/// Highest errno: MAX_ERRNO of the kernel.
const MAX_ERRNO: u32 = 4095;

/// Highest index of an argument of a system call.
const MAX_INDEX: u32 = 5;

/// Major and minor number of a kernel's release.
pub type Kernel = (u32, u32);

/// Name of this architecture in `includes` and `excludes`: Go's.
const ARCHITECTURE: &str = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };

/// Action as written, without the errno that may stand beside it.
#[derive(Clone, Copy, Default)]
enum Word {
    #[default]
    Allow,
    Errno,
    KillThread,
    KillProcess,
    Trap,
    Log,
    Trace,
    Notify,
}

const ACTIONS: [(&str, Word); 9] = [
    ("SCMP_ACT_ALLOW", Word::Allow),
    ("SCMP_ACT_ERRNO", Word::Errno),
    ("SCMP_ACT_KILL", Word::KillThread),
    ("SCMP_ACT_KILL_THREAD", Word::KillThread),
    ("SCMP_ACT_KILL_PROCESS", Word::KillProcess),
    ("SCMP_ACT_TRAP", Word::Trap),
    ("SCMP_ACT_LOG", Word::Log),
    ("SCMP_ACT_TRACE", Word::Trace),
    ("SCMP_ACT_NOTIFY", Word::Notify),
];

const COMPARISONS: [(&str, Comparison); 7] = [
    ("SCMP_CMP_EQ", Comparison::Equal),
    ("SCMP_CMP_NE", Comparison::NotEqual),
    ("SCMP_CMP_LT", Comparison::Less),
    ("SCMP_CMP_LE", Comparison::LessOrEqual),
    ("SCMP_CMP_GT", Comparison::Greater),
    ("SCMP_CMP_GE", Comparison::GreaterOrEqual),
    ("SCMP_CMP_MASKED_EQ", Comparison::MaskedEqual),
];

/// Names of the errno values that profiles use; others are written as numbers.
const ERRNOS: [(&str, u32); 10] = [
    ("EPERM", libc::EPERM as u32),
    ("ENOENT", libc::ENOENT as u32),
    ("EAGAIN", libc::EAGAIN as u32),
    ("EACCES", libc::EACCES as u32),
    ("EINVAL", libc::EINVAL as u32),
    ("ENOSYS", libc::ENOSYS as u32),
    ("ENOTSUP", libc::EOPNOTSUPP as u32),
    ("EOPNOTSUPP", libc::EOPNOTSUPP as u32),
    ("EPROTONOSUPPORT", libc::EPROTONOSUPPORT as u32),
    ("EAFNOSUPPORT", libc::EAFNOSUPPORT as u32),
];

/// Flags of seccomp(2) that a profile may ask for.
const FLAGS: [(&str, bool); 4] = [
    ("SECCOMP_FILTER_FLAG_TSYNC", true),
    ("SECCOMP_FILTER_FLAG_SPEC_ALLOW", true),
    ("SECCOMP_FILTER_FLAG_LOG", false),
    ("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", false),
];

/// Profile, or one error with all faults; and notes.
pub type Parsed = (Result<Profile>, Vec<(Level, String)>);

/// Reads `text`, the content of the profile that messages call `file`, for a `kernel`. Only if the
/// file is `readable` for the caller, messages show values and lines of it.
pub fn parse(file: &str, text: &str, readable: bool, kernel: Kernel) -> Parsed {
    if let Err(error) = bounds::check(text, LIMITS) {
        return (Err(error).context(|| file.to_owned()), Vec::new());
    }
    let reader = Reader { numbers: Numbers::new(), kernel };
    let reading = json::read(text, |root| root.object(|keys| Some(reader.profile(keys))));
    let (profile, notes) = reading.explain(file, readable);
    // Without an object there is an error already.
    (profile.and_then(|profile| profile.ok_or_else(|| Error::new("not an object"))), notes)
}

struct Reader {
    numbers: Numbers,
    kernel: Kernel,
}

impl Reader {
    fn profile(&self, keys: &mut Object<'_>) -> Profile {
        architectures(keys);
        // Of the agent for SCMP_ACT_NOTIFY, which no rule may ask for.
        for unused in ["listenerPath", "listenerMetadata"] {
            keys.optional(unused, |_| ());
        }
        if let Some(list) = keys.given("flags") {
            flags(&list);
        }
        let default = keys.required("defaultAction", action);
        let default = with_errno(keys, default, ["defaultErrno", "defaultErrnoRet"]);
        let mut profile = Profile { default, newest: None, rules: Vec::new() };
        if let Some(rules) = keys.given("syscalls") {
            let rules = rules.list(|rule| self.rule(rule, &mut profile.newest));
            profile.rules = rules.into_iter().flatten().collect();
        }
        profile
    }

    /// Reads a rule; `None` if it does not apply here. `newest` becomes the highest number named.
    fn rule(&self, value: &Value<'_>, newest: &mut Option<u32>) -> Option<Rule> {
        value.object(|keys| {
            let calls = self.names(keys, value);
            *newest = calls.iter().copied().max().max(*newest);
            keys.given("comment").map(|comment| comment.text());
            let includes = keys.given("includes").map(|filter| self.filter(&filter));
            let excludes = keys.given("excludes").map(|filter| self.filter(&filter));
            let action = keys.required("action", action);
            let action = with_errno(keys, action, ["errno", "errnoRet"]);
            let conditions =
                keys.given("args").map(|args| args.list(condition)).unwrap_or_default();
            let applies = includes.unwrap_or_default().includes()
                && !excludes.unwrap_or_default().excludes()
                && !calls.is_empty();
            applies.then_some(Rule { calls, action, conditions })
        })
    }

    /// Numbers of the system calls of a rule, under `names`, or under `name` in older profiles.
    fn names(&self, keys: &mut Object<'_>, rule: &Value<'_>) -> Vec<u32> {
        let names = keys.given("names").map(|names| names.list(Value::text));
        let name = keys.given("name").map(|name| name.text()).filter(|name| !name.is_empty());
        let names = match (names, name) {
            (Some(names), None) => names,
            (None, Some(name)) => vec![name],
            (Some(names), Some(name)) if names.is_empty() => vec![name],
            (Some(_), Some(_)) => {
                rule.fault("has both \"name\" and \"names\"");
                Vec::new()
            }
            (None, None) => {
                rule.fault("missing key \"names\"");
                Vec::new()
            }
        };
        names.iter().filter_map(|name| self.numbers.get(name)).collect()
    }

    fn filter(&self, value: &Value<'_>) -> Filter {
        let list =
            |keys: &mut Object<'_>, key| keys.given(key).map(|words| words.list(Value::text));
        value.object(|keys| Filter {
            capabilities: list(keys, "caps").is_some_and(|list| !list.is_empty()),
            architecture: list(keys, "arches")
                .filter(|list| !list.is_empty())
                .map(|list| list.iter().any(|name| name == ARCHITECTURE)),
            kernel: keys
                .given("minKernel")
                .map(|text| release(&text))
                .map(|text| version(&text).is_some_and(|least| self.kernel >= least)),
        })
    }
}

/// Conditions under which a rule applies, or does not.
#[derive(Default)]
struct Filter {
    /// A capability is named.
    capabilities: bool,
    /// This architecture is among those named, if any is.
    architecture: Option<bool>,
    /// This kernel is as new as the one named, if one is.
    kernel: Option<bool>,
}

impl Filter {
    /// As `includes`: every condition must hold.
    fn includes(&self) -> bool {
        !self.capabilities && self.architecture.unwrap_or(true) && self.kernel.unwrap_or(true)
    }

    /// As `excludes`: one condition is enough, and the container has no capability.
    fn excludes(&self) -> bool {
        self.architecture.unwrap_or(false) || self.kernel.unwrap_or(false)
    }
}

/// Checks the architectures. Filters are native, so the list decides nothing.
fn architectures(keys: &mut Object<'_>) {
    let name = |value: &Value<'_>| {
        let is_name = |text: &str| text.starts_with("SCMP_ARCH_");
        value.text_where("an architecture such as \"SCMP_ARCH_X86_64\"", is_name)
    };
    let list = keys.given("architectures").map(|list| list.list(name).len()).unwrap_or_default();
    if let Some(map) = keys.given("archMap") {
        let entries = map.list(|entry| {
            entry.object(|keys| {
                keys.required("architecture", name);
                keys.given("subArchitectures").map(|list| list.list(name));
            });
        });
        if list > 0 && !entries.is_empty() {
            map.fault("has both \"architectures\" and \"archMap\"");
        }
    }
}

fn flags(value: &Value<'_>) {
    value.list(|flag| {
        if !flag.one_of(&FLAGS) {
            flag.note(Level::Warn, "no effect, ignored");
        }
    });
}

fn action(value: &Value<'_>) -> Word {
    let word = value.one_of(&ACTIONS);
    if matches!(word, Word::Notify) {
        value.fault("SCMP_ACT_NOTIFY needs an agent that answers, which Sarus does not have");
    }
    word
}

/// Adds the errno of an action, by `name` or by `number`; EPERM if neither is given. That of other
/// actions has no meaning.
fn with_errno(keys: &mut Object<'_>, word: Word, [name, number]: [&str; 2]) -> Action {
    let named = keys.given(name).map(|value| value.one_of(&ERRNOS)).filter(|errno| *errno != 0);
    let numbered = keys.given(number).map(|value| {
        let errno = value.number(0..=MAX_ERRNO);
        if named.is_some_and(|named| named != errno) {
            value.fault("not the number of the errno that is named");
        }
        errno
    });
    let errno = named.or(numbered).unwrap_or(libc::EPERM as u32) as u16;
    match word {
        Word::Allow => Action::ALLOW,
        Word::Errno => Action::errno(errno),
        Word::KillThread => Action::KILL_THREAD,
        Word::KillProcess | Word::Notify => Action::KILL_PROCESS,
        Word::Trap => Action::TRAP,
        Word::Log => Action::LOG,
        Word::Trace => Action::trace(errno),
    }
}

fn condition(value: &Value<'_>) -> Condition {
    value.object(|keys| Condition {
        index: keys.required("index", |index| index.number(0..=MAX_INDEX)) as u8,
        comparison: keys.required("op", |op| op.one_of(&COMPARISONS)),
        value: keys.required("value", Value::wide_number),
        second: keys.given("valueTwo").map(|value| value.wide_number()).unwrap_or_default(),
    })
}

fn release(value: &Value<'_>) -> String {
    value.text_where("a version such as \"4.8\"", |text| version(text).is_some())
}

/// Reads the first two numbers of a kernel's release, such as `6.1.0-18-amd64`.
pub fn version(text: &str) -> Option<Kernel> {
    let (major, rest) = text.split_once('.')?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    Some((major.parse().ok()?, rest.get(..end)?.parse().ok()?))
}
