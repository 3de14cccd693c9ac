use oci_spec::runtime::LinuxMemory;

use super::super::host::Home;
use super::{Builder, Missing, invalid, v1_only};
use crate::Result;

const LIMIT: &str = "linux.resources.memory.limit";
const SWAP: &str = "linux.resources.memory.swap";
const RESERVATION: &str = "linux.resources.memory.reservation";

pub(super) fn memory(b: &mut Builder<'_>, memory: &LinuxMemory) -> Result<()> {
    let limit = amount(LIMIT, memory.limit())?;
    let reservation = amount(RESERVATION, memory.reservation())?;
    let mut swap = amount(SWAP, memory.swap())?;
    if let (Some(limit), Some(swap)) = (limit, swap)
        && swap != -1
        && (limit == -1 || swap < limit)
    {
        return Err(invalid(
            SWAP,
            format!("is {swap}, which includes memory and so can't be below its limit of {limit}"),
        ));
    }
    if limit == Some(-1) && swap.is_none() {
        swap = Some(-1); // No limit of memory but one of memory and swap would be one of memory.
    }
    let of = |amount: i64, home| match home {
        Home::V2 if amount < 0 => "max".to_owned(),
        _ => amount.to_string(),
    };
    if let Some(limit) = limit {
        let home = b.home("memory", LIMIT)?;
        let file = if home == Home::V1 {
            "memory.limit_in_bytes"
        } else {
            "memory.max"
        };
        b.set(home, "memory", LIMIT, &[file], of(limit, home));
    }
    if let Some(swap) = swap {
        set_swap(b, limit, swap)?;
    }
    if let Some(reservation) = reservation {
        let home = b.home("memory", RESERVATION)?;
        let file = if home == Home::V1 {
            "memory.soft_limit_in_bytes"
        } else {
            "memory.low"
        };
        b.set(home, "memory", RESERVATION, &[file], of(reservation, home));
    }
    kernel(b, memory)?;
    behaviour(b, memory)
}

fn set_swap(b: &mut Builder<'_>, limit: Option<i64>, swap: i64) -> Result<()> {
    let home = b.home("memory", SWAP)?;
    let (file, value) = match (home, limit) {
        (Home::V1, _) => ("memory.memsw.limit_in_bytes", swap.to_string()),
        (Home::V2, _) if swap == -1 => ("memory.swap.max", "max".to_owned()),
        (Home::V2, Some(limit)) => ("memory.swap.max", (swap - limit).to_string()),
        (Home::V2, None) => {
            let reason =
                "includes memory, and without memory.limit there is no telling what is left for swap; give both";
            return Err(invalid(SWAP, reason));
        }
    };
    // Without swap accounting there is no swap to limit. (On v1 a limit equal to memory's is one of memory as well.)
    let holds_anyway = swap == -1 || (home == Home::V2 && value == "0");
    let write = b.set(home, "memory", SWAP, &[file], value);
    if holds_anyway {
        write.missing = Missing::Fine;
    }
    Ok(())
}

#[allow(deprecated)] // The spec still has `kernel`; it is told of, not obeyed.
fn kernel(b: &mut Builder<'_>, memory: &LinuxMemory) -> Result<()> {
    let field = "linux.resources.memory.kernel";
    if amount(field, memory.kernel())?.is_some_and(|k| k != -1) {
        // As runc: the limit of memory as a whole has what the kernel uses in it.
        tracing::warn!(field, "ignored: Linux has had no limit of kernel memory since 5.16");
    }
    let field = "linux.resources.memory.kernelTCP";
    if let Some(tcp) = amount(field, memory.kernel_tcp())? {
        if b.home("memory", field)? == Home::V2 {
            return Err(v1_only(field));
        }
        b.set(
            Home::V1,
            "memory",
            field,
            &["memory.kmem.tcp.limit_in_bytes"],
            tcp.to_string(),
        );
    }
    Ok(())
}

fn behaviour(b: &mut Builder<'_>, memory: &LinuxMemory) -> Result<()> {
    let field = "linux.resources.memory.swappiness";
    if let Some(swappiness) = memory.swappiness() {
        if swappiness > 200 {
            return Err(invalid(field, format!("is {swappiness}, and 0 to 200 are allowed")));
        }
        if b.home("memory", field)? == Home::V2 {
            return Err(v1_only(field));
        }
        b.set(
            Home::V1,
            "memory",
            field,
            &["memory.swappiness"],
            swappiness.to_string(),
        );
    }
    let field = "linux.resources.memory.disableOOMKiller";
    if memory.disable_oom_killer() == Some(true) {
        if b.home("memory", field)? == Home::V2 {
            return Err(v1_only(field));
        }
        b.set(Home::V1, "memory", field, &["memory.oom_control"], "1");
    }
    Ok(())
}

/// A number of bytes, -1 for no limit; 0 is not set.
fn amount(field: &str, amount: Option<i64>) -> Result<Option<i64>> {
    match amount {
        Some(amount) if amount < -1 => Err(invalid(field, format!("is {amount}; give bytes, or -1 for no limit"))),
        amount => Ok(amount.filter(|a| *a != 0)),
    }
}
