//! Moves network devices into a container (runtime spec, "Network Devices").

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::thread;

use longshore_linux::{Errno, LinkSocket, Namespaces, set_namespace};

use crate::plan::op::NetDevice;
use crate::{Error, Result};

/// How often another number is tried when somebody else has just taken the one that was free.
const TRIES: u32 = 32;

/// Moves devices of this thread's network namespace into that of a child that waits. Nothing is moved unless each is there and its name is free.
///
/// What has been moved when a later one fails goes where the namespace's devices go at its end, as the specification wants.
pub(crate) fn move_net_devices(devices: &[NetDevice], pid: i32) -> Result<()> {
    let Some(first) = devices.first() else { return Ok(()) };
    let fail = |step: &str| failed(&first.field, step.to_owned());
    let path = format!("/proc/{pid}/ns/net");
    let namespace = File::open(&path).map_err(|e| fail(&format!("open {path}"))(e))?;
    let mut here = LinkSocket::open()
        .map_err(io::Error::from)
        .map_err(fail("open a netlink socket"))?;
    let inside = thread::scope(|scope| {
        // It ends here, and what it has entered with it.
        let opened = scope.spawn(|| {
            set_namespace(&namespace, Namespaces::NETWORK)?;
            LinkSocket::open()
        });
        opened.join().unwrap_or(Err(Errno::IO))
    });
    let mut inside = inside
        .map_err(io::Error::from)
        .map_err(fail("open a netlink socket in the container's network namespace"))?;

    let mut numbers = Vec::new();
    for device in devices {
        let name = device.name.to_string_lossy();
        let number = here.find(&device.name).map_err(io::Error::from);
        numbers.push(number.map_err(failed(&device.field, format!("find the network device {name}")))?);
        check_free(&mut inside, device)?;
    }
    for (device, number) in devices.iter().zip(numbers) {
        let moved = move_one(&mut here, &mut inside, &namespace, number, device);
        moved.map_err(|(step, errno)| failed(&device.field, step)(errno.into()))?;
    }
    Ok(())
}

/// Whether its name is free. One that the kernel completes always is.
fn check_free(inside: &mut LinkSocket, device: &NetDevice) -> Result<()> {
    let name = &device.inside;
    let taken = match inside.find(name) {
        _ if name.to_bytes().ends_with(b"%d") => return Ok(()),
        Err(Errno::NODEV) => return Ok(()),
        Ok(_) => Errno::EXIST,
        Err(errno) => errno,
    };
    let step = format!(
        "see that the container has no network device {} yet",
        name.to_string_lossy()
    );
    Err(failed(&device.field, step)(taken.into()))
}

fn move_one(
    here: &mut LinkSocket,
    inside: &mut LinkSocket,
    namespace: &File,
    number: u32,
    device: &NetDevice,
) -> Result<(), (String, Errno)> {
    let at = |step: &str| {
        let step = format!("{step} {}", device.inside.to_string_lossy());
        |errno| (step, errno)
    };
    // The kernel takes them away when the device leaves.
    let addresses = here
        .addresses(number)
        .map_err(at("read the addresses of what becomes"))?;
    let entered = enter(here, inside, namespace, number, &device.inside);
    let number = entered.map_err(|errno| (device.to_string(), errno))?;
    for address in addresses.iter().filter(|a| a.is_permanent() && a.is_global()) {
        inside
            .add_address(number, address)
            .map_err(at("give its address back to"))?;
    }
    inside.set_up(number).map_err(at("set up"))
}

/// Moves it, and returns the number that it has there: its own, unless another device has that.
fn enter(
    here: &mut LinkSocket,
    inside: &mut LinkSocket,
    namespace: &File,
    device: u32,
    name: &CStr,
) -> Result<u32, Errno> {
    for _ in 0..TRIES {
        let taken = inside.all()?;
        let number = if taken.contains(&device) {
            taken.into_iter().max().unwrap_or(0) + 1
        } else {
            device
        };
        match here.move_away(device, namespace, name, number) {
            Err(Errno::BUSY) => {}
            moved => return moved.map(|()| number),
        }
    }
    Err(Errno::BUSY)
}

fn failed(field: &str, step: String) -> impl FnOnce(io::Error) -> Error {
    let field = field.to_owned();
    |source| Error::Step { field, step, source }
}
