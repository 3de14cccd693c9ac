use std::collections::BTreeSet;
use std::ffi::CString;

use longshore_linux::{CStringArray, CapabilitySets};
use oci_spec::runtime::{Capabilities, LinuxCapabilities, PosixRlimitType, Process};

use super::Builder;
use super::check::check_process;
use super::op::{Executable, Home, Op, Rendezvous, When};
use super::paths::{cpath, cstring, invalid};
use crate::{Lifetime, Result};

/// Where programs are when the environment has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const CAP_SYS_ADMIN: u64 = 1 << 21;
const SIGKILL: i32 = 9;

/// Capabilities by number, as capabilities(7) names them.
pub(crate) const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// How the life of a process begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// It is created, and started later.
    Created,
    /// It runs at once, in a container that is there.
    Joined,
}

/// The program and what surrounds it.
pub(super) fn executable(field: &str, process: &Process) -> Result<Executable> {
    let args = process.args().as_deref().unwrap_or_default();
    let Some(program) = args.first() else {
        return Err(invalid(format!("{field}.args"), "there is no program to run"));
    };
    let mut strings = Vec::with_capacity(args.len());
    for (i, arg) in args.iter().enumerate() {
        strings.push(cstring(&format!("{field}.args[{i}]"), arg.as_str())?);
    }
    let env = process.env().as_deref().unwrap_or_default();
    let mut variables = Vec::with_capacity(env.len());
    for (i, variable) in env.iter().enumerate() {
        let field = format!("{field}.env[{i}]");
        if variable.find('=').is_none_or(|at| at == 0) {
            return Err(invalid(field, format!("'{variable}' is not NAME=value")));
        }
        variables.push(cstring(&field, variable.as_str())?);
    }
    let (variables, home) = environment(variables);
    let path = env
        .iter()
        .rev()
        .find_map(|v| v.strip_prefix("PATH="))
        .unwrap_or(DEFAULT_PATH);
    let args_field = format!("{field}.args[0]");
    let candidates = if program.contains('/') {
        vec![cstring(&args_field, program.as_str())?]
    } else {
        path.split(':')
            .filter(|dir| dir.starts_with('/'))
            .map(|dir| cstring(&args_field, format!("{}/{program}", dir.trim_end_matches('/'))))
            .collect::<Result<_>>()?
    };
    Ok(Executable {
        candidates,
        args: CStringArray::new(strings),
        env: CStringArray::new(variables),
        home,
    })
}

/// Each variable once, as it was given last, and `HOME` among them: the last, to be exchanged, if it is not given.
fn environment(variables: Vec<CString>) -> (Vec<CString>, Home) {
    let mut seen = BTreeSet::new();
    let mut kept = Vec::with_capacity(variables.len() + 1);
    let name = |variable: &CString| {
        let bytes = variable.to_bytes();
        bytes[..bytes.iter().position(|b| *b == b'=').unwrap_or(bytes.len())].to_vec()
    };
    for variable in variables.into_iter().rev() {
        if seen.insert(name(&variable)) {
            kept.push(variable);
        }
    }
    kept.reverse();
    // An empty one is none, whatever was said before it.
    kept.retain(|variable| variable.as_bytes() != b"HOME=");
    if kept.iter().any(|variable| variable.to_bytes().starts_with(b"HOME=")) {
        return (kept, Home::AsGiven);
    }
    kept.push(c"HOME=/".to_owned());
    (kept, Home::FromPasswd)
}

/// The capabilities of a process, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct AllSets {
    bounding: u64,
    sets: CapabilitySets,
    ambient: u64,
}

/// The bits of a set; what the kernel does not know goes to `unknown`.
fn bits(set: Option<&Capabilities>, last: u32, unknown: &mut BTreeSet<String>) -> u64 {
    let mut bits = 0;
    for capability in set.into_iter().flatten() {
        let name = capability.to_string();
        let name = name.trim_start_matches("CAP_");
        match CAPABILITIES.iter().position(|c| *c == name) {
            Some(number) if number as u32 <= last => bits |= 1u64 << number,
            _ => {
                unknown.insert(format!("CAP_{name}"));
            }
        }
    }
    bits
}

fn all_sets(
    field: &str,
    capabilities: Option<&LinuxCapabilities>,
    last: u32,
    warnings: &mut Vec<String>,
) -> Result<AllSets> {
    let Some(caps) = capabilities else {
        return Ok(AllSets::default());
    };
    let mut unknown = BTreeSet::new();
    let mut read = |set: &Option<Capabilities>| bits(set.as_ref(), last, &mut unknown);
    let all = AllSets {
        bounding: read(caps.bounding()),
        sets: CapabilitySets {
            effective: read(caps.effective()),
            permitted: read(caps.permitted()),
            inheritable: read(caps.inheritable()),
        },
        ambient: read(caps.ambient()),
    };
    if all.sets.effective & !all.sets.permitted != 0 {
        return Err(invalid(
            format!("{field}.effective"),
            "it has capabilities that are not in permitted",
        ));
    }
    if !unknown.is_empty() {
        // The words are runc's.
        let names: Vec<_> = unknown.into_iter().collect();
        warnings.push(format!(
            "ignoring unknown or unavailable capabilities: [{}]",
            names.join(" ")
        ));
    }
    // As runc does: what is not inheritable and permitted can't be ambient.
    let ambient = all.ambient & all.sets.inheritable & all.sets.permitted;
    let lost = (0..CAPABILITIES.len()).filter(|n| (all.ambient & !ambient) & (1 << n) != 0);
    warnings.extend(lost.map(|n| {
        format!(
            "can't raise ambient capability CAP_{}: it is not permitted and inheritable",
            CAPABILITIES[n]
        )
    }));
    Ok(AllSets { ambient, ..all })
}

impl Builder<'_> {
    /// From root in the container to the program: limits, identity, privileges, in the order that each needs the ones before.
    pub(super) fn process(
        &mut self,
        field: &str,
        process: &Process,
        executable: &Executable,
        life: Life,
    ) -> Result<()> {
        check_process(field, process)?;
        if let Some(adjust) = process.oom_score_adj() {
            if !(-1000..=1000).contains(&adjust) {
                return Err(invalid(
                    format!("{field}.oomScoreAdj"),
                    format!("{adjust} is not from -1000 to 1000"),
                ));
            }
            self.oom_score_adj = Some(adjust);
        }
        self.limits(field, process)?;
        let caps_field = format!("{field}.capabilities");
        let last = self.facts.last_capability;
        let caps = all_sets(&caps_field, process.capabilities().as_ref(), last, &mut self.warnings)?;
        self.labels(field, process)?;
        self.scheduling(field, process)?;
        let no_new_privileges = process.no_new_privileges().unwrap_or(false);
        let cwd = process.cwd();
        if !cwd.is_absolute() {
            return Err(invalid(
                format!("{field}.cwd"),
                format!("'{}' is not an absolute path", cwd.display()),
            ));
        }
        let cwd_field = format!("{field}.cwd");
        let cwd = cpath(&cwd_field, cwd)?;
        let drop = (0..=self.facts.last_capability)
            .filter(|n| caps.bounding & (1 << n) == 0)
            .collect();
        self.step(&format!("{caps_field}.bounding"), Op::Bounding { drop });
        self.step(
            &cwd_field,
            Op::Chdir {
                path: cwd.clone(),
                when: When::BeforeUser,
            },
        );
        if executable.home == Home::FromPasswd {
            let uid = process.user().uid();
            self.step(&format!("{field}.env"), Op::Home { uid });
        }
        self.identity(field, process)?;
        self.step(
            &cwd_field,
            Op::Chdir {
                path: cwd,
                when: When::AsUser,
            },
        );
        self.step(&caps_field, Op::Undumpable);
        self.step(field, Op::ParentDeathSignal(SIGKILL));
        if no_new_privileges {
            self.step(&format!("{field}.noNewPrivileges"), Op::NoNewPrivileges);
        }
        let filter = self.seccomp.take();
        let last = Op::Capabilities {
            sets: caps.sets,
            ambient: caps.ambient,
        };
        // Without no_new_privs a filter needs CAP_SYS_ADMIN to load, which is then given up last.
        let late = filter.is_some() && !no_new_privileges;
        if !late {
            self.step(&caps_field, last.clone());
        }
        self.step(&format!("{field}.args"), Op::FindProgram);
        let outlives = self.options.lifetime == Lifetime::Detached;
        if outlives {
            // Before the meeting: the host may end right after it. One that ends before it closes the socket, which ends the child.
            self.step(field, Op::ParentDeathSignal(0));
        }
        self.step(
            field,
            Op::Meet(if life == Life::Created {
                Rendezvous::Created
            } else {
                Rendezvous::Ready
            }),
        );
        if life == Life::Created {
            self.step(field, Op::AwaitStart);
            if self.start_hooks {
                self.step("hooks.startContainer", Op::Meet(Rendezvous::StartHooks));
            }
        }
        self.step(
            field,
            Op::CloseOnExec {
                from: 3 + self.descriptors.map_or(0, |(_, count)| count.into()),
            },
        );
        if late {
            let sets = CapabilitySets {
                effective: CAP_SYS_ADMIN,
                permitted: CAP_SYS_ADMIN | caps.sets.permitted,
                ..caps.sets
            };
            self.step("linux.seccomp", Op::Capabilities { sets, ambient: 0 });
        }
        if let Some(filter) = filter {
            if filter.listener.is_some() {
                self.step("linux.seccomp.listenerPath", Op::Meet(Rendezvous::Agent));
            }
            self.step("linux.seccomp", Op::Seccomp(filter));
        }
        if late {
            self.step(&caps_field, last);
        }
        self.step(&format!("{field}.args"), Op::Execute);
        Ok(())
    }

    fn limits(&mut self, field: &str, process: &Process) -> Result<()> {
        let mut seen = BTreeSet::new();
        for (i, limit) in process.rlimits().iter().flatten().enumerate() {
            let field = format!("{field}.rlimits[{i}]");
            let resource = rlimit_number(limit.typ());
            if !seen.insert(resource) {
                return Err(invalid(field, format!("{} is listed twice", limit.typ())));
            }
            if limit.soft() > limit.hard() {
                return Err(invalid(field, "the soft limit is above the hard one"));
            }
            self.step(
                &field,
                Op::Rlimit {
                    resource,
                    soft: limit.soft(),
                    hard: limit.hard(),
                },
            );
        }
        Ok(())
    }

    fn identity(&mut self, field: &str, process: &Process) -> Result<()> {
        let user = process.user();
        let user_field = format!("{field}.user");
        if let Some(maps) = &self.id_maps {
            if !maps.users.iter().any(|m| m.covers(user.uid())) {
                return Err(invalid(
                    format!("{user_field}.uid"),
                    format!("{} is not in linux.uidMappings", user.uid()),
                ));
            }
            if !maps.groups.iter().any(|m| m.covers(user.gid())) {
                return Err(invalid(
                    format!("{user_field}.gid"),
                    format!("{} is not in linux.gidMappings", user.gid()),
                ));
            }
        }
        let groups = user.additional_gids().clone().unwrap_or_default();
        if self.may_set_groups() {
            self.step(&format!("{user_field}.additionalGids"), Op::Groups(groups));
        } else if !groups.is_empty() {
            return Err(super::paths::unsupported(
                format!("{user_field}.additionalGids"),
                "a user namespace with one mapping, made by an ordinary user, can't set groups",
            ));
        }
        self.step(&user_field, Op::KeepCapabilities);
        self.step(
            &user_field,
            Op::User {
                uid: user.uid(),
                gid: user.gid(),
            },
        );
        self.step(&user_field, Op::Umask(user.umask().unwrap_or(0o022)));
        Ok(())
    }
}

fn rlimit_number(resource: PosixRlimitType) -> u32 {
    use PosixRlimitType as R;
    match resource {
        R::RlimitCpu => 0,
        R::RlimitFsize => 1,
        R::RlimitData => 2,
        R::RlimitStack => 3,
        R::RlimitCore => 4,
        R::RlimitRss => 5,
        R::RlimitNproc => 6,
        R::RlimitNofile => 7,
        R::RlimitMemlock => 8,
        R::RlimitAs => 9,
        R::RlimitLocks => 10,
        R::RlimitSigpending => 11,
        R::RlimitMsgqueue => 12,
        R::RlimitNice => 13,
        R::RlimitRtprio => 14,
        R::RlimitRttime => 15,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::Capability;

    #[test]
    fn an_environment_has_each_name_once_and_a_home() {
        let given = |list: &[&str]| {
            let list = list.iter().map(|v| CString::new(*v).expect("no null")).collect();
            let (kept, home) = environment(list);
            let kept: Vec<_> = kept.into_iter().map(|v| v.into_string().expect("text")).collect();
            (kept.join(" "), home)
        };
        assert_eq!(
            given(&["A=1", "HOME=/a", "A=2", "B="]),
            ("HOME=/a A=2 B=".into(), Home::AsGiven)
        );
        assert_eq!(given(&["HOME=", "A=1"]), ("A=1 HOME=/".into(), Home::FromPasswd));
        assert_eq!(given(&["HOME=/a", "HOME="]), ("HOME=/".into(), Home::FromPasswd));
        assert_eq!(given(&["HOME=", "HOME=/a"]), ("HOME=/a".into(), Home::AsGiven));
    }

    #[test]
    fn every_capability_of_the_vocabulary_has_its_number() {
        let set: Capabilities = [Capability::Chown, Capability::SysAdmin, Capability::CheckpointRestore].into();
        let mut unknown = BTreeSet::new();
        assert_eq!(bits(Some(&set), 40, &mut unknown), 1 | CAP_SYS_ADMIN | 1 << 40);
        assert!(unknown.is_empty());
        assert_eq!(bits(Some(&set), 39, &mut unknown), 1 | CAP_SYS_ADMIN);
        assert!(
            unknown.contains("CAP_CHECKPOINT_RESTORE"),
            "an older kernel does not know the last one"
        );
    }
}
