use std::fmt;

use oci_spec::image::Descriptor;

/// Where one layer stands.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LayerProgress<'a> {
    /// Its place in the image, from 0.
    pub index: usize,
    /// Layers of the image.
    pub count: usize,
    /// The layer.
    pub layer: &'a Descriptor,
    /// Where it stands.
    pub state: LayerState,
}

/// The steps of a layer, in this order; [`Read`](Self::Read) comes about once a mebibyte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LayerState {
    /// It was unpacked before; no other step follows.
    Skipped,
    /// Its first bytes are awaited.
    Started,
    /// So many bytes of the blob were read, of [`Descriptor::size`].
    Read(u64),
    /// It is committed; so many bytes it was, unpacked.
    Done(u64),
}

/// Is told how an unpacking goes. Called from the threads that do it: it must not block.
pub trait UnpackObserver: Send + Sync + 'static {
    /// A layer got further.
    fn layer(&self, progress: &LayerProgress<'_>);
}

impl<F: Fn(&LayerProgress<'_>) + Send + Sync + 'static> UnpackObserver for F {
    fn layer(&self, progress: &LayerProgress<'_>) {
        self(progress);
    }
}

/// Nobody.
impl UnpackObserver for () {
    fn layer(&self, _progress: &LayerProgress<'_>) {}
}

impl fmt::Debug for dyn UnpackObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UnpackObserver")
    }
}
