//! Credentials of a user for a registry: from the command line, or stored by `docker login`, `podman
//! login` or a credential helper (containers-auth.json(5)).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use miniserde::{Deserialize, json};

use crate::error::{Context, Error, Result};
use crate::image::reference::{DEFAULT_SERVER, HUB_ALIAS};
use crate::log;
use crate::registry::credential_helper;

/// Maximum size of a credentials file in bytes.
const MAX_SIZE: u64 = 1 << 20;

/// User name of an identity token in the response of a credential helper.
const TOKEN: &str = "<token>";

/// A user name and a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// User name; may be empty for a token.
    pub username: String,
    /// Password or access token.
    pub secret: Secret,
    /// True if the secret is an identity token, which is exchanged for tokens of the registry.
    pub is_token: bool,
}

/// A secret, which is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

impl Credentials {
    /// Makes credentials of a user name and a password.
    #[must_use]
    pub fn new(username: impl Into<String>, password: impl Into<String>) -> Self {
        Self { username: username.into(), secret: Secret(password.into()), is_token: false }
    }
}

/// Source of the credentials.
#[derive(Debug, Clone)]
pub enum Login {
    /// Credentials from the command line.
    Explicit(Credentials),
    /// Stored credentials, if there are any, and only where the registry requires them.
    Stored,
}

impl Login {
    /// Returns whether the credentials come from the command line.
    #[must_use]
    pub fn is_explicit(&self) -> bool {
        matches!(self, Self::Explicit(_))
    }

    /// Finds the credentials for a repository of `server`. Malformed files are skipped with a warning.
    ///
    /// # Errors
    /// The credential helper fails.
    pub fn find(&self, server: &str, repository: &str) -> Result<Option<Credentials>> {
        if let Self::Explicit(credentials) = self {
            return Ok(Some(credentials.clone()));
        }
        for path in paths(|name| std::env::var_os(name).filter(|value| !value.is_empty())) {
            let Some(text) = read(&path) else { continue };
            let Ok(stored) = json::from_str::<AuthFile>(&text) else {
                let text = format!("ignoring {}: malformed JSON", path.display());
                log::warn("pull", &text);
                continue;
            };
            let context =
                || format!("cannot use the credentials for {server} of {}", path.display());
            let found = stored.find(server, repository, credential_helper::ask).context(context)?;
            if found.is_some() {
                log::info("pull", || {
                    format!("logging in with the credentials of {}", path.display())
                });
                return Ok(found);
            }
        }
        Ok(None)
    }
}

/// Lists the files with credentials: Podman's first, as Podman does, then Docker's.
fn paths(variable: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let within = |name: &str, rest: &str| variable(name).map(|base| PathBuf::from(base).join(rest));
    let home = |rest: &str| within("HOME", rest);
    [
        variable("REGISTRY_AUTH_FILE").map(PathBuf::from),
        within("XDG_RUNTIME_DIR", "containers/auth.json"),
        within("XDG_CONFIG_HOME", "containers/auth.json")
            .or_else(|| home(".config/containers/auth.json")),
        within("DOCKER_CONFIG", "config.json").or_else(|| home(".docker/config.json")),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn read(path: &std::path::Path) -> Option<String> {
    let file = crate::sys::fs::resolve::regular_file(path).ok()?;
    crate::sys::fs::read::read_text_at_most(std::fs::File::from(file), MAX_SIZE).ok()
}

/// Content of Docker's `config.json` or Podman's `auth.json`.
#[derive(Deserialize)]
struct AuthFile {
    auths: Option<BTreeMap<String, AuthEntry>>,
    #[serde(rename = "credHelpers")]
    helpers: Option<BTreeMap<String, String>>,
    #[serde(rename = "credsStore")]
    store: Option<String>,
}

#[derive(Deserialize)]
struct AuthEntry {
    /// `name:password` in base64.
    auth: Option<String>,
    #[serde(rename = "identitytoken")]
    identity_token: Option<String>,
}

/// Response of a credential helper.
#[derive(Deserialize)]
struct HelperResponse {
    #[serde(rename = "Username")]
    username: String,
    #[serde(rename = "Secret")]
    secret: String,
}

impl AuthFile {
    /// Finds the credentials for a repository of `server`. `ask` runs a credential helper.
    fn find(
        &self,
        server: &str,
        repository: &str,
        ask: impl Fn(&str, &str) -> Result<Option<String>>,
    ) -> Result<Option<Credentials>> {
        let names = names(server);
        let of_server = |key: &str| names.iter().any(|name| name == bare(key));
        let helpers = self.helpers.iter().flatten();
        let helper =
            helpers.filter(|(key, _)| of_server(key)).map(|(key, name)| (name, key.as_str()));
        // Docker stores the Hub under its first name.
        let first = if server == DEFAULT_SERVER { "https://index.docker.io/v1/" } else { server };
        let helper = helper.chain(self.store.iter().map(|name| (name, first)));
        for (name, key) in helper {
            if let Some(text) = ask(name, key)? {
                return answer(&text).map(Some).context(|| format!("docker-credential-{name}"));
            }
        }
        Ok(self.entry(&names, repository).and_then(AuthEntry::credentials))
    }

    /// Returns the entry of the repository, of the nearest namespace above it, or of the server.
    fn entry(&self, names: &[String], repository: &str) -> Option<&AuthEntry> {
        let auths = self.auths.as_ref()?;
        let mut path = repository;
        loop {
            let wanted = |key: &str| names.iter().any(|name| format!("{name}/{path}") == key);
            if let Some((_, entry)) = auths.iter().find(|(key, _)| wanted(key)) {
                return Some(entry);
            }
            match path.rsplit_once('/') {
                Some((above, _)) => path = above,
                None => break,
            }
        }
        let of_server = |key: &str| names.iter().any(|name| name == bare(key));
        auths.iter().find(|(key, _)| of_server(key)).map(|(_, entry)| entry)
    }
}

impl AuthEntry {
    fn credentials(&self) -> Option<Credentials> {
        let text = self.auth.as_deref().and_then(|auth| STANDARD.decode(auth.trim()).ok());
        let text = text.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
        let (username, password) = text.split_once(':').unwrap_or_default();
        if let Some(token) = self.identity_token.as_ref().filter(|token| !token.is_empty()) {
            let secret = Secret(token.clone());
            return Some(Credentials { username: username.into(), secret, is_token: true });
        }
        // Old releases of Docker padded passwords with zeros.
        let password = password.trim_end_matches('\0');
        (!username.is_empty() && !password.is_empty()).then(|| Credentials::new(username, password))
    }
}

fn answer(text: &str) -> Result<Credentials> {
    let answer: HelperResponse = json::from_str(text).map_err(|_| Error::new("malformed JSON"))?;
    let HelperResponse { username, secret } = answer;
    let is_token = username == TOKEN;
    Ok(Credentials { username, secret: Secret(secret), is_token })
}

/// Names that credentials of a server are stored under.
fn names(server: &str) -> Vec<String> {
    match server {
        DEFAULT_SERVER => {
            [DEFAULT_SERVER, HUB_ALIAS, "registry-1.docker.io"].map(str::to_owned).into()
        }
        _ => vec![server.to_owned()],
    }
}

/// Removes scheme and version from a key: `https://index.docker.io/v1/` is for `index.docker.io`.
fn bare(key: &str) -> &str {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let key = key.trim_end_matches('/');
    key.strip_suffix("/v1").or_else(|| key.strip_suffix("/v2")).unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(config: &str, server: &str, repository: &str) -> Option<Credentials> {
        let stored: AuthFile = json::from_str(config).unwrap();
        let ask = |name: &str, server: &str| {
            Ok(match (name, server) {
                ("own", "reg.example") => {
                    Some(r#"{"ServerURL":"","Username":"u","Secret":"s"}"#.to_owned())
                }
                ("all", "other.example") => {
                    Some(r#"{"Username":"<token>","Secret":"t"}"#.to_owned())
                }
                _ => None,
            })
        };
        stored.find(server, repository, ask).unwrap()
    }

    #[test]
    fn entries_are_found_under_every_spelling() {
        // alice:secret, bob:pass:word
        let config = r#"{"auths": {
            "https://index.docker.io/v1/": {"auth": "YWxpY2U6c2VjcmV0"},
            "reg.example:5000": {"auth": "Ym9iOnBhc3M6d29yZA=="},
            "reg.example:5000/team/private": {"auth": "YWxpY2U6c2VjcmV0"},
            "http://old.example/v2": {"auth": "YWxpY2U6c2VjcmV0"},
            "empty.example": {}, "broken.example": {"auth": "!"},
            "token.example": {"auth": "YWxpY2U6", "identitytoken": "id"}}}"#;
        let alice = Some(Credentials::new("alice", "secret"));
        let bob = Some(Credentials::new("bob", "pass:word"));
        assert_eq!(find(config, "index.docker.io", "library/x"), alice);
        assert_eq!(find(config, "reg.example:5000", "team/x"), bob);
        assert_eq!(find(config, "reg.example:5000", "team/private/deep/x"), alice);
        assert_eq!(find(config, "reg.example:5000", "team/privateer"), bob);
        assert_eq!(find(config, "old.example", "x"), alice);
        for server in ["reg.example", "empty.example", "broken.example"] {
            assert_eq!(find(config, server, "x"), None, "{server}");
        }
        let token = find(config, "token.example", "x").unwrap();
        assert!(token.is_token && token.secret.0 == "id");
    }

    #[test]
    fn helpers_are_asked() {
        let config = r#"{"credHelpers": {"reg.example": "own"}, "credsStore": "all",
            "auths": {"third.example": {"auth": "YWxpY2U6c2VjcmV0"}}}"#;
        assert_eq!(find(config, "reg.example", "x"), Some(Credentials::new("u", "s")));
        assert!(find(config, "other.example", "x").unwrap().is_token);
        assert_eq!(find(config, "third.example", "x"), Some(Credentials::new("alice", "secret")));
    }

    #[test]
    fn secrets_are_not_printed() {
        let shown = format!("{:?}", Login::Explicit(Credentials::new("alice", "hush")));
        assert!(shown.contains("alice") && !shown.contains("hush"), "{shown}");
    }

    #[test]
    fn the_environment_says_where() {
        let set = |name: &str| match name {
            "HOME" => Some("/h".into()),
            "XDG_RUNTIME_DIR" => Some("/run/1".into()),
            _ => None,
        };
        let expected = [
            "/run/1/containers/auth.json",
            "/h/.config/containers/auth.json",
            "/h/.docker/config.json",
        ];
        assert_eq!(paths(set), expected.map(PathBuf::from));
    }
}
