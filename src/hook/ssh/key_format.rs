//! Ed25519 key pairs in the format of OpenSSH: `PROTOCOL.key` of its source, RFC 4253 and RFC 8709.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ring::signature::{Ed25519KeyPair, KeyPair};

use crate::error::{Error, Result};
use crate::sys::random;

const ALGORITHM: &[u8] = b"ssh-ed25519";

/// Length of a line of base64, as ssh-keygen(1) writes it.
const LINE: usize = 70;

/// Block size in bytes that an unencrypted private part is padded to.
const BLOCK: usize = 8;

/// The texts of the two files of a key pair.
pub struct EncodedPair {
    /// `id_ed25519`
    pub private: String,
    /// `id_ed25519.pub`
    pub public: String,
}

/// Generates a key pair without a passphrase.
///
/// # Errors
/// If the kernel has no random bytes.
pub fn generate(comment: &str) -> Result<EncodedPair> {
    let (mut seed, mut check) = ([0; 32], [0; 4]);
    for bytes in [seed.as_mut_slice(), check.as_mut_slice()] {
        random::fill(bytes)?;
    }
    encode(&seed, check, comment)
}

fn encode(seed: &[u8; 32], check: [u8; 4], comment: &str) -> Result<EncodedPair> {
    let pair = Ed25519KeyPair::from_seed_unchecked(seed);
    let pair = pair.map_err(|_| Error::new("cannot make a key of random bytes"))?;
    let point = pair.public_key().as_ref();
    let public = [string(ALGORITHM), string(point)].concat();

    // A random number, written twice, verifies a passphrase; the format has it without one too.
    let mut private = [check, check].concat();
    private.extend(&public);
    private.extend(string(&[seed, point].concat()));
    private.extend(string(comment.as_bytes()));
    let padding = private.len().next_multiple_of(BLOCK) - private.len();
    private.extend((1..=BLOCK as u8).take(padding));

    let mut file = b"openssh-key-v1\0".to_vec();
    // Cipher, key derivation function and its options, number of keys.
    file.extend(
        [string(b"none"), string(b"none"), string(b""), 1u32.to_be_bytes().into()].concat(),
    );
    file.extend([string(&public), string(&private)].concat());

    let text = BASE64_STANDARD.encode(file);
    let mut armoured = String::from("-----BEGIN OPENSSH PRIVATE KEY-----\n");
    for (at, letter) in text.chars().enumerate() {
        if at > 0 && at % LINE == 0 {
            armoured.push('\n');
        }
        armoured.push(letter);
    }
    armoured.push_str("\n-----END OPENSSH PRIVATE KEY-----\n");
    let public = format!("ssh-ed25519 {} {comment}\n", BASE64_STANDARD.encode(public));
    Ok(EncodedPair { private: armoured, public })
}

/// `string` of RFC 4251: the length, and the bytes.
fn string(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    [&length.to_be_bytes(), bytes].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_written_as_ssh_keygen_writes_it() {
        // The first test vector of RFC 8032.
        let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
        let byte = |at: usize| u8::from_str_radix(&seed[2 * at..2 * at + 2], 16).unwrap();
        let pair = encode(&std::array::from_fn(byte), [1, 2, 3, 4], "a@b").unwrap();
        assert_eq!(
            pair.public,
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINdamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea a@b\n"
        );
        let lines: Vec<_> = pair.private.lines().collect();
        assert_eq!(lines[0], "-----BEGIN OPENSSH PRIVATE KEY-----");
        assert_eq!(lines.last(), Some(&"-----END OPENSSH PRIVATE KEY-----"));
        assert!(lines[1..lines.len() - 2].iter().all(|line| line.len() == LINE), "{lines:?}");
        let bytes = BASE64_STANDARD.decode(lines[1..lines.len() - 1].concat()).unwrap();
        let private = &bytes[bytes.len() - 136..];
        assert_eq!(private[..8], [1, 2, 3, 4, 1, 2, 3, 4]);
        assert!(private.ends_with(b"\0\0\0\x03a@b\x01\x02"), "{private:?}");
    }

    #[test]
    fn no_key_is_made_twice() {
        let keys = [generate("a").unwrap(), generate("a").unwrap()];
        assert_ne!(keys[0].public, keys[1].public);
    }
}
