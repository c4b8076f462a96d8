//! Local time; the standard library knows UTC only.

use std::time::{SystemTime, UNIX_EPOCH};

/// Current local time, `YYYY-MM-DDTHH:MM:SS`.
#[must_use]
pub fn local_time() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = now.as_secs().try_into().unwrap_or_default();
    // SAFETY: all zeroes is a `tm` like any other: numbers, and a pointer that may be null.
    let mut fields: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are valid for the call; the C library reads /etc/localtime or TZ, and
    // nothing in this program changes the environment while threads run.
    unsafe { libc::localtime_r(&raw const seconds, &raw mut fields) };
    let (year, month) = (fields.tm_year + 1900, fields.tm_mon + 1);
    let libc::tm { tm_mday: day, tm_hour: hour, tm_min: minute, tm_sec: second, .. } = fields;
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_agrees_with_date() {
        let date = || {
            #[allow(clippy::disallowed_methods)]
            let output = std::process::Command::new("date").arg("+%FT%T").output().unwrap();
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        // A second may pass between the two.
        let (before, ours, after) = (date(), super::local_time(), date());
        assert!(before <= ours && ours <= after, "{before} {ours} {after}");
    }
}
