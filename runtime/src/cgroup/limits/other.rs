use oci_spec::runtime::LinuxResources;

use super::super::host::Home;
use super::{Builder, invalid, unsupported, v1_only};
use crate::Result;

pub(super) fn other(b: &mut Builder<'_>, resources: &LinuxResources) -> Result<()> {
    pids(b, resources)?;
    huge_pages(b, resources)?;
    network(b, resources)?;
    rdma(b, resources)?;
    unified(b, resources)
}

fn pids(b: &mut Builder<'_>, resources: &LinuxResources) -> Result<()> {
    let field = "linux.resources.pids.limit";
    let Some(limit) = resources.pids().map(|p| p.limit()) else {
        return Ok(());
    };
    let home = b.home("pids", field)?;
    let value = match limit {
        ..0 => "max".to_owned(),
        // What runc makes of it, because systemd has no TasksMax=0.
        limit => limit.max(1).to_string(),
    };
    b.set(home, "pids", field, &["pids.max"], value);
    Ok(())
}

fn huge_pages(b: &mut Builder<'_>, resources: &LinuxResources) -> Result<()> {
    for (n, limit) in resources.hugepage_limits().iter().flatten().enumerate() {
        let field = format!("linux.resources.hugepageLimits[{n}].pageSize");
        let size = limit.page_size();
        let digits = ["KB", "MB", "GB"]
            .iter()
            .find_map(|unit| size.strip_suffix(unit))
            .unwrap_or_default();
        if digits.is_empty() || !digits.bytes().all(|c| c.is_ascii_digit()) {
            return Err(invalid(
                &field,
                format!("'{size}' is not a page size such as 2MB or 1GB"),
            ));
        }
        let field = format!("linux.resources.hugepageLimits[{n}].limit");
        let home = b.home("hugetlb", &field)?;
        let file = if home == Home::V1 { "limit_in_bytes" } else { "max" };
        let value = match limit.limit() {
            ..0 if home == Home::V2 => "max".to_owned(),
            limit => limit.to_string(),
        };
        b.set(
            home,
            "hugetlb",
            &field,
            &[&format!("hugetlb.{size}.{file}")],
            value.clone(),
        );
        // What is reserved and not yet used counts as well, where the kernel can tell.
        b.set(
            home,
            "hugetlb",
            &field,
            &[&format!("hugetlb.{size}.rsvd.{file}")],
            value,
        )
        .missing = super::Missing::Fine;
    }
    Ok(())
}

fn network(b: &mut Builder<'_>, resources: &LinuxResources) -> Result<()> {
    let Some(network) = resources.network() else {
        return Ok(());
    };
    let field = "linux.resources.network.classID";
    if let Some(class) = network.class_id().filter(|c| *c != 0) {
        if b.host.mode() == super::super::Mode::Unified {
            return Err(v1_only(field));
        }
        let home = b.home("net_cls", field)?;
        b.set(home, "net_cls", field, &["net_cls.classid"], class.to_string());
    }
    let field = "linux.resources.network.priorities";
    for priority in network.priorities().iter().flatten() {
        if b.host.mode() == super::super::Mode::Unified {
            return Err(v1_only(field));
        }
        let name = priority.name();
        if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c == '/') {
            return Err(invalid(field, format!("'{name}' is not the name of an interface")));
        }
        let home = b.home("net_prio", field)?;
        b.set(
            home,
            "net_prio",
            field,
            &["net_prio.ifpriomap"],
            format!("{name} {}", priority.priority()),
        );
    }
    Ok(())
}

fn rdma(b: &mut Builder<'_>, resources: &LinuxResources) -> Result<()> {
    let mut devices: Vec<_> = resources.rdma().iter().flatten().collect();
    devices.sort_by_key(|(name, _)| *name);
    for (name, limit) in devices {
        let field = format!("linux.resources.rdma.{name}");
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(invalid(&field, "is not the name of a device"));
        }
        let mut value = name.clone();
        for (key, limit) in [("hca_handle", limit.hca_handles()), ("hca_object", limit.hca_objects())] {
            if let Some(limit) = limit {
                value += &format!(" {key}={limit}");
            }
        }
        let home = b.home("rdma", &field)?;
        b.set(home, "rdma", &field, &["rdma.max"], value);
    }
    Ok(())
}

/// Files of v2 by name; written last, so that they win over what the other fields say.
fn unified(b: &mut Builder<'_>, resources: &LinuxResources) -> Result<()> {
    const CORE: [&str; 3] = ["cgroup.max.depth", "cgroup.max.descendants", "cgroup.pressure"];
    let mut keys: Vec<_> = resources.unified().iter().flatten().collect();
    keys.sort();
    for (key, value) in keys {
        let field = format!("linux.resources.unified.{key}");
        let plain = key.bytes().all(|c| c.is_ascii_alphanumeric() || b"._-".contains(&c));
        let Some((controller, rest)) = key
            .split_once('.')
            .filter(|(c, rest)| plain && !c.is_empty() && !rest.is_empty())
        else {
            return Err(invalid(&field, "is not the name of a file such as memory.high"));
        };
        if rest.starts_with('.') || value.contains('\0') {
            return Err(invalid(&field, "is not a file's name and value"));
        }
        if controller == "cgroup" && !CORE.contains(&key.as_str()) {
            return Err(invalid(&field, "would change what the group is, not what it may use"));
        }
        if b.host.mode() != super::super::Mode::Unified {
            return Err(unsupported(
                &field,
                "an invalid configuration on this machine: it needs cgroup v2, and v1 is mounted",
            ));
        }
        if controller != "cgroup" {
            b.home(controller, &field)?;
        }
        // Files such as io.max take one line at a time.
        let mut lines = value.lines().filter(|line| !line.trim().is_empty()).peekable();
        if lines.peek().is_none() {
            b.set(Home::V2, controller, &field, &[key], "");
        }
        for line in lines {
            b.set(Home::V2, controller, &field, &[key], line);
        }
    }
    Ok(())
}
