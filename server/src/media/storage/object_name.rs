//! Names of objects: by the SHA-256 of what is in them, so that equal contents share one and none is ever replaced by
//! another; or by the SHA-256 of the address of what they are a copy of.

use crate::media::thumbnail::ThumbnailSize;

/// The folder of contents.
const CONTENTS: &str = "media";

/// The folder of their thumbnails.
const THUMBNAILS: &str = "thumbnails";

/// The folder of copies of other servers' files, and of their thumbnails.
const CACHED: &str = "media-cache";

/// The name of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::media) struct ObjectName {
    folder: &'static str,
    name: String,
}

/// An object that nothing may refer to yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::media) enum Arrival {
    /// A content, by its SHA-256.
    Content([u8; 32]),
    /// A copy of another server's file, by the SHA-256 of its address.
    Cached([u8; 32]),
}

impl ObjectName {
    /// A content, by its SHA-256.
    pub(in crate::media) fn content(sha256: &[u8]) -> Self {
        Self::of(CONTENTS, hex(sha256))
    }

    /// What the thumbnails of a content are called, before their sizes.
    pub(in crate::media) fn thumbnails(sha256: &[u8]) -> Self {
        Self::of(THUMBNAILS, hex(sha256))
    }

    /// A copy of another server's file, by the SHA-256 of its address.
    pub(in crate::media) fn cached(address: &[u8; 32]) -> Self {
        Self::of(CACHED, hex(address))
    }

    /// What its thumbnails are called, before their sizes.
    pub(in crate::media) fn cached_thumbnails(address: &[u8; 32]) -> Self {
        Self::of(CACHED, hex(address) + ".thumbnail")
    }

    /// The thumbnail of some size.
    pub(in crate::media) fn sized(&self, size: &str) -> Self {
        Self::of(self.folder, format!("{}-{size}", self.name))
    }

    fn of(folder: &'static str, name: String) -> Self {
        Self { folder, name }
    }

    /// Its path within the storage: objects are spread over folders by the first letters of their names.
    pub(in crate::media) fn path(&self) -> String {
        let fan = self.name.get(..2).unwrap_or("__");
        format!("{}/{fan}/{}", self.folder, self.name)
    }
}

impl Arrival {
    /// The object.
    pub(in crate::media) fn object(&self) -> ObjectName {
        match self {
            Self::Content(sha256) => ObjectName::content(sha256),
            Self::Cached(address) => ObjectName::cached(address),
        }
    }

    /// The object, and whatever goes with it.
    pub(in crate::media) fn objects(&self) -> Vec<ObjectName> {
        let thumbnails = match self {
            // Nobody could see it, so nobody had any made.
            Self::Content(_) => Vec::new(),
            Self::Cached(address) => {
                let thumbnails = ObjectName::cached_thumbnails(address);
                ThumbnailSize::all_names()
                    .map(|size| thumbnails.sized(&size))
                    .collect()
            }
        };
        thumbnails.into_iter().chain([self.object()]).collect()
    }

    /// The SHA-256 by which media refer to it; of a copy, nothing.
    pub(in crate::media) fn sha256(&self) -> &[u8] {
        match self {
            Self::Content(sha256) => sha256,
            Self::Cached(_) => &[],
        }
    }

    /// The arrival of an object with this path.
    pub(in crate::media) fn read(path: &str) -> Option<Self> {
        let (folder, name) = (path.split('/').next()?, path.rsplit('/').next()?);
        let digest = unhex(name)?;
        match folder {
            CONTENTS => Some(Self::Content(digest)),
            CACHED => Some(Self::Cached(digest)),
            _ => None,
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes that [`hex`] wrote.
fn unhex(name: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if name.len() != 2 * bytes.len() {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(name.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arrival_is_known_by_the_path_of_its_object() {
        for arrival in [Arrival::Content([0xab; 32]), Arrival::Cached([0x0f; 32])] {
            assert_eq!(Arrival::read(&arrival.object().path()), Some(arrival));
        }
        let thumbnail = ObjectName::thumbnails(&[1; 32]).sized("32x32-crop");
        for other in [thumbnail.path(), String::new(), "media/ab/ab".to_owned()] {
            assert_eq!(Arrival::read(&other), None, "{other}");
        }
    }
}
