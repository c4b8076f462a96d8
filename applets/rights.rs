//! Which rights an applet runs with. Settled from the applet table before a line of the applet
//! runs.

use sarus::error::Result;
use sarus::sys::ids;
use sarus::user::User;

/// What an applet does with the root that the program was started with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    /// Effective root stays; the real ids, and all of the group, are the caller's all the time.
    Keep,
    /// Given up for good before the applet's first line.
    Drop,
}

/// Gives up what was gained by set-user-id, unless `rights` say to keep it.
///
/// A program that root itself started (as the OCI runtime starts a hook) has gained nothing.
///
/// # Errors
/// When the kernel refuses, or a privilege is left afterwards: then nothing may run.
pub fn settle(rights: Rights) -> Result<()> {
    if !ids::are_raised() {
        return Ok(());
    }
    match rights {
        Rights::Drop => ids::drop_privileges(&User::caller()?),
        Rights::Keep => ids::drop_effective_group(),
    }
}
