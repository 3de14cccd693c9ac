use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;

use crate::netlink::{Answer, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, Request, Socket, number32};

// linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_NEW_IFINDEX: u16 = 49;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
const IFA_RT_PRIORITY: u16 = 9;
const IFF_UP: u32 = 1;
const IFA_F_PERMANENT: u32 = 0x80;
/// No duplicate detection, home address, mother of temporary ones, no route of its own: what a person may ask for.
const IFA_F_ASKED: u32 = 0x2 | 0x10 | 0x100 | 0x200;
const RT_SCOPE_UNIVERSE: u8 = 0;
const IFINFOMSG: usize = 16;
const IFADDRMSG: usize = 8;

/// The network devices of one namespace, over rtnetlink(7): only what it takes to move one into another. The crate `network` has the rest.
///
/// A number of a device is an interface index (netdevice(7)).
#[derive(Debug)]
pub struct LinkSocket {
    socket: Socket,
}

/// An address of a network device, as the kernel tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkAddress {
    family: u8,
    prefix: u8,
    scope: u8,
    flags: u32,
    /// Those that make up the address, as they are.
    parts: Vec<(u16, Vec<u8>)>,
}

impl LinkAddress {
    /// Whether it is there until somebody takes it away (`IFA_F_PERMANENT`).
    pub fn is_permanent(&self) -> bool {
        self.flags & IFA_F_PERMANENT != 0
    }

    /// Whether it is good beyond this link and this host (`RT_SCOPE_UNIVERSE`).
    pub fn is_global(&self) -> bool {
        self.scope == RT_SCOPE_UNIVERSE
    }
}

impl LinkSocket {
    /// In the network namespace that the calling thread is in, whichever thread uses it then.
    ///
    /// # Errors
    /// Those of socket(2).
    pub fn open() -> Result<Self, Errno> {
        Ok(Self {
            socket: Socket::open()?,
        })
    }

    /// The device of a name.
    ///
    /// # Errors
    /// `ENODEV` when there is none.
    pub fn find(&mut self, name: &CStr) -> Result<u32, Errno> {
        let mut request = Request::new(RTM_GETLINK, 0, &link(0, 0)).attribute(IFLA_IFNAME, name.to_bytes_with_nul());
        let answers = self.socket.ask(&mut request)?;
        answers.iter().find_map(index).ok_or(Errno::NODEV)
    }

    /// All devices.
    ///
    /// # Errors
    /// `EAGAIN` when they change faster than they can be listed.
    pub fn all(&mut self) -> Result<Vec<u32>, Errno> {
        let answers = self
            .socket
            .ask(&mut Request::new(RTM_GETLINK, NLM_F_DUMP, &link(0, 0)))?;
        Ok(answers.iter().filter_map(index).collect())
    }

    /// The addresses of a device.
    ///
    /// # Errors
    /// As [`all`](Self::all).
    pub fn addresses(&mut self, device: u32) -> Result<Vec<LinkAddress>, Errno> {
        let answers = self
            .socket
            .ask(&mut Request::new(RTM_GETADDR, NLM_F_DUMP, &[0; IFADDRMSG]))?;
        let of_device = |answer: &&Answer| answer.kind == RTM_NEWADDR && number32(&answer.body, 4) == Some(device);
        Ok(answers.iter().filter(of_device).filter_map(address).collect())
    }

    /// Gives a device an address, with the peer, broadcast address and route's priority that it had where it was read.
    ///
    /// # Errors
    /// `EEXIST`, `EPERM` without `CAP_NET_ADMIN` over the namespace.
    pub fn add_address(&mut self, device: u32, address: &LinkAddress) -> Result<(), Errno> {
        let mut body = vec![address.family, address.prefix, 0, address.scope];
        body.extend_from_slice(&device.to_ne_bytes());
        let flags = (address.flags & IFA_F_ASKED).to_ne_bytes();
        let request = Request::new(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &body).attribute(IFA_FLAGS, &flags);
        let parts = address.parts.iter();
        let mut request = parts.fold(request, |request, (kind, value)| request.attribute(*kind, value));
        self.socket.ask(&mut request).map(drop)
    }

    /// Moves a device into another network namespace, where it has this name and number from the first moment. It is down there, without the addresses
    /// that it had. A name with `%d` at its end is one that the kernel completes.
    ///
    /// # Errors
    /// `EEXIST` for a name that is taken there, where the device may be by then under its old name: ask before. `EBUSY` for a number that is, `EINVAL` for a device that can't be moved, such as the loopback.
    pub fn move_away(&mut self, device: u32, namespace: impl AsFd, name: &CStr, number: u32) -> Result<(), Errno> {
        let namespace = namespace.as_fd().as_raw_fd().to_ne_bytes();
        let mut request = Request::new(RTM_SETLINK, 0, &link(device, 0))
            .attribute(IFLA_IFNAME, name.to_bytes_with_nul())
            .attribute(IFLA_NET_NS_FD, &namespace)
            .attribute(IFLA_NEW_IFINDEX, &number.to_ne_bytes());
        self.socket.ask(&mut request).map(drop)
    }

    /// Sets a device up.
    ///
    /// # Errors
    /// `ENODEV`, `EPERM`, and those of the device's driver.
    pub fn set_up(&mut self, device: u32) -> Result<(), Errno> {
        let mut request = Request::new(RTM_SETLINK, 0, &link(device, IFF_UP));
        self.socket.ask(&mut request).map(drop)
    }
}

/// `struct ifinfomsg`, with the flags that are to be set.
fn link(device: u32, flags: u32) -> [u8; IFINFOMSG] {
    let mut body = [0; IFINFOMSG];
    body[4..8].copy_from_slice(&device.to_ne_bytes());
    body[8..12].copy_from_slice(&flags.to_ne_bytes());
    body[12..16].copy_from_slice(&flags.to_ne_bytes());
    body
}

fn index(answer: &Answer) -> Option<u32> {
    number32(&answer.body, 4).filter(|_| answer.kind == RTM_NEWLINK)
}

fn address(answer: &Answer) -> Option<LinkAddress> {
    let [family, prefix, flags, scope] = *answer.body.first_chunk()?;
    let mut address = LinkAddress {
        family,
        prefix,
        scope,
        flags: flags.into(),
        parts: Vec::new(),
    };
    for (kind, value) in answer.attributes(IFADDRMSG) {
        match kind {
            // The same, as wide as they have become.
            IFA_FLAGS => address.flags = number32(value, 0).unwrap_or(address.flags),
            IFA_ADDRESS | IFA_LOCAL | IFA_BROADCAST | IFA_RT_PRIORITY => address.parts.push((kind, value.to_vec())),
            _ => {}
        }
    }
    Some(address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Namespaces, set_namespace, unshare};

    /// What is needed of the world around: a pair of devices.
    impl LinkSocket {
        fn make_pair(&mut self, name: &CStr) -> Result<(), Errno> {
            const IFLA_LINKINFO: u16 = 18;
            const IFLA_INFO_KIND: u16 = 1;
            let kind = [&8u16.to_ne_bytes()[..], &IFLA_INFO_KIND.to_ne_bytes(), b"veth"].concat();
            let mut request = Request::new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &link(0, 0))
                .attribute(IFLA_IFNAME, name.to_bytes_with_nul())
                .attribute(IFLA_LINKINFO, &kind);
            self.socket.ask(&mut request).map(drop)
        }
    }

    fn net() -> std::fs::File {
        std::fs::File::open("/proc/thread-self/ns/net").expect("our namespace")
    }

    /// Two new namespaces, the second one the thread's; none where they may not be made.
    fn two_namespaces() -> Option<(std::fs::File, LinkSocket, std::fs::File, LinkSocket)> {
        let mut made = (0..2).map(|_| {
            unshare(Namespaces::NETWORK).ok()?;
            Some((net(), LinkSocket::open().expect("a socket")))
        });
        let (a, b) = (made.next()??, made.next()??);
        Some((a.0, a.1, b.0, b.1))
    }

    fn v4(address: [u8; 4], prefix: u8, scope: u8) -> LinkAddress {
        let parts = vec![(IFA_LOCAL, address.to_vec()), (IFA_ADDRESS, address.to_vec())];
        LinkAddress {
            family: 2,
            prefix,
            scope,
            flags: 0,
            parts,
        }
    }

    #[test]
    fn a_device_moves_with_its_name_and_number() {
        let Some((here, mut links, there, mut others)) = two_namespaces() else {
            return longshore_testing::skip("needs to make network namespaces");
        };
        if links.make_pair(c"pair0").is_err() {
            return longshore_testing::skip("needs veth devices");
        }
        set_namespace(&here, Namespaces::NETWORK).expect("a socket stays where it was made, the thread need not");
        let device = links.find(c"pair0").expect("it is there");
        assert!(links.all().expect("a list").contains(&device));
        assert_eq!(links.find(c"nothing"), Err(Errno::NODEV));
        let given = [v4([192, 0, 2, 1], 24, 0), v4([192, 0, 2, 77], 32, 254)];
        for address in &given {
            links.add_address(device, address).expect("an address");
        }
        assert_eq!(links.add_address(device, &given[0]), Err(Errno::EXIST));
        let told = links.addresses(device).expect("its addresses");
        let (global, local): (Vec<_>, Vec<_>) = told.iter().partition(|address| address.is_global());
        assert_eq!((global.len(), local.len()), (1, 1), "{told:?}");
        assert!(told.iter().all(LinkAddress::is_permanent), "{told:?}");

        let loopback = links.find(c"lo").expect("a loopback");
        assert!(links.move_away(loopback, &there, c"lo", 99).is_err(), "it stays");
        links.move_away(device, &there, c"net%d", 99).expect("it moves");
        assert_eq!(links.find(c"pair0"), Err(Errno::NODEV));
        assert_eq!(others.find(c"net0"), Ok(99));
        assert_eq!(others.addresses(99), Ok(vec![]), "the kernel takes them away");
        others.add_address(99, global[0]).expect("the address again");
        others.set_up(99).expect("it is up");
        let again = others.addresses(99).expect("its addresses");
        assert!(again.contains(global[0]), "{again:?}");
    }
}
