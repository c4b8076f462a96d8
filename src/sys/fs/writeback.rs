//! Early writeback, so that the fsync(2) at the end waits less. See sync_file_range(2).

use std::fs::File;
use std::os::fd::AsRawFd;

/// Starts writeback of `length` bytes from `offset` on, and does not wait. Errors are ignored: then the
/// fsync at the end takes longer.
pub fn start(file: &File, offset: u64, length: u64) {
    let (Ok(offset), Ok(length)) = (offset.try_into(), length.try_into()) else { return };
    // SAFETY: passes a descriptor that is open, and numbers.
    unsafe {
        libc::sync_file_range(file.as_raw_fd(), offset, length, libc::SYNC_FILE_RANGE_WRITE);
    }
}
