//! The TCP port of a user's daemons: the same on all nodes, another for each user, and known to no
//! other user before a daemon listens there. One port for everybody could be taken by anybody.

use sha2::{Digest, Sha256};

use super::super::setting;
use crate::error::{Error, Result};

/// The first port, above those of most services, and the number of ports: up to where the kernel
/// takes ports for outgoing connections (`net.ipv4.ip_local_port_range`, from 32768 on).
const FIRST: u16 = 10_240;
const COUNT: u16 = 22_528;

/// The port for the user whose daemons have the private key `key`; `SERVER_PORT` of the hook, if the
/// site sets it, is the port of all users.
///
/// # Errors
/// When `SERVER_PORT` is not a port that an ordinary user may have.
pub fn of_user(key: &str) -> Result<u16> {
    match setting("SERVER_PORT") {
        None => Ok(from_key(key)),
        Some(text) => parse(&text),
    }
}

fn from_key(key: &str) -> u16 {
    let hash = Sha256::new().chain_update(b"sarus sshd port\0").chain_update(key).finalize();
    let number = hash.iter().take(8).fold(0, |number: u64, byte| number << 8 | u64::from(*byte));
    FIRST + u16::try_from(number % u64::from(COUNT)).unwrap_or_default()
}

fn parse(text: &str) -> Result<u16> {
    text.parse().ok().filter(|port| *port >= 1024).ok_or_else(|| {
        Error::new(format!("invalid SERVER_PORT '{text}'")).with_hint(
            "the environment of ssh_hook in sarus.json sets it: a number from 1024 to 65535",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_a_port_of_its_own() {
        let ports: Vec<_> = (0..1000).map(|number| from_key(&format!("key {number}"))).collect();
        assert!(ports.iter().all(|port| (FIRST..FIRST + COUNT).contains(port)));
        let different: std::collections::BTreeSet<_> = ports.iter().collect();
        assert!(different.len() > 900, "{}", different.len());
        assert_eq!(from_key("key 7"), ports[7]);
    }

    #[test]
    fn the_sites_port_is_checked() {
        assert_eq!(parse("15263").unwrap(), 15263);
        for wrong in ["22", "", "65536", "x"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
