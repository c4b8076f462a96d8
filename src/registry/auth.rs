//! Authentication state: anonymous first, then as the challenge in `WWW-Authenticate` demands.
//!
//! Several threads share one state. Each request names the generation of the authorization that it
//! used: the first thread that is refused renews the authorization, and the others use the new one.

use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use miniserde::Deserialize;
use miniserde::json::{Number, Value};

use super::challenge::Challenge;
use super::credentials::{Credentials, Login};
use super::http::{Client, Request};
use super::response::Response;
use super::url::Url;
use crate::error::{Context, Error, Result};
use crate::log;
use crate::sync::ignore_poison;

/// Maximum size in bytes of the response of a token server. Tokens with many scopes take a few KiB.
const MAX_TOKEN: u64 = 1 << 20;
/// Lifetime of a token in seconds if the server states none (Docker's token specification) or less: a
/// token that is refused is renewed anyway.
const LIFETIME: u64 = 60;
/// Maximum lifetime of a token in seconds: a day.
const MAX_LIFETIME: u64 = 86_400;

/// Hint for a registry that requires authentication.
pub(super) const LOG_IN: &str = "log in with --login; the image may be private, or its name wrong";

/// Use of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Repeat the request with the new authorization.
    Retry,
    /// Take the response: no other authorization is available.
    Final,
}

/// Authentication of one repository, shared by all threads.
#[derive(Debug)]
pub struct Auth {
    server: String,
    repository: String,
    login: Login,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Number of changes of the scheme.
    generation: u64,
    scheme: Scheme,
    /// True if the present authorization was accepted at least once.
    worked: bool,
    /// True if the user's credentials are in use.
    has_login: bool,
    /// Credentials of the user, looked up when first needed.
    credentials: Option<Option<Credentials>>,
}

#[derive(Default)]
enum Scheme {
    #[default]
    None,
    Basic(String),
    Bearer {
        token: String,
        until: Instant,
        challenge: Challenge,
        /// True if the challenge came over plain HTTP.
        plain: bool,
    },
}

impl std::fmt::Debug for Scheme {
    /// Omits secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Basic(_) => "Basic",
            Self::Bearer { .. } => "Bearer",
        })
    }
}

/// Response of a token server.
#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
    /// Lifetime in seconds. Ignored if it is not a number.
    expires_in: Option<Value>,
}

impl Auth {
    pub fn new(server: &str, repository: &str, login: Login) -> Self {
        let (server, repository) = (server.to_owned(), repository.to_owned());
        Self { server, repository, login, state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        ignore_poison(self.state.lock())
    }

    /// Returns whether the user's credentials are in use.
    pub fn has_login(&self) -> bool {
        self.lock().has_login
    }

    /// Returns the value of the header `Authorization` and its generation. Renews an expired token.
    pub fn current(&self, client: &Client) -> Result<(Option<String>, u64)> {
        let mut state = self.lock();
        if let Scheme::Bearer { until, challenge, plain, .. } = &state.scheme
            && *until <= Instant::now()
        {
            let (challenge, plain) = (challenge.clone(), *plain);
            self.fetch_token(client, &mut state, challenge, plain)?;
        }
        let authorization = match &state.scheme {
            Scheme::None => None,
            Scheme::Basic(login) => Some(format!("Basic {login}")),
            Scheme::Bearer { token, .. } => Some(format!("Bearer {token}")),
        };
        Ok((authorization, state.generation))
    }

    /// Records that the authorization of `generation` was accepted.
    pub fn worked(&self, generation: u64) {
        let mut state = self.lock();
        state.worked |= state.generation == generation;
    }

    /// Answers `challenges`, which refused the authorization of `generation`.
    pub fn answer(
        &self,
        client: &Client,
        challenges: &[Challenge],
        generation: u64,
        plain: bool,
    ) -> Result<Outcome> {
        let mut state = self.lock();
        if state.generation != generation {
            return Ok(Outcome::Retry);
        }
        let find = |scheme| challenges.iter().find(|challenge| challenge.scheme == scheme);
        let bearer = find("bearer").filter(|challenge| challenge.get("realm").is_some());
        match (bearer, find("basic")) {
            (Some(bearer), _) => self.answer_bearer(client, &mut state, bearer, plain),
            (None, Some(_)) => self.answer_basic(&mut state),
            (None, None) => {
                let offered: Vec<_> = challenges.iter().map(|one| one.scheme.as_str()).collect();
                let offered = if offered.is_empty() { "none" } else { &offered.join(", ") };
                let server = &self.server;
                Err(Error::new(format!(
                    "{server} offers no supported authentication scheme: {offered:.100}"
                ))
                .with_hint(
                    "Basic and Bearer are supported; pull the image with skopeo and import it with 'sarus load'",
                ))
            }
        }
    }

    fn answer_bearer(
        &self,
        client: &Client,
        state: &mut State,
        challenge: &Challenge,
        plain: bool,
    ) -> Result<Outcome> {
        match &state.scheme {
            // An accepted token has expired, or the blob needs another scope.
            Scheme::Bearer { .. } if state.worked => {}
            Scheme::Bearer { .. } => return self.use_credentials(client, state),
            // Credentials on the command line are meant to be used.
            _ if self.login.is_explicit() => state.has_login = self.credentials(state)?.is_some(),
            _ => {}
        }
        self.fetch_token(client, state, challenge.clone(), plain)?;
        Ok(Outcome::Retry)
    }

    fn answer_basic(&self, state: &mut State) -> Result<Outcome> {
        if state.has_login {
            return Ok(Outcome::Final);
        }
        let Some(Credentials { username, secret, .. }) = self.credentials(state)? else {
            return Ok(Outcome::Final);
        };
        state.has_login = true;
        let login = STANDARD.encode(format!("{username}:{}", secret.0));
        state.change(Scheme::Basic(login));
        Ok(Outcome::Retry)
    }

    /// Switches to the user's credentials, if there are any, after the anonymous token of `generation`
    /// did not suffice.
    pub fn escalate(&self, client: &Client, generation: u64) -> Result<Outcome> {
        let mut state = self.lock();
        match &state.scheme {
            _ if state.generation != generation => Ok(Outcome::Retry),
            Scheme::Bearer { .. } => {
                // The response of the registry matters more than a failed login.
                let answer = self.use_credentials(client, &mut state);
                answer.or_else(|error| {
                    log::warn("pull", &error.to_string());
                    Ok(Outcome::Final)
                })
            }
            _ => Ok(Outcome::Final),
        }
    }

    fn use_credentials(&self, client: &Client, state: &mut State) -> Result<Outcome> {
        let Scheme::Bearer { challenge, plain, .. } = &state.scheme else {
            return Ok(Outcome::Final);
        };
        let (challenge, plain) = (challenge.clone(), *plain);
        if state.has_login || self.credentials(state)?.is_none() {
            return Ok(Outcome::Final);
        }
        state.has_login = true;
        self.fetch_token(client, state, challenge, plain)?;
        Ok(Outcome::Retry)
    }

    fn credentials(&self, state: &mut State) -> Result<Option<Credentials>> {
        if state.credentials.is_none() {
            state.credentials = Some(self.login.find(&self.server, &self.repository)?);
        }
        Ok(state.credentials.clone().flatten())
    }

    /// Fetches the token that `challenge` demands, anonymously or with the user's credentials.
    fn fetch_token(
        &self,
        client: &Client,
        state: &mut State,
        challenge: Challenge,
        plain: bool,
    ) -> Result<()> {
        let realm = challenge.get("realm").unwrap_or_default();
        let context = || format!("cannot log in to {}", self.server);
        let url = Url::parse(realm).context(context)?;
        if url.is_plain() && !(plain && client.may_be_plain(url.host())) {
            let host = url.host();
            return Err(Error::new(format!("the token server {host} uses plain HTTP"))
                .with_hint("the administrator can add it to insecureRegistries in sarus.json"))
            .context(context);
        }
        let scope = challenge.get("scope").map(str::to_owned);
        let scope = scope.unwrap_or_else(|| format!("repository:{}:pull", self.repository));
        let credentials = if state.has_login { self.credentials(state)? } else { None };
        let service = challenge.get("service");
        let sent = match credentials.as_ref().filter(|login| login.is_token) {
            Some(login) => redeem(client, &url, service, &scope, login),
            None => ask(client, &url, service, &scope, credentials.as_ref()),
        };
        let mut response = sent.context(context)?;
        match response.status {
            200 => {}
            // No anonymous token: try as the user.
            401 | 403 if !state.has_login && self.credentials(state)?.is_some() => {
                state.has_login = true;
                log::info("pull", || format!("{} grants no anonymous token", url.host()));
                return self.fetch_token(client, state, challenge, plain);
            }
            _ => return Err(self.no_token(&url, &mut response, state.has_login)),
        }
        let bytes = response.bytes(MAX_TOKEN).context(context)?;
        let text = std::str::from_utf8(&bytes).unwrap_or_default();
        let answer: Option<Token> = miniserde::json::from_str(text).ok();
        let lifetime = match answer.as_ref().and_then(|answer| answer.expires_in.as_ref()) {
            Some(Value::Number(Number::U64(seconds))) => (*seconds).clamp(LIFETIME, MAX_LIFETIME),
            _ => LIFETIME,
        };
        let token = answer.and_then(|answer| answer.token.or(answer.access_token));
        // The token becomes part of a header.
        let token =
            token.filter(|token| !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic()));
        let Some(token) = token else {
            let host = url.host();
            return Err(Error::new(format!("the token server {host} sent no token"))
                .with_hint(super::ASK_ADMINISTRATOR))
            .context(context);
        };
        let until = Instant::now() + Duration::from_secs(lifetime);
        state.change(Scheme::Bearer { token, until, challenge, plain });
        Ok(())
    }

    #[cold]
    fn no_token(&self, url: &Url, response: &mut Response, has_login: bool) -> Error {
        let (host, status) = (url.host(), response.status);
        let message = response.message(super::MAX_MESSAGE).text;
        let message = message.map(|text| format!(" ({text})")).unwrap_or_default();
        let Self { server, repository, .. } = self;
        match (status, has_login) {
            (400 | 401 | 403, true) => {
                Error::new(format!("{host} does not accept this login for {server}{message}"))
                    .with_hint("check the user name and the password or token")
            }
            (401 | 403, false) => {
                Error::new(format!("{server} requires authentication for {repository}{message}"))
                    .with_hint(LOG_IN)
            }
            _ => Error::new(format!(
                "cannot log in to {server}: {host} answered with status {status}{message}"
            ))
            .with_hint(super::ASK_ADMINISTRATOR),
        }
    }
}

impl State {
    fn change(&mut self, scheme: Scheme) {
        self.scheme = scheme;
        self.worked = false;
        self.generation += 1;
    }
}

/// Requests a token by GET (Docker's token specification), with Basic authentication if the user logs
/// in.
fn ask(
    client: &Client,
    realm: &Url,
    service: Option<&str>,
    scope: &str,
    login: Option<&Credentials>,
) -> Result<Response> {
    let mut query = Vec::new();
    // Parameters that the realm has already are not repeated.
    let has_parameter = |name: &str| {
        realm
            .query()
            .is_some_and(|query| query.split('&').any(|part| part.split('=').next() == Some(name)))
    };
    if let Some(service) = service.filter(|_| !has_parameter("service")) {
        query.push(format!("service={}", encode(service)));
    }
    if !has_parameter("scope") {
        query.extend(scope.split(' ').map(|scope| format!("scope={}", encode(scope))));
    }
    let url = if query.is_empty() { realm.clone() } else { realm.with_query(&query.join("&"))? };
    let authorization = login.map(|Credentials { username, secret, .. }| {
        format!("Basic {}", STANDARD.encode(format!("{username}:{}", secret.0)))
    });
    client.send(&Request { url, headers: &[], authorization })
}

/// Exchanges an identity token, which `docker login` stores for some registries, for a token of the
/// registry (OAuth 2.0).
fn redeem(
    client: &Client,
    realm: &Url,
    service: Option<&str>,
    scope: &str,
    login: &Credentials,
) -> Result<Response> {
    let form = format!(
        "grant_type=refresh_token&client_id=sarus&service={}&scope={}&refresh_token={}",
        encode(service.unwrap_or_default()),
        encode(scope),
        encode(&login.secret.0)
    );
    client.post(realm, &form)
}

/// Percent-encodes a value for a query or a form (RFC 3986, section 2.1).
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' | b'/' => {
                encoded.push(byte.into());
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::encode;

    #[test]
    fn queries_hold_no_bytes_with_a_meaning() {
        assert_eq!(encode("repository:a/b_c:pull,push"), "repository:a/b_c:pull%2Cpush");
        assert_eq!(encode("é &=+%#?"), "%C3%A9%20%26%3D%2B%25%23%3F");
    }
}
