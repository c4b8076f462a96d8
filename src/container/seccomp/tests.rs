mod reader;

use super::profile::{Action, Comparison, Condition, Rule};
use super::*;
use crate::mutate::{Random, mutate};
use crate::sys::process::seccomp::{MAX_INSTRUCTIONS, NATIVE, SockFilter, install};
use reader::{DOCKER, read};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, socket};

/// `struct seccomp_data`, without the instruction pointer.
#[derive(Debug, Clone, Copy)]
struct Data {
    number: u32,
    architecture: u32,
    arguments: [u64; 6],
}

impl Data {
    fn native(number: u32, arguments: [u64; 6]) -> Self {
        Self { number, architecture: NATIVE, arguments }
    }

    /// Word of 32 bits at `offset`, on a machine with the lower half first.
    fn word(&self, offset: u32) -> u32 {
        match offset {
            0 => self.number,
            4 => self.architecture,
            _ => {
                assert!((16..64).contains(&offset) && offset.is_multiple_of(4), "{offset}");
                let argument = self.arguments[(offset as usize - 16) / 8];
                if offset.is_multiple_of(8) { argument as u32 } else { (argument >> 32) as u32 }
            }
        }
    }
}

/// Interprets classic BPF as the kernel does: what it does not know, or a jump outside, panics.
fn interpret(filter: &[SockFilter], data: &Data) -> Action {
    let (mut at, mut accumulator) = (0, 0);
    loop {
        let SockFilter { code, jt, jf, k } = filter[at];
        let skip = |holds: bool| usize::from(if holds { jt } else { jf });
        at += 1;
        match u32::from(code) {
            0x20 => accumulator = data.word(k),
            0x54 => accumulator &= k,
            0x05 => at += k as usize,
            0x15 => at += skip(accumulator == k),
            0x25 => at += skip(accumulator > k),
            0x35 => at += skip(accumulator >= k),
            0x06 => return Action(k),
            unknown => panic!("instruction {unknown:#x}"),
        }
    }
}

fn holds(condition: &Condition, arguments: &[u64; 6]) -> bool {
    let argument = arguments[usize::from(condition.index)];
    let Condition { value, second, .. } = *condition;
    match condition.comparison {
        Comparison::Equal => argument == value,
        Comparison::NotEqual => argument != value,
        Comparison::Less => argument < value,
        Comparison::LessOrEqual => argument <= value,
        Comparison::Greater => argument > value,
        Comparison::GreaterOrEqual => argument >= value,
        Comparison::MaskedEqual => argument & value == second,
    }
}

/// Evaluates a profile by its definition, rule by rule.
fn evaluate(profile: &Profile, data: &Data) -> Action {
    let x32 = cfg!(target_arch = "x86_64") && (0x4000_0000..u32::MAX).contains(&data.number);
    if data.architecture != NATIVE || x32 {
        let is_open = matches!(profile.default, Action::ALLOW | Action::LOG);
        return if is_open { Action::KILL_PROCESS } else { profile.default };
    }
    let rules = || profile.rules.iter().filter(|rule| rule.calls.contains(&data.number));
    let same_argument = |rule: &Rule| {
        let mut indexes: Vec<_> = rule.conditions.iter().map(|one| one.index).collect();
        indexes.sort_unstable();
        indexes.windows(2).any(|pair| pair[0] == pair[1])
    };
    let applies = |rule: &&Rule| {
        let mut conditions = rule.conditions.iter();
        match same_argument(rule) {
            true => conditions.any(|one| holds(one, &data.arguments)),
            false => conditions.all(|one| holds(one, &data.arguments)),
        }
    };
    let found = rules().find(|rule| rule.conditions.is_empty()).or_else(|| rules().find(applies));
    let default = match profile.newest {
        Some(newest) if data.number > newest => profile.for_newer_calls(),
        _ => profile.default,
    };
    found.map_or(default, |rule| rule.action)
}

/// Compares filter and profile for one call.
fn compare(profile: &Profile, filter: &[SockFilter], data: &Data) {
    let (found, expected) = (interpret(filter, data), evaluate(profile, data));
    assert_eq!(found, expected, "{data:x?} by {profile:x?}");
}

const ACTIONS: [Action; 8] = [
    Action::ALLOW,
    Action::LOG,
    Action::TRAP,
    Action::KILL_THREAD,
    Action::KILL_PROCESS,
    Action::errno(1),
    Action::errno(38),
    Action::trace(7),
];

const COMPARISONS: [Comparison; 7] = [
    Comparison::Equal,
    Comparison::NotEqual,
    Comparison::Less,
    Comparison::LessOrEqual,
    Comparison::Greater,
    Comparison::GreaterOrEqual,
    Comparison::MaskedEqual,
];

fn one_of<T: Copy>(list: &[T], random: &mut Random) -> T {
    list[random.below(list.len())]
}

/// Values around the limits of 32 and 64 bits, of which few differ, so that conditions hold often.
fn random_value(random: &mut Random) -> u64 {
    const BASES: [u64; 8] =
        [0, 1, 16, 0x7e02_0000, 0xffff_ffff, 0x1_0000_0000, 0x8000_0000_0000_0000, u64::MAX];
    let step = random.below(3) as u64;
    one_of(&BASES, random).wrapping_add(step).wrapping_sub(1)
}

fn random_condition(random: &mut Random) -> Condition {
    let comparison = one_of(&COMPARISONS, random);
    let mut second = random_value(random);
    let value = random_value(random);
    if random.below(4) > 0 {
        second &= value;
    }
    Condition { index: random.below(6) as u8, comparison, value, second }
}

fn random_profile(random: &mut Random) -> Profile {
    let spread = one_of(&[4, 40, 500], random);
    let mut rule = || {
        let calls = (0..=random.below(30)).map(|_| random.below(spread) as u32).collect();
        let action = one_of(&ACTIONS, random);
        let conditions = random.below(4);
        let conditions = (0..conditions).map(|_| random_condition(random)).collect();
        Rule { calls, action, conditions }
    };
    let rules: Vec<Rule> = (0..20).map(|_| rule()).collect();
    let rules = rules.into_iter().take(random.below(20)).collect::<Vec<_>>();
    let named = rules.iter().flat_map(|rule| &rule.calls).copied().max();
    let newest = named.map(|named| named + random.below(3) as u32);
    Profile { default: one_of(&ACTIONS, random), newest, rules }
}

fn random_data(random: &mut Random) -> Data {
    let number = match random.below(20) {
        0 => one_of(&[0x3fff_ffff, 0x4000_0000, 0x4000_0001, u32::MAX - 1, u32::MAX], random),
        1..6 => random.below(6) as u32,
        _ => random.below(510) as u32,
    };
    let architecture = if random.below(20) == 0 { 0x4000_0003 } else { NATIVE };
    Data { number, architecture, arguments: [(); 6].map(|()| random_value(random)) }
}

#[test]
fn a_filter_decides_as_its_profile_for_all_profiles_and_calls() {
    let mut random = Random::new();
    let mut longest = 0;
    for _ in 0..400 {
        let profile = random_profile(&mut random);
        let Ok(filter) = compile(&profile) else { continue };
        longest = longest.max(filter.len());
        for _ in 0..400 {
            compare(&profile, &filter, &random_data(&mut random));
        }
    }
    assert!(longest > 1000, "{longest}: no jump was longer than a branch can be");
}

#[test]
fn every_comparison_is_one_of_64_bits() {
    let values = [0, 1, 5, 0xffff_ffff, 1 << 32, (1 << 32) + 5, 5 << 32, u64::MAX - 1, u64::MAX];
    for comparison in COMPARISONS {
        for (value, second) in values.iter().flat_map(|one| values.map(|other| (*one, other))) {
            let condition = Condition { index: 3, comparison, value, second };
            let rule = Rule { calls: vec![7], action: Action::ALLOW, conditions: vec![condition] };
            let profile = Profile { default: Action::TRAP, newest: Some(7), rules: vec![rule] };
            let filter = compile(&profile).unwrap();
            for argument in values {
                compare(&profile, &filter, &Data::native(7, [9, 9, 9, argument, 9, 9]));
            }
        }
    }
}

#[test]
fn a_filter_that_the_kernel_would_refuse_is_an_error() {
    let condition = |value| Condition { value, ..Condition::default() };
    let rule = Rule {
        calls: (0..400).collect(),
        action: Action::ALLOW,
        conditions: (0..100).map(condition).collect(),
    };
    let profile = Profile { default: Action::errno(1), newest: None, rules: vec![rule] };
    // Equal decisions over neighbours are one.
    let filter = compile(&profile).unwrap();
    assert!(filter.len() < 500);
    compare(&profile, &filter, &Data::native(399, [99, 0, 0, 0, 0, 0]));
    let calls = (0..400).step_by(2).collect();
    let rules = vec![Rule { calls, ..profile.rules[0].clone() }];
    let error = compile(&Profile { rules, ..profile }).unwrap_err().to_string();
    assert!(error.contains("4096 instructions"), "{error}");
}

fn number(name: &str) -> u32 {
    calls::Numbers::new().get(name).unwrap()
}

/// Decision of the built-in profile over `name`, with a first argument.
fn builtin(name: &str, argument: u64) -> Action {
    let filter = compile(&builtin::profile()).unwrap();
    interpret(&filter, &Data::native(number(name), [argument, 0, 0, 0, 0, 0]))
}

#[test]
fn the_built_in_filter_decides_as_its_profile() {
    let profile = builtin::profile();
    let filter = compile(&profile).unwrap();
    assert!(filter.len() < MAX_INSTRUCTIONS / 8, "{}", filter.len());
    let values = (0..50).chain([1 << 17, 0x7e02_0000, 0xffff_ffff, 1 << 32, u64::MAX]);
    for value in values {
        for call in 0..520 {
            compare(&profile, &filter, &Data::native(call, [value, 0, 0, 0, 0, 0]));
        }
    }
}

#[test]
fn the_built_in_profile_allows_what_programs_of_hpc_systems_do() {
    let allowed =
        "read write openat execve mmap futex ptrace process_vm_readv process_vm_writev kcmp
        perf_event_open mbind set_mempolicy get_mempolicy move_pages migrate_pages pidfd_getfd
        sched_setaffinity process_madvise shmget memfd_create mlock ioctl prctl seccomp rseq";
    for name in allowed.split_whitespace() {
        assert_eq!(builtin(name, 0), Action::ALLOW, "{name}");
    }
    for persona in [0, 8, 0x2_0000, 0x2_0008, 0x4_0000, 0x4_0008, 0xffff_ffff] {
        assert_eq!(builtin("personality", persona), Action::ALLOW, "{persona:#x}");
    }
    for flags in [0, 17, 0x003d_0f00] {
        assert_eq!(builtin("clone", flags), Action::ALLOW, "{flags:#x}");
    }
    assert_eq!(builtin("socket", 16), Action::ALLOW);
}

#[test]
fn the_built_in_profile_refuses_what_only_attacks_need() {
    let refused =
        "mount umount2 pivot_root unshare setns bpf userfaultfd keyctl add_key request_key
        io_uring_setup io_uring_enter io_uring_register kexec_load init_module finit_module reboot
        open_by_handle_at fsopen fsmount move_mount open_tree mount_setattr swapon quotactl acct
        chroot syslog";
    for name in refused.split_whitespace() {
        assert_eq!(builtin(name, 0), Action::errno(1), "{name}");
    }
    let namespaces = [1 << 17, 1 << 25, 1 << 26, 1 << 27, 1 << 28, 1 << 29, 1 << 30];
    for flag in namespaces {
        assert_eq!(builtin("clone", flag | 17), Action::errno(1), "{flag:#x}");
    }
    for persona in [1, 0x10_0000, 0x40_0000, 0x1_0000_0008, u64::MAX] {
        assert_eq!(builtin("personality", persona), Action::errno(1), "{persona:#x}");
    }
    for family in [12, 38, 40, 46, 63, 64, 1 << 32, u64::MAX] {
        assert_eq!(builtin("socket", family), Action::errno(1), "{family}");
    }
}

#[test]
fn unknown_calls_are_answered_with_enosys_and_foreign_ones_refused() {
    let filter = compile(&builtin::profile()).unwrap();
    assert_eq!(builtin("clone3", 0), Action::errno(38));
    for newer in [467, 470, 1000, 0x3fff_ffff, u32::MAX] {
        assert_eq!(interpret(&filter, &Data::native(newer, [0; 6])), Action::errno(38), "{newer}");
    }
    for architecture in [0x4000_0003, 0x4000_0028, 0] {
        let data = Data { architecture, ..Data::native(0, [0; 6]) };
        assert_eq!(interpret(&filter, &data), Action::errno(1), "{architecture:#x}");
    }
    if cfg!(target_arch = "x86_64") {
        let data = Data::native(0x4000_0000, [0; 6]);
        assert_eq!(interpret(&filter, &data), Action::errno(1));
    }
}

#[test]
fn an_oci_runtime_is_told_the_same_profile() {
    for profile in [builtin::profile(), read(DOCKER).0.unwrap()] {
        let told = miniserde::json::to_string(&to_json(&profile));
        let (again, notes) = read(&told);
        assert_eq!(notes, Vec::<String>::new());
        let again = again.unwrap();
        assert_eq!(again.default, profile.default);
        assert_eq!(again.rules, profile.rules);
    }
}

#[test]
fn the_site_chooses_the_profile() {
    assert_eq!(load(&SeccompProfile::Default).unwrap(), Some(builtin::profile()));
    assert_eq!(load(&SeccompProfile::Unconfined).unwrap(), None);
    assert!(load(&SeccompProfile::File("/nonexistent/profile.json".into())).is_err());
}

#[test]
fn the_kernel_takes_the_built_in_filter_and_refuses_by_it() {
    // A filter holds for the thread that installs it, and those that it starts.
    let confined = std::thread::spawn(|| {
        rustix::thread::set_no_new_privs(true).unwrap();
        install(&compile(&builtin::profile()).unwrap()).unwrap();
        // A name too long would be EINVAL.
        let rename = || rustix::system::sethostname(&[0; 65]);
        assert_eq!(rename(), Err(Errno::PERM));
        let open = |family| socket(family, SocketType::STREAM, None).map(drop);
        assert_eq!(open(AddressFamily::VSOCK), Err(Errno::PERM));
        assert_eq!(open(AddressFamily::UNIX), Ok(()));
        assert!(std::fs::read("/proc/self/status").is_ok());
        std::thread::spawn(rename).join().unwrap()
    });
    assert_eq!(confined.join().unwrap(), Err(Errno::PERM));
}
