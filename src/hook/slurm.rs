//! The hook that holds the containers of a Slurm job step until all of them exist. Manual, "Slurm
//! global sync hook".
//!
//! The tasks synchronize by files in a directory of the user's that all nodes share: see [`barrier`].

pub mod barrier;

use std::time::Duration;

use super::state::Spec;
use super::{Container, home, setting};
use crate::error::{Error, Result};
use crate::sys::ids;
use barrier::Barrier;

/// Annotation that asks for this hook, where containers have to find each other: `--ssh`.
pub const ENABLED: &str = "com.hooks.slurm-global-sync.enabled";

const SUBSYSTEM: &str = "slurm global sync hook";

/// Maximum number of tasks of a step. The number comes from an environment that images can set, and
/// determines how much memory is needed.
const MAX_TASKS: u32 = 1 << 22;

/// The first of the step ids that Slurm reserves: batch scripts, shells of salloc, external steps.
const RESERVED_STEPS: u64 = 0xffff_fff0;

/// Waits for the other tasks of the step, with the rights of the container's user.
///
/// # Errors
/// If the user's directory cannot be used, or not all tasks arrive in time.
pub fn run(container: &Container) -> Result<()> {
    if !container.asks_for(ENABLED) {
        return Ok(());
    }
    let Some(task) = Task::from_environment(&container.spec)? else {
        crate::log::info(SUBSYSTEM, || "not in a Slurm job step: nothing to wait for".into());
        return Ok(());
    };
    let directory = home::directory(&container.spec.user)?.join("slurm-global-sync");
    let timeout = timeout()?;
    // The real uid stays root: through a process of their own, users could reach the container's files.
    let directory = directory.join(task.directory());
    ids::as_other_user(&container.spec.user, || Barrier::new(directory, &task)?.pass(timeout))
}

/// A task of a job step: one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Job id.
    pub job: u64,
    /// Step id.
    pub step: u64,
    /// Number of tasks in the step.
    pub tasks: u32,
    /// Rank of this task, from 0 on.
    pub rank: u32,
}

impl Task {
    /// Reads the variables of Slurm from the container's environment. `None` outside of Slurm, and in a
    /// batch script without srun, whose variables describe tasks that only a step will have.
    ///
    /// # Errors
    /// If a variable is not a number, or out of range: images can set them too.
    pub fn from_environment(spec: &Spec) -> Result<Option<Self>> {
        let number = |name: &str| -> Result<Option<u64>> {
            let Some(text) = spec.variable(name) else { return Ok(None) };
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            let number = text.parse().ok().filter(|_| digits);
            let invalid = || Error::new(format!("invalid {name} '{text:.100}': expected a number"));
            number.ok_or_else(invalid).map(Some)
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
            _ => Err(Error::new("invalid SLURM_PROCID or SLURM_NTASKS: out of range")),
        }
    }

    /// The name of the directory for the files of this step.
    #[must_use]
    pub fn directory(&self) -> String {
        format!("jobid-{}-stepid-{}", self.job, self.step)
    }
}

/// `SYNC_TIMEOUT` in seconds. Without it the tasks wait without limit: Slurm ends a step that hangs.
fn timeout() -> Result<Option<Duration>> {
    let Some(text) = setting("SYNC_TIMEOUT") else { return Ok(None) };
    match text.parse::<u32>() {
        Ok(seconds) if seconds > 0 => Ok(Some(Duration::from_secs(seconds.into()))),
        _ => {
            Err(Error::new(format!("invalid SYNC_TIMEOUT '{text}': expected a number of seconds")))
        }
    }
}

#[cfg(test)]
mod tests;
