//! The hook that lets no container of a Slurm job step start before all of them exist. Manual,
//! "Slurm global sync hook".
//!
//! The tasks meet in a directory of the user's that all nodes see: see [`barrier`].

pub mod barrier;

use std::time::Duration;

use super::state::Spec;
use super::{Container, home, setting};
use crate::error::{Error, Result};
use crate::sys::ids;
use barrier::Barrier;

/// Set by the engine when containers have to find each other.
const ENABLED: &str = "com.hooks.slurm-global-sync.enabled";

/// Who speaks, in the log.
const SUBSYSTEM: &str = "slurm global sync hook";

/// More tasks than any job has; a number from an image's environment shall not fill our memory.
const MAX_TASKS: u32 = 1 << 22;

/// From here on Slurm numbers what is no step of srun's: batch scripts, and shells of salloc.
const RESERVED_STEPS: u64 = 0xffff_fff0;

/// Waits for the other tasks of the step, with the rights of the container's user.
///
/// # Errors
/// When the user has no such directory, or not all tasks arrive in time.
pub fn run(container: &Container) -> Result<()> {
    if !container.asks_for(ENABLED) {
        return Ok(());
    }
    let Some(task) = Task::of(&container.spec)? else {
        crate::log::info(SUBSYSTEM, || "not in a step of a Slurm job: nothing to wait for".into());
        return Ok(());
    };
    let place = home::of(&container.spec.user)?.join("slurm-global-sync").join(task.directory());
    let timeout = timeout()?;
    // Root stays the real user: a process of the user's own would show them the tree of the container.
    ids::as_other_user(&container.spec.user, || Barrier::new(place, &task)?.pass(timeout))
}

/// The task of a job step that a container is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// The number of the job.
    pub job: u64,
    /// The number of the step.
    pub step: u64,
    /// How many tasks the step has.
    pub tasks: u32,
    /// Which of them this is, from 0 on.
    pub rank: u32,
}

impl Task {
    /// From the container's environment; none outside of Slurm, and none in a batch script without
    /// srun: Slurm tells it of tasks that only a step will have.
    ///
    /// # Errors
    /// When a variable is no number: images can set them too.
    pub fn of(spec: &Spec) -> Result<Option<Self>> {
        let number = |name: &str| -> Result<Option<u64>> {
            let Some(text) = spec.variable(name) else { return Ok(None) };
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            let number = text.parse().ok().filter(|_| digits);
            let wrong = || Error::new(format!("cannot use {name}: '{text:.100}' is no number"));
            number.ok_or_else(wrong).map(Some)
        };
        let step = match number("SLURM_STEP_ID")? {
            None => number("SLURM_STEPID")?,
            step => step,
        };
        let variables = (
            number("SLURM_JOB_ID")?,
            number("SLURM_NTASKS")?.map(u32::try_from),
            number("SLURM_PROCID")?.map(u32::try_from),
        );
        let step = step.filter(|step| *step < RESERVED_STEPS);
        let (Some(step), (Some(job), Some(tasks), Some(rank))) = (step, variables) else {
            return Ok(None);
        };
        match (tasks, rank) {
            (Ok(tasks), Ok(rank)) if rank < tasks && tasks <= MAX_TASKS => {
                Ok(Some(Self { job, step, tasks, rank }))
            }
            _ => Err(Error::new("cannot use SLURM_PROCID and SLURM_NTASKS: no such task can be")),
        }
    }

    /// The directory where the tasks of this step meet.
    #[must_use]
    pub fn directory(&self) -> String {
        format!("jobid-{}-stepid-{}", self.job, self.step)
    }
}

/// `SYNC_TIMEOUT`, in seconds; without it the tasks wait for ever, as Slurm ends a step that hangs.
fn timeout() -> Result<Option<Duration>> {
    let Some(text) = setting("SYNC_TIMEOUT") else { return Ok(None) };
    match text.parse::<u32>() {
        Ok(seconds) if seconds > 0 => Ok(Some(Duration::from_secs(seconds.into()))),
        _ => Err(Error::new(format!("cannot use SYNC_TIMEOUT: '{text}' is no number of seconds"))),
    }
}

#[cfg(test)]
mod tests;
