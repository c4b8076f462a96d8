//! The TCP port of a user's sshd: the same on all nodes, a different one for each user, and unknown to
//! other users until sshd listens. Any user could take a port that is the same for all.

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::hook::setting;

/// The first port, above those of most services, and the number of ports, below those of outgoing
/// connections (`net.ipv4.ip_local_port_range`, from 32768 on).
const FIRST: u16 = 10_240;
const COUNT: u16 = 22_528;

/// The port of the user whose sshd has the private key `key`; or `SERVER_PORT` of the hook, which the
/// site may set for all users.
///
/// # Errors
/// If `SERVER_PORT` is not a port that an ordinary user may bind.
pub fn for_key(key: &str) -> Result<u16> {
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
            "set it in the environment of ssh_hook in sarus.json to a number from 1024 to 65535",
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
