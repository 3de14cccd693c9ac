use std::str::FromStr;

use serde_json::{Map, Value, json};

use crate::Error;

/// A change to an image's config, written as an instruction of a Dockerfile: `CMD`, `ENTRYPOINT`, `ENV`, `EXPOSE`, `LABEL`, `ONBUILD`, `STOPSIGNAL`, `USER`, `VOLUME`
/// or `WORKDIR`.
///
/// ```
/// use longshore::Instruction;
///
/// for text in ["CMD [\"/bin/app\", \"-v\"]", "CMD app -v", "ENV A=1 B=two", "LABEL team=infra", "USER web:web", "EXPOSE 80 53/udp"] {
///     text.parse::<Instruction>()?;
/// }
/// assert!("RUN make".parse::<Instruction>().is_err());
/// # Ok::<(), longshore::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction(Change);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    /// A key with one value.
    Set(&'static str, String),
    /// `CMD` or `ENTRYPOINT`.
    Command(&'static str, Command),
    /// Variables: each replaces one of its name.
    Env(Vec<(String, String)>),
    Labels(Vec<(String, String)>),
    /// Keys of an object of empty objects.
    Keys(&'static str, Vec<String>),
    OnBuild(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Command {
    Words(Vec<String>),
    /// A line for the image's shell.
    Line(String),
}

impl FromStr for Instruction {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = |reason: String| Error::Invalid {
            what: format!("'{text}'"),
            reason,
        };
        let (word, rest) = text.trim().split_once(char::is_whitespace).unwrap_or((text.trim(), ""));
        let rest = rest.trim();
        if rest.is_empty() {
            return Err(invalid(
                "an instruction and what it is about, such as CMD [\"/bin/sh\"], is needed".to_owned(),
            ));
        }
        let change = match word.to_ascii_uppercase().as_str() {
            "CMD" => Change::Command("Cmd", command(rest)),
            "ENTRYPOINT" => Change::Command("Entrypoint", command(rest)),
            "ENV" => Change::Env(pairs(rest).map_err(invalid)?),
            "LABEL" => Change::Labels(pairs(rest).map_err(invalid)?),
            "EXPOSE" => Change::Keys("ExposedPorts", ports(rest).map_err(invalid)?),
            "VOLUME" => Change::Keys(
                "Volumes",
                match command(rest) {
                    Command::Words(words) => words,
                    Command::Line(line) => words(&line).map_err(invalid)?,
                },
            ),
            "STOPSIGNAL" => Change::Set("StopSignal", rest.to_owned()),
            "USER" => Change::Set("User", rest.to_owned()),
            "WORKDIR" => Change::Set("WorkingDir", rest.to_owned()),
            "ONBUILD" => Change::OnBuild(rest.to_owned()),
            other => {
                return Err(invalid(format!(
                    "{other} is not one of CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME and WORKDIR"
                )));
            }
        };
        Ok(Self(change))
    }
}

impl Instruction {
    /// Makes the change to the `config` of an image's config.
    pub(super) fn apply(&self, config: &mut Map<String, Value>) -> Result<(), String> {
        match &self.0 {
            Change::Set("WorkingDir", directory) => {
                let before = config.get("WorkingDir").and_then(Value::as_str).unwrap_or("/");
                let after = std::path::Path::new("/").join(before).join(directory);
                config.insert("WorkingDir".to_owned(), after.to_string_lossy().into());
            }
            Change::Set(key, value) => drop(config.insert((*key).to_owned(), value.as_str().into())),
            Change::Command(key, command) => {
                let words = match command {
                    Command::Words(words) => json!(words),
                    Command::Line(line) => in_shell(config, line),
                };
                config.insert((*key).to_owned(), words);
                // Arguments for another entrypoint make no sense to this one.
                if *key == "Entrypoint" {
                    config.remove("Cmd");
                }
            }
            Change::Env(pairs) => {
                let list = entry(config, "Env", json!([]));
                let list = list.as_array_mut().ok_or("its environment is no list")?;
                for (name, value) in pairs {
                    let begin = format!("{name}=");
                    list.retain(|variable| !variable.as_str().is_some_and(|text| text.starts_with(&begin)));
                    list.push(format!("{begin}{value}").into());
                }
            }
            Change::Labels(pairs) => {
                let labels = entry(config, "Labels", json!({}));
                let labels = labels.as_object_mut().ok_or("its labels are no object")?;
                labels.extend(pairs.iter().map(|(key, value)| (key.clone(), value.as_str().into())));
            }
            Change::Keys(key, keys) => {
                let object = entry(config, key, json!({}));
                let object = object
                    .as_object_mut()
                    .ok_or_else(|| format!("its {key} is no object"))?;
                object.extend(keys.iter().map(|key| (key.clone(), json!({}))));
            }
            Change::OnBuild(instruction) => {
                let list = entry(config, "OnBuild", json!([]));
                let list = list.as_array_mut().ok_or("its OnBuild is no list")?;
                list.push(instruction.as_str().into());
            }
        }
        Ok(())
    }
}

/// What is under a key; `empty` when nothing is, or null.
fn entry<'a>(config: &'a mut Map<String, Value>, key: &str, empty: Value) -> &'a mut Value {
    let value = config.entry(key).or_insert(Value::Null);
    if value.is_null() {
        *value = empty;
    }
    value
}

/// A line as Docker runs it: in the image's `Shell`, or in `/bin/sh -c`.
fn in_shell(config: &Map<String, Value>, line: &str) -> Value {
    let mut words = match config.get("Shell").and_then(Value::as_array) {
        Some(shell) if !shell.is_empty() => shell.clone(),
        _ => vec!["/bin/sh".into(), "-c".into()],
    };
    words.push(line.into());
    words.into()
}

fn command(text: &str) -> Command {
    match serde_json::from_str(text) {
        Ok(words) => Command::Words(words),
        Err(_) => Command::Line(text.to_owned()),
    }
}

/// `NAME=VALUE` several times, or the old `NAME VALUE`.
fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let words = words(text)?;
    if let (Some(first), Some((_, rest))) = (words.first(), text.split_once(char::is_whitespace))
        && !first.contains('=')
    {
        return Ok(vec![(first.clone(), rest.trim().to_owned())]);
    }
    let pair = |word: &String| match word.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("'{word}' is not NAME=VALUE")),
    };
    words.iter().map(pair).collect()
}

/// Ports as the config has them, with a protocol.
fn ports(text: &str) -> Result<Vec<String>, String> {
    let port = |word: String| {
        let (number, protocol) = word.split_once('/').unwrap_or((&word, "tcp"));
        match number.parse::<u16>() {
            Ok(number) => Ok(format!("{number}/{protocol}")),
            Err(_) => Err(format!("'{word}' is not a port")),
        }
    };
    words(text)?.into_iter().map(port).collect()
}

/// Words between spaces; quotes keep them together, a backslash takes the next character as it is.
fn words(text: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            ('\\', None | Some('"')) => word.get_or_insert_default().extend(chars.next()),
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err("a quote is not closed".to_owned());
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(instructions: &[&str]) -> Value {
        let config = json!({"Cmd": ["old"], "Env": ["PATH=/bin", "A=0"], "Volumes": null, "WorkingDir": "/srv"});
        let mut config = config.as_object().expect("an object").clone();
        for text in instructions {
            let instruction: Instruction = text.parse().expect(text);
            instruction.apply(&mut config).expect(text);
        }
        config.into()
    }

    #[test]
    fn as_docker_understands_them() {
        for (instruction, key, expected) in [
            (r#"CMD ["a", "b c"]"#, "Cmd", json!(["a", "b c"])),
            ("cmd a b", "Cmd", json!(["/bin/sh", "-c", "a b"])),
            (r#"ENTRYPOINT ["/x"]"#, "Cmd", Value::Null),
            (
                "ENV A=1 B='two words'",
                "Env",
                json!(["PATH=/bin", "A=1", "B=two words"]),
            ),
            (
                "ENV C three  words",
                "Env",
                json!(["PATH=/bin", "A=0", "C=three  words"]),
            ),
            (r#"LABEL "a b"="c" d=e"#, "Labels", json!({"a b": "c", "d": "e"})),
            ("EXPOSE 80 53/udp", "ExposedPorts", json!({"80/tcp": {}, "53/udp": {}})),
            (
                r#"VOLUME ["/data", "/x y"]"#,
                "Volumes",
                json!({"/data": {}, "/x y": {}}),
            ),
            ("VOLUME /data /logs", "Volumes", json!({"/data": {}, "/logs": {}})),
            ("USER web:web", "User", json!("web:web")),
            ("WORKDIR app", "WorkingDir", json!("/srv/app")),
            ("WORKDIR /app", "WorkingDir", json!("/app")),
            ("STOPSIGNAL SIGQUIT", "StopSignal", json!("SIGQUIT")),
            ("ONBUILD RUN make", "OnBuild", json!(["RUN make"])),
        ] {
            assert_eq!(after(&[instruction])[key], expected, "{instruction}");
        }
    }

    #[test]
    fn what_is_not_one_is_told() {
        for text in [
            "",
            "CMD",
            "RUN make",
            "FROM x",
            "ENV =x",
            "EXPOSE http",
            "LABEL a='b",
            "ENV A=1 B",
        ] {
            let error = text.parse::<Instruction>().expect_err(text);
            assert_eq!(error.kind(), crate::ErrorKind::Invalid, "{error}");
        }
    }
}
