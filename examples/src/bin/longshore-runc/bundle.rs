//! `spec`, `plan` and `features`: nothing runs.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use longshore_bundle::{CgroupVersion, runc_rootless_spec, runc_spec};
use longshore_runtime::{HostFacts, Lifetime, PlanOptions};
use serde::Serialize;

use crate::args::Arguments;
use crate::failure::{Failure, Outcome, path_error};
use crate::global::{Global, container_id};
use crate::lifecycle::load_bundle;

/// `longshore-runc spec`
pub(crate) fn spec(_: &Global, arguments: &Arguments) -> Outcome {
    let cgroups = cgroup_version();
    let spec = if arguments.is_on("rootless") {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        runc_rootless_spec(cgroups, uid, gid)?
    } else {
        runc_spec(cgroups)
    };
    let mut json = Vec::new();
    let tabs = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    spec.serialize(&mut serde_json::Serializer::with_formatter(&mut json, tabs))?;
    let json = in_runcs_order(&with_sorted_capabilities(&String::from_utf8(json)?));

    let path = Path::new(arguments.filled("bundle").unwrap_or("")).join("config.json");
    let opened = File::options().write(true).create_new(true).mode(0o666).open(&path);
    let mut file = opened.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => Failure::new("File config.json exists. Remove it first"),
        _ => path_error("open", &path, &error).into(),
    })?;
    file.write_all(json.as_bytes())
        .map_err(|error| path_error("write", &path, &error))?;
    Ok(0)
}

/// The capabilities come out of a hash set, in any order; a person and a diff want one.
fn with_sorted_capabilities(json: &str) -> String {
    let is_capability = |line: &&str| line.trim_start().starts_with("\"CAP_");
    let bare = |line: &str| line.trim_end_matches(',').to_owned();
    let mut lines: Vec<String> = Vec::new();
    let mut rest = json.lines().peekable();
    while let Some(line) = rest.next() {
        if !is_capability(&line) {
            lines.push(line.to_owned());
            continue;
        }
        let mut set = vec![bare(line)];
        while let Some(line) = rest.next_if(is_capability) {
            set.push(bare(line));
        }
        set.sort();
        lines.push(set.join(",\n"));
    }
    lines.join("\n")
}

/// The members of a spec in the order in which runc writes them.
const ORDER: [&str; 6] = ["ociVersion", "process", "root", "hostname", "mounts", "linux"];

/// The same JSON, its outermost members in runc's order; those that runc does not write come last.
fn in_runcs_order(json: &str) -> String {
    let inner = json.trim_start_matches("{\n").trim_end_matches("\n}");
    let mut members: Vec<Vec<&str>> = Vec::new();
    for line in inner.lines() {
        // A mapping begins inside.
        if line.trim_start().starts_with("\"containerID\"")
            && let Some(member) = members.last_mut()
            && let Some(before) = member.pop_if(|before| before.trim_start().starts_with("\"hostID\""))
        {
            member.extend([line, before]);
            continue;
        }
        let begins = line.strip_prefix('\t').is_some_and(|rest| rest.starts_with('"'));
        match members.last_mut() {
            Some(member) if !begins => member.push(line),
            _ => members.push(vec![line]),
        }
    }
    let place = |member: &[&str]| {
        let name = member[0].split('"').nth(1).unwrap_or_default();
        ORDER.iter().position(|known| *known == name).unwrap_or(ORDER.len())
    };
    members.sort_by_key(|member| place(member));
    let texts: Vec<_> = members
        .iter()
        .map(|member| member.join("\n").trim_end_matches(',').to_owned())
        .collect();
    format!("{{\n{}\n}}", texts.join(",\n"))
}

/// v2 has this file at its root.
fn cgroup_version() -> CgroupVersion {
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        CgroupVersion::V2
    } else {
        CgroupVersion::V1
    }
}

/// `longshore-runc plan`
pub(crate) fn plan(global: &Global, arguments: &Arguments) -> Outcome {
    let (directory, spec) = load_bundle(global, arguments.filled("bundle"))?;
    let id = match arguments.id() {
        "" => directory.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        id => container_id(id)?.to_string(),
    };
    let mut options = PlanOptions::new(directory);
    options.lifetime = Lifetime::Detached;
    // As `create` has it.
    options.keyring = Some(format!("_ses.{id}"));
    let program = longshore_runtime::plan(&spec, &HostFacts::gather()?, &options)?;
    write!(std::io::stdout(), "{program}")?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_come_in_runcs_order_with_what_is_in_them() {
        let json = "{\n\t\"ociVersion\": \"1\",\n\t\"other\": 1,\n\t\"root\": {\n\t\t\"path\": \"r\"\n\t},\n\t\"process\": {\n\t\t\"a\": [\n\t\t]\n\t}\n}";
        assert_eq!(
            in_runcs_order(json),
            "{\n\t\"ociVersion\": \"1\",\n\t\"process\": {\n\t\t\"a\": [\n\t\t]\n\t},\n\t\"root\": {\n\t\t\"path\": \"r\"\n\t},\n\t\"other\": 1\n}"
        );
    }
}
