//! Devices that a cgroup allows. See "devices" of the kernel's cgroup-v1 documentation.

/// A rule that allows a kind of access to devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRule {
    /// `a` for all, `b` for block devices, `c` for character devices.
    pub kind: String,
    /// Major number; -1 stands for all.
    pub major: i64,
    /// Minor number; -1 stands for all.
    pub minor: i64,
    /// Letters of `rwm`: read, write, mknod.
    pub access: String,
}

/// Reads the text of a file `devices.list`, with lines such as `c 10:* rwm`. Other lines are skipped:
/// they allow nothing.
#[must_use]
pub fn parse(list: &str) -> Vec<DeviceRule> {
    let number = |text: &str| if text == "*" { Some(-1) } else { text.parse().ok() };
    let rule = |line: &str| {
        let (kind, rest) = line.split_once(' ')?;
        let (numbers, access) = rest.split_once(' ')?;
        let (major, minor) = numbers.split_once(':')?;
        let (major, minor) = (number(major)?, number(minor)?);
        Some(DeviceRule { kind: kind.into(), major, minor, access: access.into() })
    };
    list.lines().filter_map(rule).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_those_that_the_kernel_lists() {
        let rule = |kind: &str, major, minor, access: &str| {
            let (kind, access) = (kind.to_owned(), access.to_owned());
            DeviceRule { kind, major, minor, access }
        };
        for (list, expected) in [
            ("a *:* rwm\n", vec![rule("a", -1, -1, "rwm")]),
            ("c *:* m\nb 8:0 r", vec![rule("c", -1, -1, "m"), rule("b", 8, 0, "r")]),
            ("c 136:* rwm\n", vec![rule("c", 136, -1, "rwm")]),
            ("", vec![]),
            ("c x:1 r\nc\nc 1", vec![]),
        ] {
            assert_eq!(parse(list), expected, "{list}");
        }
    }
}
