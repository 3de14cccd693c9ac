//! Two namespaces joined by a veth pair: bytes cross, and nothing is left when the descriptors are closed.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};

use longshore_network::{ErrorKind, Namespace};
use longshore_testing::{require_root, skip};

#[tokio::test]
async fn bytes_cross_a_veth_pair() {
    if let Err(why) = require_root() {
        return skip(&why);
    }
    let (left, right) = (Namespace::create().expect("left"), Namespace::create().expect("right"));
    let (near, far) = (
        left.links().expect("left's links"),
        right.links().expect("right's links"),
    );
    near.add_veth("eth0", "eth0", &right).await.expect("a veth pair");
    let addresses = [Ipv4Addr::new(10, 88, 0, 1), Ipv4Addr::new(10, 88, 0, 2)].map(IpAddr::V4);
    for (links, address) in [(&near, addresses[0]), (&far, addresses[1])] {
        links.add_address("eth0", address, 24).await.expect("an address");
        links.up("lo").await.expect("lo up");
        links.up("eth0").await.expect("eth0 up");
    }
    far.add_default_route(addresses[0]).await.expect("a default route");

    let server = right
        .run(|| TcpListener::bind((addresses[1], 7000)).expect("bind"))
        .expect("inside right");
    let answer = std::thread::spawn(move || {
        let (mut stream, peer) = server.accept().expect("accept");
        stream.write_all(b"hello").expect("write");
        peer.ip()
    });
    let mut stream = left
        .run(|| TcpStream::connect((addresses[1], 7000)).expect("connect"))
        .expect("inside left");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("read");
    assert_eq!(text, "hello");
    assert_eq!(answer.join().expect("the server"), addresses[0]);
}

#[tokio::test]
async fn errors_tell_what_is_wrong() {
    if let Err(why) = require_root() {
        return skip(&why);
    }
    let namespace = Namespace::create().expect("a namespace");
    let links = namespace.links().expect("links");
    let error = links.up("eth7").await.expect_err("no such link");
    assert_eq!(
        (error.kind(), error.to_string().contains("eth7")),
        (ErrorKind::NotFound, true)
    );
    links.add_bridge("br0").await.expect("a bridge");
    let error = links.add_bridge("br0").await.expect_err("the name is taken");
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error:?}");
    links.remove("br0").await.expect("removed");
    let error = Namespace::open("/etc/passwd").expect_err("not a namespace");
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn a_namespace_is_found_again_by_its_path() {
    if let Err(why) = require_root() {
        return skip(&why);
    }
    let namespace = Namespace::create().expect("a namespace");
    namespace
        .links()
        .expect("links")
        .add_bridge("br0")
        .await
        .expect("a bridge");
    let again = Namespace::open(namespace.path()).expect("the same");
    let names: Vec<String> = again
        .links()
        .expect("links")
        .list()
        .await
        .expect("a list")
        .into_iter()
        .map(|link| link.name)
        .collect();
    assert_eq!(names, ["lo", "br0"]);
}
