//! A token server as registries have it, whose tokens docker-registry takes (`auth: token`):
//! <https://distribution.github.io/distribution/spec/auth/token/>.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use super::Scratch;
use super::certificates::{Authority, Certificate};
use super::http::{Answer, Request};
use super::server::{Exchange, Server};

/// What the registry and the token server both know.
pub const SERVICE: &str = "test registry";
pub const ISSUER: &str = "test tokens";

/// How long after its end docker-registry still takes a token.
const LEEWAY: i64 = 60;

/// After how many seconds the registry refuses a token to push.
const PATIENCE: i64 = 300;

/// Whom the server gives which tokens.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Names and passwords: they may pull and push everything.
    pub users: Vec<(String, String)>,
    /// Anybody may pull what starts with this.
    pub public: String,
    /// `token` or `access_token`.
    pub key: &'static str,
    /// What the answer says in `expires_in`, in seconds.
    pub expires_in: Option<u64>,
    /// After how many seconds the registry refuses a token to pull.
    pub lifetime: i64,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            users: vec![("alice".into(), "secret".into())],
            public: "public/".into(),
            key: "token",
            expires_in: None,
            lifetime: 300,
        }
    }
}

/// The server; it ends when dropped.
pub struct TokenServer {
    server: Server,
    certificate: PathBuf,
    _directory: Scratch,
}

impl TokenServer {
    pub fn new(rules: Rules) -> Self {
        let directory = Scratch::new("tokens");
        let signing = Authority::self_signed(&directory.path(""));
        let certificate = signing.certificate.clone();
        let server = Server::new(move |request| answer(request, &rules, &signing));
        Self { server, certificate, _directory: directory }
    }

    /// Where clients get their tokens.
    pub fn realm(&self) -> String {
        format!("http://{}/token", self.server.address())
    }

    /// What the registry knows the signatures by.
    pub fn certificate(&self) -> &Path {
        &self.certificate
    }

    /// What it was asked.
    pub fn log(&self) -> Vec<Exchange> {
        self.server.log()
    }
}

fn answer(request: &Request, rules: &Rules, signing: &Certificate) -> Answer {
    let user = match request.header("authorization") {
        None => None,
        Some(given) => {
            let known = rules.users.iter().find(|(name, password)| given == basic(name, password));
            let Some((name, _)) = known else {
                let text = r#"{"errors":[{"code":"UNAUTHORIZED","message":"wrong password"}]}"#;
                return Answer::json(401, text);
            };
            Some(name)
        }
    };
    let mut access = vec![];
    for scope in request.query("scope").iter().flat_map(|scopes| scopes.split(' ')) {
        let parts: Vec<_> = scope.split(':').collect();
        let ["repository", name, actions] = parts[..] else { continue };
        let granted: Vec<_> = actions
            .split(',')
            .filter(|action| {
                user.is_some() || (*action == "pull" && name.starts_with(&rules.public))
            })
            .map(|action| format!("\"{action}\""))
            .collect();
        if !granted.is_empty() {
            let actions = granted.join(",");
            access
                .push(format!(r#"{{"type":"repository","name":"{name}","actions":[{actions}]}}"#));
        }
    }
    let access = access.join(",");
    // The image that a test pushes first shall be there, however slow the machine is.
    let lifetime = if access.contains("\"push\"") { PATIENCE } else { rules.lifetime };
    let token = sign(user.map_or("", String::as_str), &access, lifetime, signing);
    let Rules { key, expires_in, .. } = rules;
    let expires = expires_in.map_or(String::new(), |seconds| format!(r#","expires_in":{seconds}"#));
    Answer::json(200, &format!(r#"{{"{key}":"{token}"{expires}}}"#))
}

/// The value of `Authorization` for a name and a password.
pub fn basic(name: &str, password: &str) -> String {
    format!("Basic {}", base64(format!("{name}:{password}").as_bytes()))
}

/// A JSON web token, signed with RSA and SHA-256.
fn sign(subject: &str, access: &str, lifetime: i64, signing: &Certificate) -> String {
    let certificate = fs::read_to_string(&signing.certificate).unwrap();
    let certificate: String =
        certificate.lines().filter(|line| !line.starts_with("-----")).collect();
    let head = format!(r#"{{"typ":"JWT","alg":"RS256","x5c":["{certificate}"]}}"#);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let (id, now) = (now.as_nanos(), now.as_secs().cast_signed());
    let (end, start) = (now + lifetime - LEEWAY, now - 2 * LEEWAY);
    let claims = format!(
        r#"{{"iss":"{ISSUER}","sub":"{subject}","aud":"{SERVICE}","exp":{end},"nbf":{start},
            "iat":{now},"jti":"{id}","access":[{access}]}}"#
    );
    let text = format!("{}.{}", base64url(head.as_bytes()), base64url(claims.as_bytes()));
    let mut openssl = Command::new("openssl");
    openssl.args(["dgst", "-sha256", "-sign"]).arg(&signing.key);
    let mut openssl = openssl.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    openssl.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = openssl.wait_with_output().unwrap();
    assert!(output.status.success(), "openssl cannot sign");
    format!("{text}.{}", base64url(&output.stdout))
}

/// RFC 4648.
pub fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let byte = |index: usize| u32::from(group.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let letter = ALPHABET[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= group.len() { letter.into() } else { '=' });
        }
    }
    text
}

/// The same for URLs, without padding.
fn base64url(bytes: &[u8]) -> String {
    base64(bytes).replace('+', "-").replace('/', "_").trim_end_matches('=').to_owned()
}
