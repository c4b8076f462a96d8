//! Parser for the header `WWW-Authenticate` in its full grammar (RFC 9110, section 11.6.1).

/// A challenge, such as `Bearer realm="https://auth.example.org/token",service="registry"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// Authentication scheme in lower case: `basic`, `bearer`.
    pub scheme: String,
    parameters: Vec<(String, String)>,
}

impl Challenge {
    /// Returns the value of the parameter `name`, which is in lower case.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.parameters.iter().find(|(other, _)| other == name)?;
        Some(&found.1)
    }
}

/// Parses all challenges of one header, up to the first syntax error: what precedes it may suffice.
pub fn parse(header: &str) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut cursor = Cursor(header);
    loop {
        cursor.skip(|c| c == ',' || c == ' ' || c == '\t');
        let word = cursor.token();
        if word.is_empty() {
            return challenges;
        }
        cursor.skip(|c| c == ' ' || c == '\t');
        // A token and `=` begin a parameter; a token alone begins the next challenge.
        match challenges.last_mut() {
            Some(challenge) if cursor.0.starts_with('=') => {
                cursor.skip_one();
                cursor.skip(|c| c == ' ' || c == '\t');
                let Some(value) = cursor.value() else { return challenges };
                challenge.parameters.push((word.to_ascii_lowercase(), value));
            }
            _ => {
                let scheme = word.to_ascii_lowercase();
                challenges.push(Challenge { scheme, parameters: Vec::new() });
                cursor.token68();
            }
        }
    }
}

/// The part of a header that is not parsed yet.
struct Cursor<'a>(&'a str);

impl<'a> Cursor<'a> {
    fn skip(&mut self, unwanted: impl Fn(char) -> bool) {
        self.0 = self.0.trim_start_matches(unwanted);
    }

    fn skip_one(&mut self) {
        let mut letters = self.0.chars();
        letters.next();
        self.0 = letters.as_str();
    }

    fn token(&mut self) -> &'a str {
        let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        let end = self.0.find(|c| !is_token(c)).unwrap_or(self.0.len());
        let (token, behind) = self.0.split_at(end);
        self.0 = behind;
        token
    }

    /// Takes a token, or a quoted string without its quotes.
    fn value(&mut self) -> Option<String> {
        if !self.0.starts_with('"') {
            let token = self.token();
            return (!token.is_empty()).then(|| token.to_owned());
        }
        let mut value = String::new();
        let mut letters = self.0.chars();
        letters.next();
        loop {
            match letters.next()? {
                '"' => break,
                '\\' => value.push(letters.next()?),
                letter => value.push(letter),
            }
        }
        self.0 = letters.as_str();
        Some(value)
    }

    /// Skips a `token68`, which schemes such as Negotiate have in place of parameters.
    fn token68(&mut self) {
        let is_part = |c: char| c.is_ascii_alphanumeric() || "-._~+/".contains(c);
        let end = self.0.find(|c| !is_part(c)).unwrap_or(self.0.len());
        let (_, behind) = self.0.split_at(end);
        let after = behind.trim_start_matches('=');
        let ends = |text: &str| text.is_empty() || text.trim_start().starts_with(',');
        if end > 0 && ends(after) {
            self.0 = after;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(header: &str, expected: &[(&str, &[(&str, &str)])]) {
        let found = parse(header);
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let expected: Vec<_> = expected
            .iter()
            .map(|(scheme, parameters)| Challenge {
                scheme: (*scheme).to_owned(),
                parameters: parameters.iter().map(owned).collect(),
            })
            .collect();
        assert_eq!(found, expected, "{header}");
    }

    #[test]
    fn challenges_are_read_in_the_full_grammar() {
        check("Basic realm=\"a b\"", &[("basic", &[("realm", "a b")])]);
        check(
            "Bearer realm=\"https://a/token\",service=\"r\",scope=\"repository:a/b:pull,push\"",
            &[(
                "bearer",
                &[
                    ("realm", "https://a/token"),
                    ("service", "r"),
                    ("scope", "repository:a/b:pull,push"),
                ],
            )],
        );
        check(
            "Negotiate, Digest x=1 , Basic REALM = \"q\\\"u\\\\o\", bearer realm=t, error=\"e\"",
            &[
                ("negotiate", &[]),
                ("digest", &[("x", "1")]),
                ("basic", &[("realm", "q\"u\\o")]),
                ("bearer", &[("realm", "t"), ("error", "e")]),
            ],
        );
        check("NTLM TlRMTVNTUAAB==, Basic realm=x", &[("ntlm", &[]), ("basic", &[("realm", "x")])]);
    }

    #[test]
    fn nonsense_gives_what_came_before_it() {
        check("", &[]);
        check("=,\"", &[]);
        check("Basic realm=\"open", &[("basic", &[])]);
        check("Basic realm=\"a\\", &[("basic", &[])]);
        check("Basic realm=, x", &[("basic", &[]), ("x", &[])]);
        check("Bearer é", &[("bearer", &[])]);
        for length in 0..40 {
            parse("Bearer realm=\"a\\\"é\",b=c, Basic d=e".get(..length).unwrap_or_default());
        }
    }
}
