//! Who called the program: read once, from the real ids, before anything is done.

use rustix::process::{Gid, Uid};

/// The calling user, as the kernel knows them.
#[derive(Debug, Clone)]
pub struct User {
    /// The real user id.
    pub uid: Uid,
    /// The real group id.
    pub gid: Gid,
    /// The supplementary groups, without `gid`.
    pub groups: Vec<Gid>,
}

impl User {
    /// The user whose real ids this process has.
    ///
    /// # Errors
    /// When the kernel does not tell the groups.
    pub fn caller() -> crate::Result<Self> {
        use crate::error::Context;
        let gid = rustix::process::getgid();
        let mut groups = rustix::process::getgroups()
            .context(|| "cannot read the groups of this process".into())?;
        groups.retain(|group| *group != gid);
        Ok(Self { uid: rustix::process::getuid(), gid, groups })
    }

    /// The user's name in `passwd`, the text of the site's copy of the user database
    /// (`<prefixDir>/etc/passwd`): name services such as LDAP cannot be asked by a static program.
    /// Names become parts of paths: one that leads elsewhere is none.
    #[must_use]
    pub fn name<'a>(&self, passwd: &'a str) -> Option<&'a str> {
        passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            let uid = fields.nth(1)?.parse::<u32>().ok()?;
            // What no text holds was replaced when it was read.
            let is_no_text = name.contains(char::REPLACEMENT_CHARACTER);
            let leads_elsewhere =
                matches!(name, "" | "." | "..") || name.contains('/') || is_no_text;
            (uid == self.uid.as_raw() && !leads_elsewhere).then_some(name)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_found_by_number() {
        let user = User { uid: Uid::from_raw(1000), gid: Gid::from_raw(100), groups: vec![] };
        let passwd = "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:100::/home/alice:/bin/bash\n";
        assert_eq!(user.name(passwd), Some("alice"));
        for passwd in [
            "broken\n:x:1000\nx",
            ".:x:1000",
            "..:x:1000",
            "a/b:x:1000",
            "/:x:1000",
            "\u{fffd}:x:1000",
        ] {
            assert_eq!(user.name(passwd), None, "{passwd}");
        }
    }
}
