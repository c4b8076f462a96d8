//! Who we are to a registry: nobody at first, then what its challenge asks for.
//!
//! Several threads share one login. Each request tells which generation of it was used, so that the
//! first that is refused renews it and the others use what it got.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use miniserde::Deserialize;
use miniserde::json::{Number, Value};

use super::challenge::Challenge;
use super::credentials::{Credentials, Login};
use super::http::{Client, Request, Response};
use super::url::Url;
use crate::error::{Context, Error, Result};
use crate::log;

/// Longest answer of a token server: tokens with many scopes take a few KiB.
const MAX_TOKEN: u64 = 1 << 20;
/// How long a token is good if the server does not tell (the token specification), or tells less:
/// one that is refused is renewed anyway.
const LIFETIME: u64 = 60;
/// A day.
const MAX_LIFETIME: u64 = 86_400;

/// What to do after a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Ask again: there is another authorization now.
    Retry,
    /// There is no better one.
    Refused,
}

/// How we authorise ourselves, for all threads.
#[derive(Debug)]
pub struct Auth {
    server: String,
    repository: String,
    login: Login,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Counts the changes of what follows.
    generation: u64,
    scheme: Scheme,
    /// The present authorization has been accepted at least once.
    worked: bool,
    /// The user's credentials are in use, rather than nobody's.
    known: bool,
    /// Looked up when first needed.
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
        /// The challenge came over plain HTTP.
        plain: bool,
    },
}

impl std::fmt::Debug for Scheme {
    /// Tells no secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Basic(_) => "Basic",
            Self::Bearer { .. } => "Bearer",
        })
    }
}

/// What a token server answers.
#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
    /// In seconds. What is no number is of no use, but no reason to fail.
    expires_in: Option<Value>,
}

impl Auth {
    pub fn new(server: &str, repository: &str, login: Login) -> Self {
        let (server, repository) = (server.to_owned(), repository.to_owned());
        Self { server, repository, login, state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether credentials were used.
    pub fn has_login(&self) -> bool {
        self.lock().known
    }

    /// What to send now, and which generation that is. A token that has run out is renewed before.
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

    /// The authorization of `generation` was accepted.
    pub fn worked(&self, generation: u64) {
        let mut state = self.lock();
        state.worked |= state.generation == generation;
    }

    /// Answers the challenges of a registry that refused the authorization of `generation`.
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
                    "{server} wants a login of an unknown kind: {offered:.100}"
                ))
                .with_hint(
                    "only Basic and Bearer are known: pull it by skopeo, and `sarus load` it",
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
            // It was good once, so it has run out, or the blob needs another scope.
            Scheme::Bearer { .. } if state.worked => {}
            Scheme::Bearer { .. } => return self.use_credentials(client, state),
            // What the user gave by hand is meant to be used.
            _ if self.login.is_explicit() => state.known = self.credentials(state)?.is_some(),
            _ => {}
        }
        self.fetch_token(client, state, challenge.clone(), plain)?;
        Ok(Outcome::Retry)
    }

    fn answer_basic(&self, state: &mut State) -> Result<Outcome> {
        if state.known {
            return Ok(Outcome::Refused);
        }
        let Some(Credentials { username, secret, .. }) = self.credentials(state)? else {
            return Ok(Outcome::Refused);
        };
        state.known = true;
        let login = STANDARD.encode(format!("{username}:{}", secret.0));
        state.change(Scheme::Basic(login));
        Ok(Outcome::Retry)
    }

    /// Uses the user's credentials, if there are any and they were not used, where nobody's token
    /// of `generation` did not suffice.
    pub fn escalate(&self, client: &Client, generation: u64) -> Result<Outcome> {
        let mut state = self.lock();
        match &state.scheme {
            _ if state.generation != generation => Ok(Outcome::Retry),
            Scheme::Bearer { .. } => {
                // What the registry said matters more than that a login could not be had.
                let answer = self.use_credentials(client, &mut state);
                answer.or_else(|error| {
                    log::warn("pull", &error.to_string());
                    Ok(Outcome::Refused)
                })
            }
            _ => Ok(Outcome::Refused),
        }
    }

    fn use_credentials(&self, client: &Client, state: &mut State) -> Result<Outcome> {
        let Scheme::Bearer { challenge, plain, .. } = &state.scheme else {
            return Ok(Outcome::Refused);
        };
        let (challenge, plain) = (challenge.clone(), *plain);
        if state.known || self.credentials(state)?.is_none() {
            return Ok(Outcome::Refused);
        }
        state.known = true;
        self.fetch_token(client, state, challenge, plain)?;
        Ok(Outcome::Retry)
    }

    fn credentials(&self, state: &mut State) -> Result<Option<Credentials>> {
        if state.credentials.is_none() {
            state.credentials = Some(self.login.find(&self.server, &self.repository)?);
        }
        Ok(state.credentials.clone().flatten())
    }

    /// Gets a token for what `challenge` asks, as nobody or with the user's credentials.
    fn fetch_token(
        &self,
        client: &Client,
        state: &mut State,
        challenge: Challenge,
        plain: bool,
    ) -> Result<()> {
        let realm = challenge.get("realm").unwrap_or_default();
        let about = || format!("cannot log in to {}", self.server);
        let url = Url::parse(realm).context(about)?;
        if url.is_plain() && !(plain && client.may_be_plain(url.host())) {
            let host = url.host();
            return Err(Error::new(format!("its token server {host} is on plain HTTP"))
                .with_hint("the administrator can add it to insecureRegistries in sarus.json"))
            .context(about);
        }
        let scope = challenge.get("scope").map(str::to_owned);
        let scope = scope.unwrap_or_else(|| format!("repository:{}:pull", self.repository));
        let credentials = if state.known { self.credentials(state)? } else { None };
        let service = challenge.get("service");
        let sent = match credentials.as_ref().filter(|login| login.is_token) {
            Some(login) => redeem(client, &url, service, &scope, login),
            None => ask(client, &url, service, &scope, credentials.as_ref()),
        };
        let mut response = sent.context(about)?;
        match response.status {
            200 => {}
            // Nobody gets a token: a user may.
            401 | 403 if !state.known && self.credentials(state)?.is_some() => {
                state.known = true;
                log::info("pull", || format!("{} gives nothing to strangers", url.host()));
                return self.fetch_token(client, state, challenge, plain);
            }
            _ => return Err(self.no_token(&url, &mut response, state.known)),
        }
        let bytes = response.bytes(MAX_TOKEN).context(about)?;
        let text = std::str::from_utf8(&bytes).unwrap_or_default();
        let answer: Option<Token> = miniserde::json::from_str(text).ok();
        let lifetime = match answer.as_ref().and_then(|answer| answer.expires_in.as_ref()) {
            Some(Value::Number(Number::U64(seconds))) => (*seconds).clamp(LIFETIME, MAX_LIFETIME),
            _ => LIFETIME,
        };
        let token = answer.and_then(|answer| answer.token.or(answer.access_token));
        // It becomes part of a header.
        let token =
            token.filter(|token| !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic()));
        let Some(token) = token else {
            let host = url.host();
            return Err(Error::new(format!("the token server {host} sent no token"))
                .with_hint("try again later; the registry's administrator may know more"))
            .context(about);
        };
        let until = Instant::now() + Duration::from_secs(lifetime);
        state.change(Scheme::Bearer { token, until, challenge, plain });
        Ok(())
    }

    #[cold]
    fn no_token(&self, url: &Url, response: &mut Response, known: bool) -> Error {
        let (host, status) = (url.host(), response.status);
        let message = response.message(super::MAX_MESSAGE).text;
        let message = message.map(|text| format!(" ({text})")).unwrap_or_default();
        let Self { server, repository, .. } = self;
        match (status, known) {
            (400 | 401 | 403, true) => {
                Error::new(format!("{host} does not accept this login for {server}{message}"))
                    .with_hint("check user name, password or token")
            }
            (401 | 403, false) => {
                Error::new(format!("{server} wants a login for {repository}{message}"))
                    .with_hint("log in by --login; the image may be private, or its name wrong")
            }
            _ => Error::new(format!(
                "cannot log in to {server}: {host} answers with status {status}{message}"
            ))
            .with_hint("try again later; the registry's administrator may know more"),
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

/// As the token specification has it: by GET, with Basic where somebody asks.
fn ask(
    client: &Client,
    realm: &Url,
    service: Option<&str>,
    scope: &str,
    login: Option<&Credentials>,
) -> Result<Response> {
    let mut query = Vec::new();
    // What the realm's own query says already is not said twice.
    let said = |name: &str| {
        realm
            .query()
            .is_some_and(|query| query.split('&').any(|part| part.split('=').next() == Some(name)))
    };
    if let Some(service) = service.filter(|_| !said("service")) {
        query.push(format!("service={}", encode(service)));
    }
    if !said("scope") {
        query.extend(scope.split(' ').map(|scope| format!("scope={}", encode(scope))));
    }
    let url = if query.is_empty() { realm.clone() } else { realm.with_query(&query.join("&"))? };
    let authorization = login.map(|Credentials { username, secret, .. }| {
        format!("Basic {}", STANDARD.encode(format!("{username}:{}", secret.0)))
    });
    client.send(&Request { url, headers: &[], authorization })
}

/// Exchanges an identity token, which `docker login` keeps for some registries, by OAuth 2.
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

/// For a query or a form (RFC 3986, section 2.1).
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
