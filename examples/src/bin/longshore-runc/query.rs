//! `state`, `list`, `ps`: what is there.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};
use longshore_runtime::{Executor, State, Status};
use oci_spec::runtime::Spec;
use serde::Serialize;

use crate::args::Arguments;
use crate::block_on;
use crate::failure::{Failure, Outcome, path_error};
use crate::global::Global;
use crate::log::rfc3339_nanos;

/// A container, as runc prints it.
#[derive(Debug, Serialize)]
struct Row {
    #[serde(rename = "ociVersion")]
    /// Of this program, as runc has it.
    oci_version: &'static str,
    id: String,
    pid: u32,
    status: String,
    bundle: String,
    rootfs: String,
    created: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
    owner: String,
}

impl Row {
    fn new(state: State, spec: &Spec, owner: String) -> Self {
        let root = spec
            .root()
            .as_ref()
            .map(|root| state.bundle.join(root.path()))
            .unwrap_or_default();
        let pid = if state.status == Status::Stopped {
            None
        } else {
            state.pid
        };
        Self {
            oci_version: longshore_bundle::SPEC_VERSION,
            id: state.id.to_string(),
            pid: pid.unwrap_or(0),
            status: state.status.to_string(),
            bundle: state.bundle.to_string_lossy().into_owned(),
            rootfs: root.to_string_lossy().into_owned(),
            created: rfc3339_nanos(state.created),
            annotations: state.annotations,
            owner,
        }
    }
}

/// `longshore-runc state`
pub(crate) fn state(global: &Global, arguments: &Arguments) -> Outcome {
    // runc leaves the owner empty here.
    let row = block_on(async {
        let (executor, id) = global.executor_of(arguments.id())?;
        Ok::<_, Failure>(Row::new(
            executor.state(&id).await?,
            &executor.spec(&id)?,
            String::new(),
        ))
    })?;
    let json = serde_json::to_string_pretty(&row)?;
    std::io::stdout().write_all(json.as_bytes())?;
    Ok(0)
}

/// `longshore-runc list`
pub(crate) fn list(global: &Global, arguments: &Arguments) -> Outcome {
    let rows = rows(global)?;
    let mut out = std::io::stdout().lock();
    if arguments.is_on("quiet") {
        for row in &rows {
            writeln!(out, "{}", row.id)?;
        }
        return Ok(0);
    }
    match arguments.value("format").unwrap_or("table") {
        "table" => out.write_all(table(&rows).as_bytes())?,
        // Go prints no list as null.
        "json" if rows.is_empty() => writeln!(out, "null")?,
        "json" => writeln!(out, "{}", serde_json::to_string(&rows)?)?,
        _ => return Err(Failure::new("invalid format option")),
    }
    Ok(0)
}

fn rows(global: &Global) -> Result<Vec<Row>, Failure> {
    if let Err(error) = std::fs::metadata(global.root()) {
        let no_container_yet = error.kind() == std::io::ErrorKind::NotFound && !global.root_was_given;
        return if no_container_yet {
            Ok(Vec::new())
        } else {
            Err(path_error("open", global.root(), &error).into())
        };
    }
    block_on(async {
        let executor = global.executor()?;
        let mut rows = Vec::new();
        for state in executor.list().await? {
            // It may be deleted in this moment.
            let Ok(spec) = executor.spec(&state.id) else { continue };
            let owner = owner(&global.root().join(state.id.as_str()));
            rows.push(Row::new(state, &spec, owner));
        }
        Ok(rows)
    })
}

/// The user who owns a container's state directory, by name if the machine has one.
fn owner(directory: &Path) -> String {
    let Ok(uid) = std::fs::metadata(directory).map(|metadata| metadata.uid()) else {
        return String::new();
    };
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| format!("#{uid}"))
}

/// Columns that are at least 12 wide and 3 apart, as runc's.
fn table(rows: &[Row]) -> String {
    let head = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned);
    let cells: Vec<[String; 6]> = std::iter::once(head)
        .chain(rows.iter().map(|row| {
            [
                &row.id,
                &row.pid.to_string(),
                &row.status,
                &row.bundle,
                &row.created,
                &row.owner,
            ]
            .map(Clone::clone)
        }))
        .collect();
    let width = |column: usize| {
        cells
            .iter()
            .map(|line| line[column].chars().count() + 3)
            .max()
            .unwrap_or(0)
            .max(12)
    };
    let widths: [usize; 6] = std::array::from_fn(width);
    let mut text = String::new();
    for line in &cells {
        for (cell, width) in line.iter().zip(widths).take(5) {
            text.push_str(cell);
            text.extend(std::iter::repeat_n(' ', width - cell.chars().count()));
        }
        text.push_str(&line[5]);
        text.push('\n');
    }
    text
}

/// `longshore-runc ps`
pub(crate) fn ps(global: &Global, arguments: &Arguments) -> Outcome {
    let pids = block_on(async {
        let (executor, id) = global.executor_of(arguments.id())?;
        Ok::<_, Failure>(executor.processes(&id).await?)
    })?;
    match arguments.value("format").unwrap_or("table") {
        "json" => println!("{}", serde_json::to_string(&pids)?),
        "table" => print!("{}", process_table(&pids, &arguments.rest()[1..])?),
        _ => return Err(Failure::new("invalid format option")),
    }
    Ok(0)
}

/// What ps(1) says of these processes.
fn process_table(pids: &[u32], options: &[String]) -> anyhow::Result<String> {
    let default = ["-ef".to_owned()];
    let options = if options.is_empty() { &default[..] } else { options };
    let output = Command::new("ps").args(options).output().context("run ps")?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        bail!("{}: {}", output.status, String::from_utf8_lossy(&said));
    }
    let output = String::from_utf8_lossy(&output.stdout);
    let mut lines = output.lines();
    let head = lines.next().unwrap_or_default();
    let column = head
        .split_whitespace()
        .position(|word| word == "PID")
        .context("couldn't find PID field in ps output")?;
    let mut text = format!("{head}\n");
    for line in lines.filter(|line| !line.is_empty()) {
        let pid = line.split_whitespace().nth(column).unwrap_or_default();
        let pid: u32 = pid.parse().with_context(|| format!("unable to parse pid \"{pid}\""))?;
        if pids.contains(&pid) {
            text.push_str(line);
            text.push('\n');
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_grow_with_what_is_in_them() {
        let row = Row {
            oci_version: "1.0.2",
            id: "a-rather-long-id".into(),
            pid: 7,
            status: "running".into(),
            bundle: "/b".into(),
            rootfs: "/b/rootfs".into(),
            created: "2026-01-02T03:04:05Z".into(),
            annotations: BTreeMap::new(),
            owner: "root".into(),
        };
        assert_eq!(
            table(&[row]),
            "ID                 PID         STATUS      BUNDLE      CREATED                OWNER\n\
             a-rather-long-id   7           running     /b          2026-01-02T03:04:05Z   root\n"
        );
        assert_eq!(
            table(&[]),
            "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n"
        );
    }
}
