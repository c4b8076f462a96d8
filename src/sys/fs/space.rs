//! Free space of file systems. See statvfs(3).

use crate::error::{Context, Result};
use std::path::Path;

/// Bytes that users without privileges can still write on the file system at `path`.
///
/// # Errors
/// If the file system does not answer.
pub fn free(path: &Path) -> Result<u64> {
    let system =
        rustix::fs::statvfs(path).context(|| format!("cannot examine {}", path.display()))?;
    Ok(system.f_bavail.saturating_mul(system.f_frsize))
}

/// Compares `needed` bytes with the free space at `path`: `None` if they fit, else the fault in words.
///
/// # Errors
/// If the file system does not answer.
pub fn shortage(path: &Path, needed: u64) -> Result<Option<String>> {
    let free = free(path)?;
    let mebibytes = |bytes: u64| bytes.div_ceil(1 << 20);
    Ok((needed > free)
        .then(|| format!("{} MiB are needed, {} MiB are free", mebibytes(needed), mebibytes(free))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_is_told_in_mebibytes() {
        assert_eq!(shortage(Path::new("/"), 0).unwrap(), None);
        let text = shortage(Path::new("/"), u64::MAX).unwrap().unwrap();
        assert!(text.starts_with("17592186044416 MiB are needed, "), "{text}");
        assert!(free(Path::new("/nowhere")).is_err());
    }
}
