//! User and group ids, capabilities and `no_new_privs`: taken for a moment, or given up for good.
//!
//! Everything here changes the calling thread only, as the kernel does; the program has one thread
//! whenever it holds privileges. See credentials(7) and setresuid(2).

use crate::error::{Context, Error, Result};
use crate::sys::process::signals;
use crate::user::User;
use rustix::process::{Gid, Uid};
use rustix::thread::{
    CapabilitySet, capabilities, no_new_privs, set_no_new_privs, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};

/// Tells whether this process has more rights than its caller: set-user-ID, set-group-ID, or file
/// capabilities.
#[must_use]
pub fn are_raised() -> bool {
    use rustix::process::{getegid, geteuid, getgid, getuid};
    let uid = getuid();
    geteuid() != uid || getegid() != getgid() || (!uid.is_root() && has_capabilities())
}

/// Tells whether the program was started with more rights than its caller has (`AT_SECURE`), even if it
/// has dropped them since.
#[must_use]
pub fn were_raised() -> bool {
    // SAFETY: reads a number that the kernel left at the start, or 0.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// Tells whether the effective user ID is 0.
#[must_use]
pub fn is_effective_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Fails closed: true if the kernel does not tell.
fn has_capabilities() -> bool {
    capabilities(None).map_or(true, |sets| {
        !(sets.effective.is_empty() && sets.permitted.is_empty() && sets.inheritable.is_empty())
    })
}

/// Sets every ID to those of `user`, irreversibly, drops all capabilities, sets `no_new_privs`, and
/// verifies all of it.
///
/// # Errors
/// If the kernel refuses a step, or a privilege is left.
pub fn drop_privileges(user: &User) -> Result<()> {
    let (uid, gid) = (user.uid, user.gid);
    // The supplementary groups of a set-user-id program are its caller's already.
    set_thread_res_gid(gid, gid, gid).context(|| cannot_become(user))?;
    set_thread_res_uid(uid, uid, uid).context(|| cannot_become(user))?;
    if !uid.is_root() {
        clear_capabilities().context(|| cannot_become(user))?;
    }
    set_no_new_privs(true).context(|| cannot_become(user))?;
    verify(user)
}

/// Sets the effective and saved group ID to the caller's. In installations that are set-group-ID too,
/// files of the user would be opened with root's group.
pub fn drop_effective_group() -> Result<()> {
    let gid = rustix::process::getgid();
    set_thread_res_gid(gid, gid, gid).context(|| "cannot drop root's group".into())
}

fn cannot_become(user: &User) -> String {
    format!("cannot drop privileges for user ID {}", user.uid.as_raw())
}

/// Leaving uid 0 clears all sets but the inheritable one, unless the caller set securebits.
fn clear_capabilities() -> rustix::io::Result<()> {
    let none = CapabilitySet::empty();
    let sets =
        rustix::thread::CapabilitySets { effective: none, permitted: none, inheritable: none };
    rustix::thread::set_capabilities(None, sets)
}

fn verify(user: &User) -> Result<()> {
    use rustix::process::{getegid, geteuid, getgid, getuid};
    let ids = getuid() == user.uid
        && geteuid() == user.uid
        && getgid() == user.gid
        && getegid() == user.gid;
    // A saved id of root would let us back in: try, and expect to be refused.
    let way_back = !user.uid.is_root() && set_thread_res_uid(None, Uid::ROOT, None).is_ok();
    let rights = !user.uid.is_root() && has_capabilities();
    if ids && !way_back && !rights && no_new_privs().unwrap_or(false) {
        Ok(())
    } else {
        Err(Error::caused_by(cannot_become(user), "a privilege is left"))
    }
}

/// Runs `work` with the user's rights and nothing more, so that what belongs to the user is opened
/// as the user would (root_squash file systems work too), then takes root back.
///
/// The real ids are the user's all the time.
///
/// # Errors
/// Those of `work`, or when the kernel refuses the change.
pub fn as_user<T>(user: &User, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let root = rustix::process::geteuid();
    if root == user.uid {
        return work();
    }
    set_thread_res_uid(None, user.uid, None)
        .context(|| format!("cannot act as user ID {}", user.uid.as_raw()))?;
    // Leaving uid 0 clears the effective set, unless securebits say otherwise.
    let rights = capabilities(None).map_or(true, |sets| !sets.effective.is_empty());
    let result = if rights || rustix::process::geteuid() != user.uid {
        Err(Error::new(format!("cannot act as user ID {}: a privilege is left", user.uid.as_raw())))
    } else {
        work()
    };
    // Without root again, nothing that follows could be right.
    set_thread_res_uid(None, root, None).context(|| "cannot take root back".into())?;
    result
}

/// Runs `work` while neither the caller, whose real id this process has, can signal it, nor the
/// caller's terminal, which asks for no permission. What came before takes effect before: a SIGSTOP,
/// which cannot be blocked, at the end of the call that changes the id.
///
/// # Errors
/// Those of `work`, or when the kernel refuses the change.
pub(super) fn unsignalled<T>(work: impl FnOnce() -> std::io::Result<T>) -> std::io::Result<T> {
    let caller = rustix::process::getuid();
    let mask = signals::block_all()?;
    let result =
        set_thread_res_uid(Some(Uid::ROOT), None, None).map_err(Into::into).and_then(|()| {
            let result = work();
            set_thread_res_uid(Some(caller), None, None)?;
            result
        });
    mask.restore();
    result
}

/// Runs `work` with the rights of `user`, who is not the caller, and nothing more, then takes root
/// back: as [`as_user`] for a program that root itself started. Who is not root works as they are.
///
/// # Errors
/// Those of `work`, or when the kernel refuses the change.
pub fn as_other_user<T>(user: &User, work: impl FnOnce() -> Result<T>) -> Result<T> {
    use rustix::process::{getegid, getgroups};
    if !is_effective_root() || user.uid.is_root() {
        return work();
    }
    let (group, groups) = (getegid(), getgroups().context(|| "cannot read the groups".into())?);
    let context = || format!("cannot act as user ID {}", user.uid.as_raw());
    set_thread_groups(&user.groups).context(context)?;
    set_thread_res_gid(None, user.gid, None).context(context)?;
    let result = as_user(user, work);
    // Without root's own again, nothing that follows could be right.
    set_thread_res_gid(None, group, None).context(|| "cannot take root's group back".into())?;
    set_thread_groups(&groups).context(|| "cannot take root's groups back".into())?;
    result
}

/// Becomes root in every id, without supplementary groups: what the OCI runtime expects.
pub(super) fn become_root() -> rustix::io::Result<()> {
    set_thread_groups(&[])?;
    set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)?;
    set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)
}
