//! Locks between the threads of this program.

use std::sync::{LockResult, PoisonError};

/// Takes what a lock or a wait gives, poisoned or not: a panic ends the program (`panic = "abort"`), so
/// no thread sees what another one left half changed.
pub fn ignore_poison<T>(result: LockResult<T>) -> T {
    result.unwrap_or_else(PoisonError::into_inner)
}
