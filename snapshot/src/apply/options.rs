use oci_spec::image::Digest;

use crate::Usage;

/// How the bytes of a layer are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compression {
    /// A plain tar archive.
    None,
    /// gzip (RFC 1952), of one or several members.
    Gzip,
    /// zstd (RFC 8878), of one or several frames, skippable ones among them.
    Zstd,
}

impl Compression {
    /// What a layer's media type announces; `None` if it is not the type of a tar layer.
    ///
    /// Registries hold layers whose type and bytes disagree, so [`ApplyOptions`] looks at the bytes unless told otherwise.
    pub fn of_media_type(media_type: &str) -> Option<Self> {
        let oci = media_type
            .strip_prefix("application/vnd.oci.image.layer.v1.tar")
            .or_else(|| media_type.strip_prefix("application/vnd.oci.image.layer.nondistributable.v1.tar"));
        if let Some(suffix) = oci {
            return match suffix {
                "" => Some(Self::None),
                "+gzip" => Some(Self::Gzip),
                "+zstd" => Some(Self::Zstd),
                _ => None,
            };
        }
        match media_type.strip_prefix("application/vnd.docker.image.rootfs.")? {
            "diff.tar" | "foreign.diff.tar" => Some(Self::None),
            "diff.tar.gzip" | "foreign.diff.tar.gzip" => Some(Self::Gzip),
            "diff.tar.zstd" => Some(Self::Zstd),
            _ => None,
        }
    }

    /// The media type of a layer compressed so, in an OCI image.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::None => "application/vnd.oci.image.layer.v1.tar",
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }

    /// What the first bytes of a layer are, by their magic number. Four bytes are enough.
    pub fn of_bytes(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            // A skippable frame may come first: 0x184D2A50 to 0x184D2A5F, little endian.
            [low, 0x2a, 0x4d, 0x18, ..] if low & 0xf0 == 0x50 => Self::Zstd,
            _ => Self::None,
        }
    }
}

/// Whose the unpacked files are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Ownership {
    /// As the layer says. Needs root, or a user namespace that maps the owners.
    #[default]
    Keep,
    /// All are the caller's. Device nodes, which an ordinary user can't make, are left out and counted, and so are attributes that the
    /// caller may not set.
    Caller,
}

/// What a layer may ask of us. The defaults let every sane image pass.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of PAX records and GNU long names of one entry.
    pub metadata: u32,
    /// Bytes in a path or link target.
    pub path: u32,
    /// Components in a path.
    pub depth: usize,
    /// Pieces of a sparse file.
    pub sparse: usize,
    /// Uncompressed bytes of the whole layer. No limit unless set: the disk is the limit then.
    pub size: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            metadata: 1 << 20,
            path: 4096,
            depth: 1024,
            sparse: 100_000,
            size: None,
        }
    }
}

/// How a layer is applied.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ApplyOptions {
    /// How the layer is compressed; `None` looks at its first bytes.
    pub compression: Option<Compression>,
    /// What the uncompressed bytes must hash to: the diffID in the image's config.
    pub diff_id: Option<Digest>,
    /// Whose the files are.
    pub ownership: Ownership,
    /// What the layer may ask for.
    pub limits: Limits,
}

impl ApplyOptions {
    /// Fails with [`Verification`](crate::ErrorKind::Verification) when the uncompressed bytes are not these.
    #[must_use]
    pub fn diff_id(mut self, diff_id: Digest) -> Self {
        self.diff_id = Some(diff_id);
        self
    }

    /// Takes the layer for what its media type says instead of looking at its first bytes.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = Some(compression);
        self
    }

    /// Sets whose the files are.
    #[must_use]
    pub fn ownership(mut self, ownership: Ownership) -> Self {
        self.ownership = ownership;
        self
    }

    /// Sets what the layer may ask for.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }
}

/// What applying a layer did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Applied {
    /// What the uncompressed bytes hash to.
    pub diff_id: Digest,
    /// How many uncompressed bytes there were, those after the archive's end included.
    pub size: u64,
    /// Entries of the archive.
    pub entries: u64,
    /// What the snapshot takes on disk now, counted on the way, for [`commit_counted`](crate::Snapshotter::commit_counted). `None` when the directory was not
    /// empty before, as with snapshots that are copies of their parents.
    pub usage: Option<Usage>,
    /// What was left out.
    pub skipped: Skipped,
}

/// What a layer has and the target has not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Skipped {
    /// Device nodes, with [`Ownership::Caller`].
    pub devices: u64,
    /// Extended attributes: overlay's own and SELinux labels always, those that the filesystem or the caller can't have.
    pub xattrs: u64,
}
