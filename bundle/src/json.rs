//! JSON of others, with errors that name the field.

use serde::de::DeserializeOwned;

/// What is wrong with a JSON document, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[error("{field}: {reason}")]
pub struct InvalidJson {
    /// The way to the value that is wrong, such as `linux.namespaces[1].type`.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
    /// The line where it was seen, from 1.
    pub line: usize,
    /// The byte of that line, from 1; 0 is the line's start.
    pub column: usize,
}

/// Reads a whole document, as [`serde_json::from_slice`] does.
///
/// The way to a wrong value is sought in the text, after reading has failed: types that keep it while they read
/// (as those of `serde_path_to_error`) exist twice in a program, which cost `longshore-runc` a sixth of its size.
///
/// # Errors
/// [`InvalidJson`] names the field; for what a type itself finds wrong in the last element of a list or object
/// (an unknown capability, say), the list or object.
pub fn from_json<T: DeserializeOwned>(json: &[u8]) -> Result<T, InvalidJson> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let value = T::deserialize(&mut deserializer).map_err(|error| invalid(field_of(json, &error), &error))?;
    deserializer
        .end()
        .map_err(|error| invalid("end of the file".to_owned(), &error))?;
    Ok(value)
}

fn invalid(field: String, error: &serde_json::Error) -> InvalidJson {
    InvalidJson {
        field,
        reason: without_position(error),
        line: error.line(),
        column: error.column(),
    }
}

/// The message without the position at its end, which is told apart.
fn without_position(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let position = format!(" at line {} column {}", error.line(), error.column());
    message.strip_suffix(&position).unwrap_or(&message).to_owned()
}

fn field_of(json: &[u8], error: &serde_json::Error) -> String {
    let end = offset_of(json, error.line(), error.column());
    // The position of what is no JSON is behind the byte that does not belong there.
    let end = end - usize::from(error.is_syntax() && end > 0);
    let read = json.get(..end).unwrap_or(json);
    let mut way = Way::default();
    way.follow(before_its_comma(read, error).unwrap_or(read));
    if error.is_eof() {
        way.leave_empty_lists();
    }
    way.to_string()
}

/// What was read up to the comma at its end, if the value before that comma is the wrong one.
///
/// Reading stops in front of a list or object that should be something else. Of what a type itself finds wrong in a
/// value that could be read, serde_json learns after the comma.
fn before_its_comma<'a>(read: &'a [u8], error: &serde_json::Error) -> Option<&'a [u8]> {
    let before = read.trim_ascii_end().strip_suffix(b",")?;
    let message = error.to_string();
    let in_front = ["map", "sequence"]
        .iter()
        .any(|kind| message.starts_with(&format!("invalid type: {kind}")));
    (error.is_data() && !in_front).then_some(before)
}

/// How many bytes of `json` lie before a position of serde_json.
fn offset_of(json: &[u8], line: usize, column: usize) -> usize {
    let lines = json.split_inclusive(|byte| *byte == b'\n');
    let before: usize = lines.take(line.saturating_sub(1)).map(<[u8]>::len).sum();
    (before + column).min(json.len())
}

/// The lists and objects that a reader is inside of, from the outermost.
#[derive(Default)]
struct Way(Vec<Inside>);

enum Inside {
    /// Of an object, at the field of this name if it has been read.
    Object(Option<String>),
    /// Of a list, at this element.
    List(usize),
}

impl Way {
    /// Reads on, up to the end of `json`; what ended last is where the reader is.
    fn follow(&mut self, json: &[u8]) {
        let mut rest = json;
        while let [byte, after @ ..] = rest {
            rest = after;
            match byte {
                b'"' => {
                    let length = string_length(after);
                    let (text, after) = after.split_at(length);
                    rest = after;
                    // One that ends the text is still a key, not the way to a value.
                    let named = after.trim_ascii_start().starts_with(b":");
                    if let (true, Some(Inside::Object(name @ None))) = (named, self.0.last_mut()) {
                        *name = Some(name_of(text));
                    }
                }
                b'{' => self.0.push(Inside::Object(None)),
                b'[' => self.0.push(Inside::List(0)),
                b'}' | b']' => {
                    self.0.pop();
                }
                b',' => match self.0.last_mut() {
                    Some(Inside::Object(name)) => *name = None,
                    Some(Inside::List(index)) => *index += 1,
                    None => {}
                },
                _ => {}
            }
        }
    }

    fn leave_empty_lists(&mut self) {
        while let Some(Inside::List(0)) = self.0.last() {
            self.0.pop();
        }
    }
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut separator = "";
        for inside in &self.0 {
            match inside {
                Inside::Object(Some(name)) => write!(f, "{separator}{name}")?,
                Inside::List(index) => write!(f, "[{index}]")?,
                Inside::Object(None) => break,
            }
            separator = ".";
        }
        match separator {
            "" => f.write_str("the whole document"),
            _ => Ok(()),
        }
    }
}

/// How long a string is with the quote at its end, from behind the one in front.
fn string_length(text: &[u8]) -> usize {
    let mut escaped = false;
    let end = text.iter().position(|byte| match byte {
        _ if escaped => {
            escaped = false;
            false
        }
        b'\\' => {
            escaped = true;
            false
        }
        byte => *byte == b'"',
    });
    end.map_or(text.len(), |end| end + 1)
}

/// A name as it was meant, from its text with the quote at the end.
fn name_of(text: &[u8]) -> String {
    let quoted = [b"\"", text].concat();
    serde_json::from_slice(&quoted)
        .unwrap_or_else(|_| String::from_utf8_lossy(text.strip_suffix(b"\"").unwrap_or(text)).into_owned())
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
