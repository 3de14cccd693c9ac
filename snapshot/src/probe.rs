//! Whether overlayfs can serve a directory.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, XattrFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use crate::at;
use crate::remove::remove_all;

/// In which attributes overlay keeps its marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attributes {
    /// `trusted.overlay.`, which needs `CAP_SYS_ADMIN` on the host.
    Trusted,
    /// `user.overlay.` (`userxattr`, since Linux 5.11).
    User,
}

/// The answer, or why not in a sentence.
type Answer<T> = Result<T, String>;

/// The name of the scratch directory; the store's cleanup removes it if we can't.
const SCRATCH: &str = "probe";

/// Tries overlay on a scratch directory in `dirs`. Nothing is ever attached to the mount table.
pub(crate) fn overlay(dirs: &OwnedFd) -> Answer<Attributes> {
    remove_all(dirs, SCRATCH.as_bytes()).map_err(said("clearing a scratch directory"))?;
    let answer = try_in_scratch(dirs);
    let _ = remove_all(dirs, SCRATCH.as_bytes());
    answer
}

fn try_in_scratch(dirs: &OwnedFd) -> Answer<Attributes> {
    check_filesystem(dirs)?;
    let make = |name: String| rustix::fs::mkdirat(dirs, name, Mode::RWXU).map_err(said("making a scratch directory"));
    make(SCRATCH.into())?;
    for name in ["lower", "upper", "work"] {
        make(format!("{SCRATCH}/{name}"))?;
    }
    let open = |name: &str| {
        at::open_below(dirs, format!("{SCRATCH}/{name}").as_bytes(), at::DIRECTORY)
            .map_err(said("opening a scratch directory"))
    };
    let (lower, upper, work) = (open("lower")?, open("upper")?, open("work")?);
    let attributes = attributes(&upper)?;
    write(&lower, "hidden")?;
    write(&lower, "shown")?;
    rustix::fs::mknodat(&upper, "hidden", FileType::CharacterDevice, Mode::empty(), 0)
        .map_err(said("making a whiteout (a device 0:0)"))?;
    match rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC) {
        Ok(fs) => try_mount(&fs, attributes, [&lower, &upper, &work])?,
        Err(Errno::PERM) => check_settings()?,
        Err(Errno::NODEV) => return Err("the kernel has no overlay filesystem (CONFIG_OVERLAY_FS)".into()),
        Err(Errno::NOSYS) => return Err("the kernel has no fsopen(2); Linux 5.2 or newer is needed".into()),
        Err(errno) => return Err(said("asking for the overlay filesystem")(errno)),
    }
    Ok(attributes)
}

/// Which attributes we may set here.
fn attributes(dir: &OwnedFd) -> Answer<Attributes> {
    let set = |name: &str| rustix::fs::fsetxattr(dir, name, b"y", XattrFlags::empty());
    match set("trusted.overlay.probe") {
        Ok(()) => return Ok(Attributes::Trusted),
        Err(Errno::PERM) => {}
        Err(Errno::NOTSUP) => return Err("the filesystem has no extended attributes of type 'trusted'".into()),
        Err(errno) => return Err(said("setting an attribute")(errno)),
    }
    match set("user.overlay.probe") {
        Ok(()) => Ok(Attributes::User),
        Err(Errno::NOTSUP) => {
            Err("the filesystem has no extended attributes of type 'user', which rootless overlay needs".into())
        }
        Err(errno) => Err(said("setting an attribute")(errno)),
    }
}

/// Mounts it, detached, and looks whether it does what it must.
fn try_mount(fs: &OwnedFd, attributes: Attributes, [lower, upper, work]: [&OwnedFd; 3]) -> Answer<()> {
    let path = |fd: &OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
    let set = |key: &str, value: &str| {
        rustix::mount::fsconfig_set_string(fs, key, value).map_err(|errno| explain(fs, &format!("option {key}"), errno))
    };
    set("index", "off")?;
    if attributes == Attributes::User {
        rustix::mount::fsconfig_set_flag(fs, "userxattr").map_err(|errno| explain(fs, "option userxattr", errno))?;
    }
    set("lowerdir", &path(lower))?;
    set("upperdir", &path(upper))?;
    set("workdir", &path(work))?;
    rustix::mount::fsconfig_create(fs).map_err(|errno| explain(fs, "making the mount", errno))?;
    let mount = rustix::mount::fsmount(fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
        .map_err(|errno| explain(fs, "making the mount", errno))?;
    if at::stat(&mount, b"hidden").is_ok() || at::stat(&mount, b"shown").is_err() {
        return Err("whiteouts have no effect on this filesystem".into());
    }
    write(&mount, "written")?;
    match at::stat(upper, b"written") {
        Ok(_) => Ok(()),
        Err(_) => Err("what is written to the mount does not arrive in its upper directory".into()),
    }
}

/// What keeps an ordinary user from overlay, as far as it shows without a user namespace.
fn check_settings() -> Answer<()> {
    let system = rustix::system::uname();
    let release = system.release().to_string_lossy().into_owned();
    if kernel_version(&release).is_some_and(|version| version < (5, 11)) {
        return Err(format!(
            "overlay without root needs Linux 5.11 or newer, and this is {release}"
        ));
    }
    let zero = |path: &str| std::fs::read_to_string(path).is_ok_and(|text| text.trim() == "0");
    for setting in [
        "/proc/sys/kernel/unprivileged_userns_clone",
        "/proc/sys/user/max_user_namespaces",
    ] {
        if zero(setting) {
            return Err(format!(
                "overlay without root needs user namespaces, which {setting} forbids"
            ));
        }
    }
    Ok(())
}

fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Filesystems that can't be the upper directory.
fn check_filesystem(dirs: &OwnedFd) -> Answer<()> {
    const REFUSED: [(u64, &str); 4] = [
        (0x794c_7630, "overlay itself (are we in a container? give it a volume)"),
        (0x6969, "NFS"),
        (0xf15f, "eCryptfs"),
        (0x0102_1997, "9p"),
    ];
    let stat = rustix::fs::fstatfs(dirs).map_err(said("asking for the filesystem"))?;
    match REFUSED.iter().find(|(magic, _)| *magic == stat.f_type as u64) {
        Some((_, name)) => Err(format!("the filesystem is {name}, which overlay can't write to")),
        None => Ok(()),
    }
}

fn write(dir: impl AsFd, name: &str) -> Answer<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR).map_err(said("writing a scratch file"))?;
    Ok(())
}

fn said(action: &'static str) -> impl Fn(Errno) -> String {
    move |errno| format!("{action} failed: {}", std::io::Error::from(errno))
}

/// The errno, and what the kernel says in the filesystem's own log.
fn explain(fs: &OwnedFd, action: &str, errno: Errno) -> String {
    let mut buf = [0; 512];
    let message = match rustix::io::read(fs, &mut buf[..]) {
        Ok(len) => String::from_utf8_lossy(&buf[..len]).trim().to_owned(),
        Err(_) => String::new(),
    };
    let errno = std::io::Error::from(errno);
    match message.is_empty() {
        true => format!("the kernel refuses overlay here: {action}: {errno}"),
        false => format!("the kernel refuses overlay here: {action}: {errno} ({message})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        assert_eq!(kernel_version("6.18.44-fc-v782"), Some((6, 18)));
        assert_eq!(kernel_version("5.4"), Some((5, 4)));
        assert!(kernel_version("5.10.0-30-amd64") < Some((5, 11)));
    }
}
