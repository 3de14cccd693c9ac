//! CRIU's messages (`images/rpc.proto` of CRIU): what is asked, and what it answers.

use std::os::fd::RawFd;

use super::wire::{Value, Writer, fields};
use super::{CriuCgroups, CriuFlags};

/// What CRIU is asked for, or tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Dump,
    Restore,
    PreDump,
    Notify,
    FeatureCheck,
    Version,
}

impl Kind {
    fn number(self) -> i64 {
        match self {
            Self::Dump => 1,
            Self::Restore => 2,
            Self::PreDump => 4,
            Self::Notify => 6,
            Self::FeatureCheck => 9,
            Self::Version => 10,
        }
    }

    fn from_number(number: i64) -> Option<Self> {
        let all = [
            Self::Dump,
            Self::Restore,
            Self::PreDump,
            Self::Notify,
            Self::FeatureCheck,
            Self::Version,
        ];
        all.into_iter().find(|kind| kind.number() == number)
    }
}

/// The options of a dump or a restore; what is empty is left to CRIU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// Directories, as descriptors of this program.
    pub(crate) images: RawFd,
    pub(crate) work: Option<RawFd>,
    pub(crate) log: &'static str,
    pub(crate) root: String,
    pub(crate) pid: Option<i32>,
    pub(crate) leave_running: bool,
    pub(crate) flags: CriuFlags,
    pub(crate) cgroups: CriuCgroups,
    /// Namespaces that are made empty, as clone(2) names them.
    pub(crate) empty_namespaces: u32,
    pub(crate) freezer: Option<String>,
    pub(crate) page_server: Option<(String, u16)>,
    pub(crate) parent: Option<String>,
    pub(crate) config: Option<String>,
    /// Mounts with something outside: the mount point, or the name it was given, and its name, or the place outside.
    pub(crate) mounts: Vec<(String, String)>,
    /// Namespaces that are not the container's own, for a dump.
    pub(crate) external: Vec<String>,
    /// Descriptors that stand for something outside, for a restore: its name, and the number in CRIU.
    pub(crate) inherited: Vec<(String, RawFd)>,
    /// Namespaces to join, for a restore: kind and file.
    pub(crate) join: Vec<(&'static str, String)>,
    /// The groups of a restored container, by controllers.
    pub(crate) groups: Vec<(String, String)>,
    pub(crate) lsm_profile: Option<String>,
    pub(crate) lsm_mount_context: Option<String>,
    /// The first process becomes this program's child, and CRIU looks away from devices that others have. Restores only.
    pub(crate) is_restore: bool,
}

impl Options {
    fn write(&self) -> Writer {
        let mut to = Writer::default();
        let text = |to: &mut Writer, field, text: &Option<String>| {
            if let Some(text) = text {
                to.bytes(field, text.as_bytes());
            }
        };
        let number = |to: &mut Writer, field, number: Option<i64>| {
            if let Some(number) = number {
                to.number(field, number);
            }
        };
        let flag = |flag| self.flags.contains(flag);
        to.number(1, self.images.into());
        number(&mut to, 2, self.pid.map(i64::from));
        to.flag(3, self.leave_running)
            .flag(4, flag(CriuFlags::EXTERNAL_UNIX_SOCKETS))
            .flag(5, flag(CriuFlags::TCP_ESTABLISHED))
            .flag(6, self.is_restore)
            .flag(7, flag(CriuFlags::SHELL_JOB))
            .flag(8, flag(CriuFlags::FILE_LOCKS))
            .number(9, 4) // all messages but those for debugging
            .bytes(10, self.log.as_bytes());
        if let Some((address, port)) = &self.page_server {
            let mut server = Writer::default();
            server.bytes(1, address.as_bytes()).number(2, i64::from(*port));
            to.message(11, &server);
        }
        to.flag(12, true).bytes(13, self.root.as_bytes());
        text(&mut to, 14, &self.parent);
        to.flag(15, self.parent.is_some()).flag(16, flag(CriuFlags::AUTO_DEDUP));
        number(&mut to, 17, self.work.map(i64::from));
        to.flag(18, flag(CriuFlags::LINK_REMAP));
        pairs(&mut to, 23, &self.mounts);
        to.flag(24, true);
        pairs(&mut to, 25, &self.groups);
        to.flag(26, self.is_restore);
        for (name, fd) in &self.inherited {
            let mut inherited = Writer::default();
            inherited.bytes(1, name.as_bytes()).number(2, i64::from(*fd));
            to.message(27, &inherited);
        }
        to.number(34, cgroups_number(self.cgroups));
        for external in &self.external {
            to.bytes(37, external.as_bytes());
        }
        to.number(38, self.empty_namespaces.into());
        for (kind, file) in &self.join {
            let mut join = Writer::default();
            join.bytes(1, kind.as_bytes()).bytes(2, file.as_bytes());
            to.message(39, &join);
        }
        text(&mut to, 44, &self.freezer);
        to.flag(46, flag(CriuFlags::TCP_SKIP_IN_FLIGHT))
            .flag(48, flag(CriuFlags::LAZY_PAGES))
            .flag(50, true); // a terminal whose master is outside is told of
        text(&mut to, 51, &self.config);
        text(&mut to, 53, &self.lsm_profile);
        text(&mut to, 63, &self.lsm_mount_context);
        to
    }
}

fn pairs(to: &mut Writer, field: u32, pairs: &[(String, String)]) {
    for (key, value) in pairs {
        let mut pair = Writer::default();
        pair.bytes(1, key.as_bytes()).bytes(2, value.as_bytes());
        to.message(field, &pair);
    }
}

fn cgroups_number(cgroups: CriuCgroups) -> i64 {
    match cgroups {
        CriuCgroups::Ignore => 0,
        CriuCgroups::Soft => 3,
        CriuCgroups::Full => 4,
        CriuCgroups::Strict => 5,
        CriuCgroups::Default => 6,
    }
}

/// A dump or a restore.
pub(crate) fn request(kind: Kind, options: &Options) -> Vec<u8> {
    let mut request = Writer::default();
    request.number(1, kind.number()).message(2, &options.write());
    request.finish()
}

/// A question without options.
pub(crate) fn question(kind: Kind) -> Vec<u8> {
    let mut request = Writer::default();
    request.number(1, kind.number());
    if kind == Kind::FeatureCheck {
        // Which of the features it has: dirty memory, lazy pages.
        let mut features = Writer::default();
        features.flag(1, true).flag(2, true);
        request.message(5, &features);
    }
    request.finish()
}

/// The answer to a notification that lets CRIU go on.
pub(crate) fn go_on() -> Vec<u8> {
    let mut request = Writer::default();
    request.number(1, Kind::Notify.number()).flag(3, true);
    request.finish()
}

/// What CRIU says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) kind: Option<Kind>,
    pub(crate) success: bool,
    /// Of the restored process.
    pub(crate) pid: Option<i32>,
    /// Where it is, of a notification.
    pub(crate) notification: String,
    pub(crate) errno: i32,
    pub(crate) message: String,
    /// As its own number: 3.17.1 is 31701.
    pub(crate) version: u32,
    pub(crate) has_dirty_memory: bool,
    pub(crate) has_lazy_pages: bool,
}

impl Response {
    /// None for what is no response.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let mut read = Self::default();
        for (field, value) in fields(bytes)? {
            match field {
                1 => read.kind = Kind::from_number(value.number()?),
                2 => read.success = value.number()? != 0,
                4 => read.pid = inner(value, 1)?.and_then(pid),
                5 => {
                    read.notification = text(inner(value, 1)?);
                    read.pid = inner(value, 2)?.and_then(pid);
                }
                7 => read.errno = i32::try_from(value.number()?).ok()?,
                8 => {
                    let has = |field| Some(inner(value, field)?.and_then(Value::number).unwrap_or(0) != 0);
                    (read.has_dirty_memory, read.has_lazy_pages) = (has(1)?, has(2)?);
                }
                9 => read.message = text(Some(value)),
                10 => read.version = version(value)?,
                _ => {}
            }
        }
        Some(read)
    }
}

fn inner<'a>(message: Value<'a>, wanted: u32) -> Option<Option<Value<'a>>> {
    let fields = fields(message.bytes()?)?;
    Some(
        fields
            .into_iter()
            .find(|(field, _)| *field == wanted)
            .map(|(_, value)| value),
    )
}

fn pid(value: Value<'_>) -> Option<i32> {
    i32::try_from(value.number()?).ok().filter(|pid| *pid > 0)
}

fn text(value: Option<Value<'_>>) -> String {
    let bytes = value.and_then(Value::bytes).unwrap_or_default();
    String::from_utf8_lossy(bytes).into_owned()
}

/// Major, minor and sublevel in one; with a commit, it is on the way to the next minor version.
fn version(value: Value<'_>) -> Option<u32> {
    let part = |field| Some(inner(value, field)?.and_then(Value::number).unwrap_or(0).clamp(0, 99) as u32);
    let number = part(1)? * 10_000 + part(2)? * 100 + part(4)?;
    let is_between = inner(value, 3)?.is_some();
    Some(if is_between { number - part(4)? + 100 } else { number })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each field's number of `criu_opts`, and how often it is there.
    fn numbers(request: &[u8]) -> Vec<u32> {
        let outer = fields(request).expect("a message");
        assert_eq!(outer[1].0, 2, "the options");
        fields(outer[1].1.bytes().expect("a message"))
            .expect("a message")
            .iter()
            .map(|(field, _)| *field)
            .collect()
    }

    #[test]
    fn a_dump_says_what_was_asked_for_and_nothing_else() {
        let plain = Options {
            log: "dump.log",
            ..Options::default()
        };
        let request_of = |options: &Options| request(Kind::Dump, options);
        assert_eq!(numbers(&request_of(&plain)), [1, 9, 10, 12, 13, 24, 34, 38, 50]);
        let rich = Options {
            pid: Some(7),
            work: Some(9),
            leave_running: true,
            flags: CriuFlags::all(),
            freezer: Some("/sys/fs/cgroup/freezer/a".into()),
            page_server: Some(("127.0.0.1".into(), 27)),
            parent: Some("../parent".into()),
            config: Some("/etc/criu/runc.conf".into()),
            mounts: vec![("/a".into(), "/a".into()), ("/b".into(), "/b".into())],
            external: vec!["net[7]:extRootNetNS".into()],
            ..plain
        };
        assert_eq!(
            numbers(&request_of(&rich)),
            [
                1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 23, 23, 24, 34, 37, 38, 44, 46, 48, 50, 51
            ]
        );
    }

    #[test]
    fn a_restore_names_what_is_outside() {
        let options = Options {
            log: "restore.log",
            is_restore: true,
            inherited: vec![("pipe:[5]".into(), 1)],
            join: vec![("ipc", "/proc/1/ns/ipc".into())],
            groups: vec![("cpu".into(), "/a".into())],
            lsm_profile: Some("apparmor:x".into()),
            lsm_mount_context: Some("context".into()),
            ..Options::default()
        };
        assert_eq!(
            numbers(&request(Kind::Restore, &options)),
            [1, 6, 9, 10, 12, 13, 24, 25, 26, 27, 34, 38, 39, 50, 53, 63]
        );
    }

    #[test]
    fn responses_are_understood() {
        let mut notify = Writer::default();
        notify.bytes(1, b"post-restore").number(2, 77);
        let mut response = Writer::default();
        response.number(1, 6).flag(2, true).message(5, &notify);
        let read = Response::read(&response.finish()).expect("a response");
        assert_eq!(
            (read.kind, read.success, read.pid),
            (Some(Kind::Notify), true, Some(77))
        );
        assert_eq!(read.notification, "post-restore");

        let mut failed = Writer::default();
        failed.number(1, 1).number(2, 0).number(7, 3).bytes(9, b"no");
        let read = Response::read(&failed.finish()).expect("a response");
        assert_eq!((read.success, read.errno, read.message.as_str()), (false, 3, "no"));
        assert_eq!(Response::read(&[0x12, 9]), None);
    }

    #[test]
    fn a_version_is_one_number() {
        let of = |commit: &[u8]| {
            let mut version = Writer::default();
            version.number(1, 3).number(2, 17).number(4, 1);
            if !commit.is_empty() {
                version.bytes(3, commit);
            }
            let mut response = Writer::default();
            response.number(1, 10).flag(2, true).message(10, &version);
            Response::read(&response.finish()).expect("a response").version
        };
        assert_eq!((of(b""), of(b"abc")), (31_701, 31_800));
    }
}
