//! A server that answers what it was told to, and remembers what it was asked: for answers that no registry should give.

#![allow(dead_code, reason = "each test binary uses its share")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// One request, as it came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// Method, path and query.
    pub(crate) line: String,
    pub(crate) authorization: Option<String>,
    /// All headers, the names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

/// Answers each request by what its first line matches; ends with the process.
#[derive(Clone, Debug)]
pub(crate) struct Scripted {
    pub(crate) host: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Scripted {
    /// `answer` gets the request and how many came before it, and gives the status, headers and body.
    pub(crate) fn serve(
        answer: impl Fn(&Asked, usize) -> (u16, Vec<(&'static str, String)>, String) + Send + 'static,
    ) -> Self {
        Self::serve_bytes(move |request, before| {
            let (status, headers, body) = answer(request, before);
            (status, headers, body.into_bytes())
        })
    }

    /// The same, with a body that need not be text.
    pub(crate) fn serve_bytes(
        answer: impl Fn(&Asked, usize) -> (u16, Vec<(&'static str, String)>, Vec<u8>) + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let host = listener.local_addr().expect("an address").to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let Some(request) = read(&stream) else { continue };
                let before = {
                    let mut log = log.lock().expect("not poisoned");
                    log.push(request.clone());
                    log.len() - 1
                };
                let (status, headers, body) = answer(&request, before);
                let mut text = format!("HTTP/1.1 {status} X\r\nConnection: close\r\n");
                if !headers.iter().any(|(name, _)| *name == "Content-Length") {
                    text += &format!("Content-Length: {}\r\n", body.len());
                }
                for (name, value) in headers {
                    text += &format!("{name}: {value}\r\n");
                }
                // Who asked may have gone; the test sees that by its own means.
                let _ = (&stream).write_all(&[format!("{text}\r\n").as_bytes(), &body].concat());
            }
        });
        Self { host, asked }
    }

    /// The value of a header of the first request.
    pub(crate) fn first_header(&self, name: &str) -> Option<String> {
        let asked = self.asked();
        let headers = &asked.first()?.headers;
        headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.clone())
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("not poisoned").clone()
    }
}

fn read(stream: &TcpStream) -> Option<Asked> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
    let (mut authorization, mut length) = (None, 0);
    let mut headers = Vec::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim_end().split_once(": ") else {
            break;
        };
        headers.push((name.to_ascii_lowercase(), value.to_owned()));
        match name.to_ascii_lowercase().as_str() {
            "authorization" => authorization = Some(value.to_owned()),
            "content-length" => length = value.parse().ok()?,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Asked {
        line: line.trim_end().trim_end_matches(" HTTP/1.1").to_owned(),
        authorization,
        headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    })
}
