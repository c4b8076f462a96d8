//! `sarus pull` and what registries and token servers ask for and answer: challenges of every
//! grammar, tokens that are none, and token servers that are hostile.

use crate::support::Installation;
use crate::support::http::Answer;
use crate::support::oci::{Built, noise_layer};
use crate::support::pull::{finish, for_each, measure};
use crate::support::server::{Exchange, Server};
use crate::support::token::basic;

/// A registry that answers with these challenges until it is given the token `good`; `{}` in them
/// stands for the address of the token server.
fn registry(challenges: &[&str], tokens: &Server) -> Server {
    let built = Built::busybox();
    let address = tokens.address();
    let challenges: Vec<_> = challenges.iter().map(|text| text.replace("{}", &address)).collect();
    Server::new(move |request| {
        if request.header("authorization") == Some("Bearer good") {
            return built.answer(request);
        }
        let refused = Answer::json(401, r#"{"errors":[{"code":"UNAUTHORIZED"}]}"#);
        challenges.iter().fold(refused, |answer, text| answer.header("WWW-Authenticate", text))
    })
}

fn good_tokens() -> Server {
    Server::new(|_| Answer::json(200, r#"{"token":"good"}"#))
}

#[test]
fn challenges_of_every_grammar_are_understood() {
    let scope = "scope=\"repository:ns/name:pull\"";
    let rows: Vec<(String, &str)> = vec![
        (format!("Bearer realm=\"http://{{}}/token\",service=\"s\",{scope}"), "s"),
        (format!("bearer Realm=\"http://{{}}/token\" , SERVICE=\"s\" ,{scope}"), "s"),
        (format!("BEARER realm=\"http://{{}}/token\",, ,service=s,{scope},"), "s"),
        (format!("Bearer realm = \"http://{{}}/token\", service = s, {scope}"), "s"),
        (format!("Bearer {scope},service=\"s\",error=\"x, y\",realm=\"http://{{}}/token\""), "s"),
        (format!("Bearer realm=\"http://{{}}/token\",service=\"a,b\",{scope}"), "a,b"),
        (format!("Bearer realm=\"http://{{}}/token\",service=\"a\\\"b\\\\c\",{scope}"), "a\"b\\c"),
        (format!("Bearer realm=\"http://{{}}/token\",service=\"a b&c=d#e\",{scope}"), "a b&c=d#e"),
        (format!("Bearer realm=\"http://{{}}/token?a=b\",service=\"s\",{scope}"), "s"),
        (format!("Negotiate, Bearer realm=\"http://{{}}/token\",service=\"s\",{scope}"), "s"),
        (format!("NTLM TlRMTVNTUAAB==, Bearer realm=\"http://{{}}/token\",service=s,{scope}"), "s"),
        (
            format!(
                "Digest realm=\"Bearer realm=x\", qop=\"auth, auth-int\", nonce=\"a==\", Bearer \
                 realm=\"http://{{}}/token\",service=\"s\",{scope}"
            ),
            "s",
        ),
        (format!("Basic realm=\"x\", Bearer realm=\"http://{{}}/token\",service=s,{scope}"), "s"),
        // No scope: the client knows what it wants.
        ("Bearer realm=\"http://{}/token\",service=\"s\"".into(), "s"),
    ];
    for_each(rows, |(challenge, service)| {
        let tokens = good_tokens();
        let registry = registry(&[&challenge], &tokens);
        let installation = Installation::new();
        let output = installation.pull(&format!("{}/ns/name:tag", registry.address()));
        assert_eq!(output.status, 0, "{challenge}: {output}");
        let log = tokens.log();
        let asked = &log.first().unwrap().request;
        assert_eq!(asked.query("service"), [service], "{challenge}: {asked:?}");
        assert_eq!(asked.query("scope"), ["repository:ns/name:pull"], "{challenge}: {asked:?}");
        assert!(!challenge.contains("?a=b") || asked.query("a") == ["b"], "{asked:?}");
        assert_eq!(asked.header("authorization"), None, "{challenge}");
        // One token serves the whole pull.
        assert!(log.len() <= 2, "{challenge}: {} tokens", log.len());
    });
    let tokens = good_tokens();
    let bearer = "Bearer realm=\"http://{}/token\",service=\"s\"";
    let registry = registry(&["Negotiate", "Unknown x=\"y\"", bearer], &tokens);
    Installation::new().pull_and_run(&format!("{}/ns/name:tag", registry.address()));
}

#[test]
fn challenges_that_cannot_be_met_are_refused() {
    let long = format!("Bearer realm=\"http://{{}}/{}\"", "x".repeat(60_000));
    let many = "Basic realm=\"x\", ".repeat(3_000);
    let rows: [&str; 17] = [
        "",
        "Bearer",
        "Bearer realm=\"\"",
        "Bearer realm=\"/token\"",
        "Bearer realm=\"file:///etc/passwd\"",
        "Bearer realm=\"ftp://{}/token\"",
        "Bearer realm=\"http://{}/token",
        "Bearer realm=\"http://{}/token\\",
        "Bearer service=\"s\"",
        "Bearer =\"x\"",
        "Digest realm=\"x\", nonce=\"y\"",
        "Negotiate",
        ",,,,",
        "\u{fffd}\u{1}\u{1b}[31m",
        "realm=\"http://{}/token\"",
        &long,
        &many,
    ];
    for_each(rows, |challenge| {
        let tokens = Server::new(|_| Answer::new(404));
        let registry = registry(&[challenge], &tokens);
        let installation = Installation::new();
        let name = format!("{}/ns/name:tag", registry.address());
        let (output, memory) = measure(&installation.pull_command(&name));
        installation.refused(&output);
        assert!(memory < 100, "{challenge:.80}: {memory} MiB");
        assert!(registry.log().len() < 20, "{challenge:.80}: {} requests", registry.log().len());
    });
}

#[test]
fn token_servers_that_answer_nonsense_are_refused() {
    type Tokens = fn() -> Answer;
    let rows: [(&str, Tokens); 19] = [
        ("HTML", || Answer::new(200).body(b"<html>Please log in</html>".to_vec())),
        ("nothing", || Answer::new(200)),
        ("an empty object", || Answer::json(200, "{}")),
        ("null", || Answer::json(200, r#"{"token":null}"#)),
        ("a number", || Answer::json(200, r#"{"token":5}"#)),
        ("an empty token", || Answer::json(200, r#"{"token":""}"#)),
        ("another header", || Answer::json(200, r#"{"token":"x\r\nX-Injected: y"}"#)),
        ("control characters", || Answer::json(200, r#"{"token":"\u001b[31m\u0000"}"#)),
        ("deep JSON", || Answer::json(200, &"[".repeat(100_000))),
        ("a long token", || {
            Answer::json(200, &format!(r#"{{"token":"{}"}}"#, "x".repeat(2 << 20)))
        }),
        ("an endless answer", || Answer::new(200).body(vec![b' '; 1 << 20]).endless()),
        ("an endless refusal", || Answer::new(401).body(vec![b'x'; 1 << 20]).endless()),
        ("tokens that are not taken", || Answer::json(200, r#"{"token":"bad"}"#)),
        ("400", || Answer::new(400)),
        ("403", || Answer::json(403, r#"{"details":"no\u001b[31m\nhint: run this"}"#)),
        ("500", || Answer::new(500)),
        ("a redirect to a file", || Answer::redirect(302, "file:///etc/passwd")),
        ("a loop", || Answer::redirect(302, "/token")),
        ("no answer", Answer::none),
    ];
    for_each(rows, |(row, answer)| {
        let tokens = Server::new(move |_| answer());
        let registry = registry(&["Bearer realm=\"http://{}/token\",service=\"s\""], &tokens);
        let installation = Installation::new();
        let name = format!("{}/ns/name:tag", registry.address());
        let (output, memory) = measure(&installation.pull_command(&name));
        assert_eq!(output.status, 1, "{row}: {output}");
        installation.refused(&output);
        assert!(memory < 100, "{row}: {memory} MiB");
        for Exchange { request, sent, .. } in registry.log().iter().chain(&tokens.log()) {
            assert_eq!(request.header("x-injected"), None, "{row}");
            assert!(*sent < 64 << 20, "{row}: took {sent} bytes");
        }
        assert!(registry.log().len() < 20, "{row}: {} requests", registry.log().len());
    });
}

#[test]
fn a_password_is_sent_to_the_token_server_alone() {
    // The token server sends its clients on, to another host.
    let elsewhere = Server::on("127.0.0.3", |_| Answer::json(200, r#"{"token":"good"}"#));
    let other = elsewhere.address();
    let tokens = Server::new(move |_| Answer::redirect(307, &format!("http://{other}/token")));
    let registry = registry(&["Bearer realm=\"http://{}/token\",service=\"s\""], &tokens);
    let installation = Installation::new();
    let name = format!("{}/ns/name:tag", registry.address());
    // Whether that works or not, the other host learns nothing.
    let output = finish(&installation.pull_with(&["--login", &name]), "alice\nsecret\n");
    let log = elsewhere.log();
    assert!(log.iter().all(|entry| entry.request.header("authorization").is_none()), "{output}");
    let registry_knows = registry
        .log()
        .iter()
        .any(|entry| entry.request.header("authorization") == Some(&basic("alice", "secret")));
    assert!(!registry_knows, "the registry asks for tokens, and was sent the password");
}

#[test]
fn a_token_that_is_refused_once_is_fetched_anew() {
    // Each token serves two requests.
    let built =
        Built::new((0..5).map(|number| noise_layer(&format!("data/{number}"), 1_000)).collect());
    let tokens = {
        let count = std::sync::atomic::AtomicUsize::new(0);
        Server::new(move |_| {
            let number = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            Answer::json(200, &format!(r#"{{"access_token":"t{number}","expires_in":300}}"#))
        })
    };
    let uses = std::sync::Mutex::new(std::collections::HashMap::<String, usize>::new());
    let realm = format!("Bearer realm=\"http://{}/token\",service=\"s\"", tokens.address());
    let registry = Server::new(move |request| {
        let token = request.header("authorization").unwrap_or_default().to_owned();
        let mut uses = uses.lock().unwrap();
        let count = uses.entry(token.clone()).or_default();
        *count += 1;
        match token.starts_with("Bearer t") && *count <= 2 {
            true => built.answer(request),
            false => Answer::new(401).header("WWW-Authenticate", &realm),
        }
    });
    let installation = Installation::new().set("maxConcurrentDownloads", "1");
    let name = format!("{}/ns/name:tag", registry.address());
    let output = installation.pull(&name);
    assert_eq!(output.status, 0, "{output}");
    assert!((3..12).contains(&tokens.log().len()), "{} tokens", tokens.log().len());
}
