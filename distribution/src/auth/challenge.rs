/// One challenge of a `Www-Authenticate` header (RFC 9110, section 11.6.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Challenge {
    /// In lower case.
    pub(crate) scheme: String,
    params: Vec<(String, String)>,
}

impl Challenge {
    /// A parameter, by its name in lower case.
    pub(crate) fn param(&self, name: &str) -> Option<&str> {
        self.params
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

/// All challenges of a header. What can't be parsed ends the list: what came before it still counts.
pub(crate) fn parse(header: &str) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut rest = Cursor(header);
    loop {
        rest.skip(|c| c == ' ' || c == '\t' || c == ',');
        let Some(name) = rest.token() else { break };
        rest.skip_space();
        if challenges.last().is_some() && rest.eat('=') {
            rest.skip_space();
            let Some(value) = rest.value() else { break };
            let last = challenges.last_mut().expect("checked just above");
            last.params.push((name.to_ascii_lowercase(), value));
        } else {
            rest.token68();
            challenges.push(Challenge {
                scheme: name.to_ascii_lowercase(),
                params: Vec::new(),
            });
        }
    }
    challenges
}

struct Cursor<'a>(&'a str);

impl<'a> Cursor<'a> {
    fn skip(&mut self, which: impl Fn(char) -> bool) {
        self.0 = self.0.trim_start_matches(which);
    }

    fn skip_space(&mut self) {
        self.skip(|c| c == ' ' || c == '\t');
    }

    fn eat(&mut self, wanted: char) -> bool {
        match self.0.strip_prefix(wanted) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    fn token(&mut self) -> Option<&'a str> {
        let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        let end = self.0.find(|c| !is_token(c)).unwrap_or(self.0.len());
        let (token, rest) = self.0.split_at(end);
        self.0 = rest;
        (!token.is_empty()).then_some(token)
    }

    /// Skips the bare credentials that may follow a scheme instead of parameters.
    fn token68(&mut self) {
        let is_char = |c: char| c.is_ascii_alphanumeric() || "-._~+/".contains(c);
        let after = self.0.trim_start_matches(is_char).trim_start_matches('=');
        let follows = after.trim_start_matches([' ', '\t']);
        if after.len() < self.0.len() && (follows.is_empty() || follows.starts_with(',')) {
            self.0 = follows;
        }
    }

    fn value(&mut self) -> Option<String> {
        if !self.eat('"') {
            // Some servers leave the quotes out even where the grammar demands them: take all up to the comma.
            let end = self.0.find([',', ' ', '\t']).unwrap_or(self.0.len());
            let (value, rest) = self.0.split_at(end);
            self.0 = rest;
            return Some(value.to_owned());
        }
        let mut value = String::new();
        let mut chars = self.0.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.0 = &self.0[at + 1..];
                    return Some(value);
                }
                '\\' => value.push(chars.next()?.1),
                c => value.push(c),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn short(header: &str) -> String {
        let one = |challenge: Challenge| {
            let params: Vec<_> = challenge.params.iter().map(|(k, v)| format!("{k}={v}")).collect();
            format!("{}({})", challenge.scheme, params.join(";"))
        };
        parse(header).into_iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn table() {
        for (header, expected) in [
            ("", ""),
            ("Basic", "basic()"),
            (r#"Basic realm="Registry""#, "basic(realm=Registry)"),
            (r#"basic Realm = "a b" "#, "basic(realm=a b)"),
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/a:pull,push""#,
                "bearer(realm=https://auth.docker.io/token;service=registry.docker.io;scope=repository:library/a:pull,push)",
            ),
            (
                r#"Bearer realm=https://a/token,service=x"#,
                "bearer(realm=https://a/token;service=x)",
            ),
            (r#"Negotiate, Basic realm="x""#, "negotiate() basic(realm=x)"),
            (
                r#"Negotiate YWJj==, Bearer realm="y", error="invalid_token""#,
                "negotiate() bearer(realm=y;error=invalid_token)",
            ),
            (
                r#"Basic realm="a \"quoted\" \\ one, two", charset="UTF-8""#,
                r#"basic(realm=a "quoted" \ one, two;charset=UTF-8)"#,
            ),
            (r#"Bearer realm="never closed"#, "bearer()"),
            (r#"Basic realm="x", "junk"#, "basic(realm=x)"),
            (",,, Basic ,,", "basic()"),
            (r#"Bearer realm="é\"#, "bearer()"),
        ] {
            assert_eq!(short(header), expected, "{header}");
        }
    }

    #[test]
    fn param_by_name() {
        let challenge = &parse(r#"Bearer REALM="r",service="""#)[0];
        assert_eq!(challenge.param("realm"), Some("r"));
        assert_eq!(challenge.param("service"), Some(""));
        assert_eq!(challenge.param("scope"), None);
    }
}
