use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;

use futures::TryStreamExt;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::{Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};
use tokio::task::JoinHandle;

use crate::{Error, Namespace, Result};

/// A link as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Link {
    /// The kernel's number for it.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Whether it is administratively up.
    pub up: bool,
    /// Largest packet, in bytes, where the kernel tells.
    pub mtu: Option<u32>,
}

/// The links, addresses and routes of one namespace: rtnetlink(7).
#[derive(Debug)]
pub struct Links {
    connection: JoinHandle<()>,
    handle: Handle,
}

impl Drop for Links {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Links {
    pub(crate) fn new(connection: JoinHandle<()>, handle: Handle) -> Self {
        Self { connection, handle }
    }

    /// All links, in the kernel's order.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn list(&self) -> Result<Vec<Link>> {
        let links = self.handle.link().get().execute().map_ok(describe).try_collect().await;
        links.map_err(|source| netlink("listing links", source))
    }

    /// Makes a veth pair: `name` here and `peer` in another namespace.
    ///
    /// # Errors
    /// [`AlreadyExists`](crate::ErrorKind::AlreadyExists) when a name is taken. Nothing was made then.
    pub async fn add_veth(&self, name: &str, peer: &str, peer_namespace: &Namespace) -> Result<()> {
        use rtnetlink::packet_route::link::{InfoData, InfoVeth};
        let fd = std::os::fd::AsFd::as_fd(peer_namespace).as_raw_fd();
        let other = LinkUnspec::new_with_name(peer).setns_by_fd(fd).build();
        let pair = LinkMessageBuilder::<LinkVeth>::new(name, peer).set_info_data(InfoData::Veth(InfoVeth::Peer(other)));
        let request = self.handle.link().add(pair.build()).execute().await;
        request.map_err(|source| netlink(format!("adding the veth pair {name} and {peer}"), source))
    }

    /// Makes a bridge.
    ///
    /// # Errors
    /// [`AlreadyExists`](crate::ErrorKind::AlreadyExists) when the name is taken.
    pub async fn add_bridge(&self, name: &str) -> Result<()> {
        let request = self.handle.link().add(LinkBridge::new(name).build()).execute().await;
        request.map_err(|source| netlink(format!("adding the bridge {name}"), source))
    }

    /// Puts a link under a bridge.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) when one of them is not there.
    pub async fn set_bridge(&self, name: &str, bridge: &str) -> Result<()> {
        let bridge_index = self.index(bridge).await?;
        let message = LinkUnspec::new_with_index(self.index(name).await?)
            .controller(bridge_index)
            .build();
        self.set(message, format!("putting {name} under {bridge}")).await
    }

    /// Moves a link to another namespace; its addresses are lost on the way.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) when it is not there.
    pub async fn move_to(&self, name: &str, namespace: &Namespace) -> Result<()> {
        let fd = std::os::fd::AsFd::as_fd(namespace).as_raw_fd();
        let message = LinkUnspec::new_with_index(self.index(name).await?)
            .setns_by_fd(fd)
            .build();
        self.set(message, format!("moving {name} to another network namespace"))
            .await
    }

    /// Brings a link up.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) when it is not there.
    pub async fn up(&self, name: &str) -> Result<()> {
        let message = LinkUnspec::new_with_index(self.index(name).await?).up().build();
        self.set(message, format!("bringing {name} up")).await
    }

    /// Removes a link, and with a veth its peer.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) when it is not there.
    pub async fn remove(&self, name: &str) -> Result<()> {
        let request = self.handle.link().del(self.index(name).await?).execute().await;
        request.map_err(|source| netlink(format!("removing {name}"), source))
    }

    /// Gives a link an address with the length of its network's prefix.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) for the link, [`AlreadyExists`](crate::ErrorKind::AlreadyExists) for the address.
    pub async fn add_address(&self, name: &str, address: IpAddr, prefix: u8) -> Result<()> {
        let request = self
            .handle
            .address()
            .add(self.index(name).await?, address, prefix)
            .execute()
            .await;
        request.map_err(|source| netlink(format!("adding {address}/{prefix} to {name}"), source))
    }

    /// Sends what no other route takes to a gateway.
    ///
    /// # Errors
    /// [`AlreadyExists`](crate::ErrorKind::AlreadyExists) when there is a default route.
    pub async fn add_default_route(&self, gateway: IpAddr) -> Result<()> {
        let route = match gateway {
            IpAddr::V4(gateway) => RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).build(),
            IpAddr::V6(gateway) => RouteMessageBuilder::<Ipv6Addr>::new().gateway(gateway).build(),
        };
        let request = self.handle.route().add(route).execute().await;
        request.map_err(|source| netlink(format!("adding a default route by {gateway}"), source))
    }

    async fn set(&self, message: LinkMessage, action: String) -> Result<()> {
        self.handle
            .link()
            .set(message)
            .execute()
            .await
            .map_err(|source| netlink(action, source))
    }

    /// The number of a link. Names are looked up in the listing: the kernel's own look-up reports a missing name as a missing device of the machine.
    async fn index(&self, name: &str) -> Result<u32> {
        let found = self.list().await?.into_iter().find(|link| link.name == name);
        found
            .map(|link| link.index)
            .ok_or_else(|| Error::NoSuchLink(name.to_owned()))
    }
}

fn describe(message: LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        up: message.header.flags.contains(LinkFlags::Up),
        mtu: None,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Mtu(mtu) => link.mtu = Some(mtu),
            _ => {}
        }
    }
    link
}

fn netlink(action: impl Into<String>, source: rtnetlink::Error) -> Error {
    Error::Netlink {
        action: action.into(),
        source,
    }
}
