//! Telling the kernel to write early what an fsync will ask for later. See sync_file_range(2).

use std::fs::File;
use std::os::fd::AsRawFd;

/// Starts to write `length` bytes from `offset` on to the disk, and does not wait. It is a favour:
/// where it is not granted, the fsync at the end takes longer, and nothing else.
pub fn start(file: &File, offset: u64, length: u64) {
    let (Ok(offset), Ok(length)) = (offset.try_into(), length.try_into()) else { return };
    // SAFETY: passes a descriptor that is open, and numbers.
    unsafe {
        libc::sync_file_range(file.as_raw_fd(), offset, length, libc::SYNC_FILE_RANGE_WRITE);
    }
}
