//! The same input to us and to the real tools from Debian's packages, the outcome compared: an image made by umoci, pushed by skopeo to
//! docker-registry, pulled and run by us; our layout read back by skopeo and umoci; our root filesystem against umoci's and containerd's.

mod images;
mod tools;
