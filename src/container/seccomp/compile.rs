//! The compiler from a profile to classic BPF, the language of filters of seccomp(2).
//!
//! A filter checks the architecture, finds the range of numbers that holds the system call by a
//! binary search, and compares arguments where rules ask for it.

use super::profile::{Action, Comparison, Condition, Profile, Rule};
use crate::error::{Error, Result};
use crate::sys::process::seccomp::{
    ARCHITECTURE, ARGUMENTS, MAX_INSTRUCTIONS, NATIVE, NUMBER, SockFilter,
};

/// First number of the x32 ABI, which has the architecture of x86-64: __X32_SYSCALL_BIT.
const X32: u32 = 0x4000_0000;

/// Number by which a tracer skips a system call, -1: not one of the x32 ABI.
const SKIPPED: u32 = u32::MAX;

/// Compiles `profile`.
///
/// # Errors
/// If the filter would have more instructions than the kernel takes.
pub fn compile(profile: &Profile) -> Result<Vec<SockFilter>> {
    let mut assembler = Assembler { code: Vec::with_capacity(512), returns: Vec::new() };
    let foreign = assembler.action(profile.for_foreign_calls());
    let decision = assembler.search(profile, &ranges(profile));
    let number = assembler.load(NUMBER, decision);
    let native = assembler.branch(libc::BPF_JEQ, NATIVE, number, foreign);
    assembler.load(ARCHITECTURE, native);
    let mut code = assembler.code;
    if code.len() > MAX_INSTRUCTIONS {
        let text = "the profile needs more than 4096 instructions, the kernel's limit of a filter";
        return Err(Error::new(text));
    }
    code.reverse();
    Ok(code)
}

/// Decision over a system call.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Decision {
    Action(Action),
    /// Indexes of rules with conditions, in the order of the profile.
    Rules(Vec<usize>),
}

/// First number, and the decision over it and all numbers up to the next range.
type Range = (u32, Decision);

fn ranges(profile: &Profile) -> Vec<Range> {
    let mut list = Vec::new();
    let newer = Decision::Action(profile.for_newer_calls());
    let mut next = 0;
    for (call, decision) in decisions(profile) {
        begin(&mut list, next, Decision::Action(profile.default));
        begin(&mut list, call, decision);
        next = call.saturating_add(1);
    }
    begin(&mut list, next, Decision::Action(profile.default));
    let first_newer = profile.newest.map_or(0, |newest| newest.saturating_add(1));
    begin(&mut list, next.max(first_newer), newer.clone());
    if cfg!(target_arch = "x86_64") {
        begin(&mut list, X32, Decision::Action(profile.for_foreign_calls()));
        begin(&mut list, SKIPPED, newer);
    }
    list
}

/// Begins a range at `first`, which is not below the ranges of `list`.
fn begin(list: &mut Vec<Range>, first: u32, decision: Decision) {
    list.pop_if(|(last, _)| *last == first);
    if list.last().is_none_or(|(_, last)| *last != decision) {
        list.push((first, decision));
    }
}

/// Decisions over the system calls that have a rule, in the order of their numbers.
fn decisions(profile: &Profile) -> Vec<Range> {
    let calls = profile.rules.iter().enumerate();
    let mut pairs: Vec<(u32, usize)> =
        calls.flat_map(|(rule, one)| one.calls.iter().map(move |call| (*call, rule))).collect();
    pairs.sort_unstable();
    pairs.dedup();
    let decide = |group: &[(u32, usize)]| {
        let rules: Vec<_> = group.iter().map(|(_, rule)| *rule).collect();
        Some((group.first()?.0, decision(profile, rules)))
    };
    pairs.chunk_by(|one, other| one.0 == other.0).filter_map(decide).collect()
}

fn decision(profile: &Profile, rules: Vec<usize>) -> Decision {
    let mut found = rules.iter().filter_map(|rule| profile.rules.get(*rule));
    match found.find(|rule| rule.conditions.is_empty()) {
        Some(rule) => Decision::Action(rule.action),
        None => Decision::Rules(rules),
    }
}

/// Index of an instruction in [`Assembler::code`].
type Label = usize;

/// Writes a filter from its end to its beginning, since jumps of classic BPF lead forward only: the
/// destination of a jump is always there already.
struct Assembler {
    /// Instructions, the last one of the filter first.
    code: Vec<SockFilter>,
    /// Latest instruction that returns an action.
    returns: Vec<(Action, Label)>,
}

impl Assembler {
    fn push(&mut self, code: u32, k: u32, jt: u8, jf: u8) -> Label {
        self.code.push(SockFilter { code: code as u16, jt, jf, k });
        self.code.len() - 1
    }

    /// Number of instructions that a jump to `label`, `later` instructions before the latest one,
    /// would skip.
    fn distance(&self, label: Label, later: usize) -> usize {
        (self.code.len() + later).saturating_sub(label + 1)
    }

    fn is_near(&self, label: Label, later: usize) -> bool {
        self.distance(label, later) <= usize::from(u8::MAX)
    }

    /// Returns `action`.
    fn action(&mut self, action: Action) -> Label {
        if let Some((_, label)) = self.returns.iter().find(|(known, _)| *known == action)
            && self.is_near(*label, 0)
        {
            return *label;
        }
        let label = self.push(libc::BPF_RET | libc::BPF_K, action.0, 0, 0);
        self.returns.retain(|(known, _)| *known != action);
        self.returns.push((action, label));
        label
    }

    /// Makes `label` the latest instruction, to which the one that is pushed next falls through.
    fn next(&mut self, label: Label) -> Label {
        match self.distance(label, 0) {
            0 => label,
            skipped => self.push(libc::BPF_JMP | libc::BPF_JA, skipped as u32, 0, 0),
        }
    }

    /// Brings `label` within the 255 instructions that a branch can skip, one of which may come yet.
    fn near(&mut self, label: Label) -> Label {
        if self.is_near(label, 1) { label } else { self.next(label) }
    }

    /// Loads the member of `struct seccomp_data` at `offset`, and goes on at `then`.
    fn load(&mut self, offset: u32, then: Label) -> Label {
        self.next(then);
        self.push(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0)
    }

    fn branch(&mut self, test: u32, k: u32, yes: Label, no: Label) -> Label {
        if yes == no {
            return yes;
        }
        let (yes, no) = (self.near(yes), self.near(no));
        let skip = |label| self.distance(label, 0) as u8;
        let (jt, jf) = (skip(yes), skip(no));
        self.push(libc::BPF_JMP | test | libc::BPF_K, k, jt, jf)
    }

    /// Finds the range of the number that is loaded.
    fn search(&mut self, profile: &Profile, ranges: &[Range]) -> Label {
        // A longer filter is refused anyway.
        if self.code.len() > MAX_INSTRUCTIONS {
            return self.code.len() - 1;
        }
        let (lower, upper) = ranges.split_at(ranges.len() / 2);
        match (lower, upper) {
            ([], [(_, decision), ..]) => self.decide(profile, decision),
            (_, [(first, _), ..]) => {
                let (first, upper) = (*first, self.search(profile, upper));
                let lower = self.search(profile, lower);
                self.branch(libc::BPF_JGE, first, upper, lower)
            }
            (_, []) => self.action(profile.default),
        }
    }

    fn decide(&mut self, profile: &Profile, decision: &Decision) -> Label {
        match decision {
            Decision::Action(action) => self.action(*action),
            Decision::Rules(rules) => {
                let otherwise = self.action(profile.default);
                let rules = rules.iter().rev().filter_map(|rule| profile.rules.get(*rule));
                rules.fold(otherwise, |next, rule| self.rule(rule, next))
            }
        }
    }

    fn rule(&mut self, rule: &Rule, otherwise: Label) -> Label {
        let action = self.action(rule.action);
        let conditions = rule.conditions.iter().rev();
        if rule.needs_one_condition() {
            conditions.fold(otherwise, |next, one| self.condition(one, action, next))
        } else {
            conditions.fold(action, |next, one| self.condition(one, next, otherwise))
        }
    }

    fn condition(&mut self, condition: &Condition, yes: Label, no: Label) -> Label {
        let Condition { index, value, second, .. } = *condition;
        let at = ARGUMENTS + 8 * u32::from(index);
        match condition.comparison {
            Comparison::Equal => self.equal(at, u64::MAX, value, yes, no),
            Comparison::NotEqual => self.equal(at, u64::MAX, value, no, yes),
            Comparison::MaskedEqual => self.equal(at, value, second, yes, no),
            Comparison::Greater => self.order(at, libc::BPF_JGT, value, yes, no),
            Comparison::LessOrEqual => self.order(at, libc::BPF_JGT, value, no, yes),
            Comparison::GreaterOrEqual => self.order(at, libc::BPF_JGE, value, yes, no),
            Comparison::Less => self.order(at, libc::BPF_JGE, value, no, yes),
        }
    }

    /// Tests `argument & mask == value`, the upper half first: BPF computes with 32 bits.
    fn equal(&mut self, at: u32, mask: u64, value: u64, yes: Label, no: Label) -> Label {
        let lower = self.equal_half(at + LOWER, mask as u32, value as u32, yes, no);
        self.equal_half(at + UPPER, upper_half(mask), upper_half(value), lower, no)
    }

    fn equal_half(&mut self, at: u32, mask: u32, value: u32, yes: Label, no: Label) -> Label {
        let mut test = self.branch(libc::BPF_JEQ, value, yes, no);
        if mask != u32::MAX {
            self.next(test);
            test = self.push(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, mask, 0, 0);
        }
        self.load(at, test)
    }

    /// Tests `argument > value` or `argument >= value`, as `test` says.
    fn order(&mut self, at: u32, test: u32, value: u64, yes: Label, no: Label) -> Label {
        let lower = self.branch(test, value as u32, yes, no);
        let lower = self.load(at + LOWER, lower);
        let equal = self.branch(libc::BPF_JEQ, upper_half(value), lower, no);
        let greater = self.branch(libc::BPF_JGT, upper_half(value), yes, equal);
        self.load(at + UPPER, greater)
    }
}

/// Offsets of the halves of an argument.
const LOWER: u32 = if cfg!(target_endian = "little") { 0 } else { 4 };
const UPPER: u32 = 4 - LOWER;

fn upper_half(value: u64) -> u32 {
    (value >> 32) as u32
}
