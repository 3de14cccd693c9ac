//! The text of a filter, byte by byte.

use regex::RegexBuilder;

use crate::selector::{Selector, Test};
use crate::{Error, Result};

/// A filter that is longer is refused before it is read.
const MAX_FILTER: usize = 64 << 10;
/// What a compiled pattern may take.
const MAX_PATTERN: usize = 1 << 20;

pub(crate) fn selectors(text: &str) -> Result<Vec<Selector>> {
    if text.len() > MAX_FILTER {
        return Err(Error::new(text, 0, format!("it is longer than {MAX_FILTER} bytes")));
    }
    let mut parser = Parser { text, at: 0 };
    let mut selectors = Vec::new();
    parser.skip_space();
    // An empty filter has no selectors, and so matches everything.
    if parser.rest().is_empty() {
        return Ok(selectors);
    }
    loop {
        selectors.push(parser.selector()?);
        parser.skip_space();
        match parser.rest().chars().next() {
            None => return Ok(selectors),
            Some(',') => parser.at += 1,
            Some(_) => return Err(parser.error("expected a comma or the end")),
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn error(&self, reason: impl Into<String>) -> Error {
        Error::new(self.text, self.at, reason)
    }

    fn skip_space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn selector(&mut self) -> Result<Selector> {
        let mut path = vec![self.name()?];
        while self.rest().starts_with('.') {
            self.at += 1;
            path.push(self.name()?);
        }
        self.skip_space();
        let operator = self.rest().get(..2).unwrap_or_default();
        let test = match operator {
            "==" => {
                self.at += 2;
                Test::Equal(self.value()?)
            }
            "!=" => {
                self.at += 2;
                Test::NotEqual(self.value()?)
            }
            "~=" => {
                self.at += 2;
                self.pattern()?
            }
            _ => match self.rest().chars().next() {
                None | Some(',') => Test::Present,
                Some(_) => return Err(self.error("expected '==', '!=', '~=', a comma or the end")),
            },
        };
        Ok(Selector { path, test })
    }

    /// A name of a path: a word, or anything in quotes.
    fn name(&mut self) -> Result<String> {
        self.skip_space();
        if self.rest().starts_with('"') {
            return self.quoted('"');
        }
        let is_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '/');
        self.take(is_word)
            .ok_or_else(|| self.error("expected the name of a field"))
    }

    /// A value: anything in quotes, or all up to a comma or white space.
    fn value(&mut self) -> Result<String> {
        self.skip_space();
        if self.rest().starts_with('"') {
            return self.quoted('"');
        }
        let is_plain = |c: char| c != ',' && c != '"' && !c.is_whitespace();
        self.take(is_plain)
            .ok_or_else(|| self.error("expected a value; an empty one is written \"\""))
    }

    fn pattern(&mut self) -> Result<Test> {
        self.skip_space();
        let at = self.at;
        let pattern = match self.rest().chars().next() {
            // Between slashes a pattern ends at the next slash, unless that makes no sense: `~=/tasks` is a plain value.
            Some(quote @ ('/' | '|')) if self.closes(quote) => self.quoted(quote)?,
            _ => self.value()?,
        };
        let compiled = RegexBuilder::new(&pattern).size_limit(MAX_PATTERN).build();
        compiled
            .map(Test::Matches)
            .map_err(|error| Error::new(self.text, at, format!("not a regular expression: {error}")))
    }

    /// Whether a pattern that begins here ends with the same quote, before a comma or the end.
    fn closes(&self, quote: char) -> bool {
        let mut escaped = false;
        let mut chars = self.rest().char_indices().skip(1);
        let end = chars.find(|(_, c)| {
            let ends = *c == quote && !escaped;
            escaped = *c == '\\' && !escaped;
            ends
        });
        end.is_some_and(|(at, _)| matches!(self.rest()[at + 1..].trim_start().chars().next(), None | Some(',')))
    }

    fn take(&mut self, wanted: impl Fn(char) -> bool) -> Option<String> {
        let rest = self.rest();
        let length = rest.find(|c| !wanted(c)).unwrap_or(rest.len());
        self.at += length;
        (length > 0).then(|| rest[..length].to_owned())
    }

    /// Text between two quotes. In a string a backslash escapes as in Go; in a pattern it does so for the quote alone, for it is the pattern's own.
    fn quoted(&mut self, quote: char) -> Result<String> {
        let start = self.at;
        self.at += quote.len_utf8();
        let mut text = String::new();
        loop {
            let Some(c) = self.rest().chars().next() else {
                return Err(Error::new(self.text, start, format!("the {quote} is never closed")));
            };
            self.at += c.len_utf8();
            match c {
                c if c == quote => return Ok(text),
                '\\' if quote == '"' => text.push(self.escape()?),
                '\\' => match self.rest().chars().next() {
                    Some(next) if next == quote => {
                        self.at += next.len_utf8();
                        text.push(next);
                    }
                    Some(next) => {
                        self.at += next.len_utf8();
                        text.extend(['\\', next]);
                    }
                    None => {}
                },
                c => text.push(c),
            }
        }
    }

    fn escape(&mut self) -> Result<char> {
        let Some(c) = self.rest().chars().next() else {
            return Err(self.error("a backslash with nothing after it"));
        };
        self.at += c.len_utf8();
        match c {
            '"' | '\\' | '\'' => Ok(c),
            'n' => Ok('\n'),
            't' => Ok('\t'),
            'r' => Ok('\r'),
            'x' => self.code(2),
            'u' => self.code(4),
            'U' => self.code(8),
            other => Err(self.error(format!("'\\{other}' means nothing"))),
        }
    }

    fn code(&mut self, digits: usize) -> Result<char> {
        let digits = self.rest().get(..digits).unwrap_or_default().to_owned();
        let code = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
        let code = code.ok_or_else(|| self.error("expected the hexadecimal number of a character"))?;
        self.at += digits.len();
        Ok(code)
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use crate::{Fields, Filter, Filters, joined};

    struct Thing;

    impl Fields for Thing {
        fn field(&self, path: &[&str]) -> Option<Cow<'_, str>> {
            match path {
                ["name"] => Some("docker.io/library/alpine:3.20".into()),
                ["topic"] => Some("/tasks/start".into()),
                ["empty"] => Some("".into()),
                ["labels", rest @ ..] => match joined(rest).as_str() {
                    "foo" => Some("bar".into()),
                    "a.b/c" => Some("x, \"y\"\n".into()),
                    _ => None,
                },
                _ => None,
            }
        }
    }

    fn matches(text: &str) -> bool {
        text.parse::<Filter>()
            .unwrap_or_else(|error| panic!("{error}"))
            .matches(&Thing)
    }

    #[test]
    fn what_matches() {
        for text in [
            "",
            "name",
            "empty",
            "name==docker.io/library/alpine:3.20",
            "name!=other",
            "missing!=other",
            "empty==\"\"",
            "labels.foo==bar",
            "labels.foo == bar , name",
            "labels.\"foo\"==\"bar\"",
            "labels.\"a.b/c\"==\"x, \\\"y\\\"\\n\"",
            "labels.a.b/c",
            "labels.foo==\"\\x62\\u0061r\"",
            "name~=alpine:[0-9.]+$",
            "name~=/library\\/al/",
            "name~=|io/lib|",
            "topic~=/tasks/.*",
            "topic~=/tasks",
            "topic==/tasks/start,labels.foo~=\"b.r\"",
            "missing~=^$",
        ] {
            assert!(matches(text), "{text}");
        }
    }

    #[test]
    fn what_does_not() {
        for text in [
            "missing",
            "missing==\"\"",
            "name==other",
            "name,missing",
            "labels.foo!=bar",
            "labels.fo==bar",
            "name~=^alpine",
            "labels",
        ] {
            assert!(!matches(text), "{text}");
        }
    }

    #[test]
    fn what_is_no_filter() {
        let long = "x".repeat(100_000);
        for (text, at) in [
            ("==x", 0),
            ("name=x", 4),
            ("name==", 6),
            ("name==x y", 8),
            ("name==\"x", 6),
            ("name==\"\\q\"", 9),
            ("name==\"\\uD800\"", 9),
            ("name,", 5),
            ("name~=(", 6),
            ("name~=x{1000}{1000}{1000}", 6),
            (".name", 0),
            ("na\u{0}me", 2),
            ("ä==\"ü", 4),
            (long.as_str(), 0),
        ] {
            let error = text.parse::<Filter>().expect_err(&text[..text.len().min(40)]);
            assert_eq!(error.at, at, "{error}");
            assert!(error.to_string().len() < 2_000);
        }
    }

    #[test]
    fn one_of_several_is_enough() {
        let filters = Filters::parse(["missing", "name~=alpine"]).expect("filters");
        assert!(filters.matches(&Thing));
        assert!(!Filters::parse(["missing", "name==x"]).expect("filters").matches(&Thing));
        assert!(Filters::default().matches(&Thing));
        assert!(Filters::parse(["name", "=="]).is_err());
    }
}
