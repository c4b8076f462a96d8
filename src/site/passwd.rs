//! User and group databases as text: passwd(5), group(5).
//!
//! The site keeps a copy of its own in `<prefixDir>/etc`, since a static program cannot ask name
//! services such as LDAP.

use rustix::process::Uid;

/// Maximum size of a database, in bytes: those of large sites have tens of thousands of lines.
pub const MAX_SIZE: u64 = 64 << 20;

/// Name of the user `uid` in the text of a user database. Names become parts of paths: one that would
/// lead elsewhere, or is not UTF-8, does not count.
#[must_use]
pub fn user_name(database: &str, uid: Uid) -> Option<&str> {
    database.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let number = fields.nth(1)?.parse::<u32>().ok()?;
        (number == uid.as_raw() && is_file_name(name)).then_some(name)
    })
}

fn is_file_name(name: &str) -> bool {
    // Invalid UTF-8 was replaced by U+FFFD on reading.
    let replaced = name.contains(char::REPLACEMENT_CHARACTER);
    !matches!(name, "" | "." | "..") && !name.contains('/') && !replaced
}

/// Number of the group `name` in the text of a group database.
#[must_use]
pub fn group_id(database: &str, name: &str) -> Option<u32> {
    database.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_number() {
        let name = |passwd| user_name(passwd, Uid::from_raw(1000));
        let passwd = "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:100::/home/alice:/bin/bash\n";
        assert_eq!(name(passwd), Some("alice"));
        for passwd in [
            "broken\n:x:1000\nx",
            ".:x:1000",
            "..:x:1000",
            "a/b:x:1000",
            "/:x:1000",
            "\u{fffd}:x:1000",
        ] {
            assert_eq!(name(passwd), None, "{passwd}");
        }
    }

    #[test]
    fn a_group_is_found_by_name() {
        let group = "root:x:0:\nttys:x:6:\ntty:x:5:alice,bob\nbroken\nbad:x:y:";
        for (name, expected) in [("tty", Some(5)), ("broken", None), ("bad", None), ("x", None)] {
            assert_eq!(group_id(group, name), expected, "{name}");
        }
    }
}
