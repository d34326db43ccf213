//! Thumbnails: made once for each picture and size, off the async threads, few at a time.

use std::io::{BufReader, Cursor};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use image::codecs::jpeg::JpegEncoder;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, imageops};
use ruma::{ServerName, UserId};

use super::storage::{Begun, ObjectName, begin_file};
use super::{Media, Opened, Source, storage};
use crate::refusal::Refusal;

/// Pictures with more pixels are not decoded.
const PIXELS: u64 = 50_000_000;

/// Memory that one decoded picture may take, in bytes, and again what decoding it takes beside that. Nothing else that is
/// made of a picture is larger than its thumbnail.
const DECODING_BYTES: u64 = 256 << 20;

/// The quality of JPEG thumbnails, of 100.
const JPEG_QUALITY: u8 = 80;

/// A size that thumbnails are made in: others are answered with the next larger one, so that few files are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThumbnailSize {
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// Whether the picture is cut to the proportions, or fitted in.
    pub crop: bool,
}

/// The sizes of the specification's recommendation.
const SIZES: [ThumbnailSize; 5] = [
    ThumbnailSize {
        width: 32,
        height: 32,
        crop: true,
    },
    ThumbnailSize {
        width: 96,
        height: 96,
        crop: true,
    },
    ThumbnailSize {
        width: 320,
        height: 240,
        crop: false,
    },
    ThumbnailSize {
        width: 640,
        height: 480,
        crop: false,
    },
    ThumbnailSize {
        width: 800,
        height: 600,
        crop: false,
    },
];

impl ThumbnailSize {
    /// The size that is made for a wish.
    fn nearest(self) -> Self {
        let fits =
            |size: &&Self| size.crop == self.crop && size.width >= self.width && size.height >= self.height;
        let largest = |size: &&Self| size.width == 800;
        let nearest = SIZES.iter().find(fits).or_else(|| SIZES.iter().find(largest));
        nearest.copied().unwrap_or(self)
    }

    /// The names of all sizes that are made.
    pub(super) fn all_names() -> impl Iterator<Item = String> {
        SIZES.into_iter().map(Self::name)
    }

    fn name(self) -> String {
        let Self { width, height, crop } = self;
        format!("{width}x{height}{}", if crop { "-crop" } else { "" })
    }
}

impl Media {
    /// Opens a thumbnail of a picture for a user; the picture itself when it is not larger than what is asked for. Those
    /// that are to be made are made in turn for each user.
    ///
    /// # Errors
    /// [`Refusal::NotFound`]; [`Refusal::InvalidParam`] for what is no picture, or none that can be read;
    /// [`Refusal::TooLarge`] for a picture of too many pixels; [`Refusal::LimitExceeded`] when too many of the user
    /// wait.
    pub async fn thumbnail(
        &self,
        user_id: &UserId,
        server_name: &ServerName,
        media_id: &str,
        size: ThumbnailSize,
        wait: Duration,
    ) -> Result<Opened, Refusal> {
        let content = self.content(server_name, media_id, wait).await?;
        let size = size.nearest();
        let name = content.thumbnails.sized(&size.name());
        if let Some(made) = self.storage.begin_reading(&name).await? {
            return Ok(opened(made));
        }
        let permit = self.thumbnails.acquire(user_id.to_owned()).await;
        let permit = permit.map_err(|_| Refusal::LimitExceeded {
            retry_after: Duration::from_secs(2),
        })?;
        if let Some(made) = self.storage.begin_reading(&name).await? {
            return Ok(opened(made));
        }
        let made = match &content.source {
            Source::Passing(passing) => {
                let passing = Arc::clone(passing);
                tokio::task::spawn_blocking(move || {
                    // Held until the work is done, even when nobody waits for it any more.
                    let _permit = permit;
                    make(passing.path(), size)
                })
            }
            Source::Kept(object) => {
                let picture = self.storage.local_copy(object).await?;
                tokio::task::spawn_blocking(move || {
                    let _permit = permit;
                    make(picture.path(), size)
                })
            }
        };
        let bytes = match made.await.map_err(Refusal::internal)?? {
            None => return self.open_content(content).await,
            Some(bytes) => bytes,
        };
        match content.source {
            // Nobody would remove it with the picture.
            Source::Passing(_) => self.open_once(bytes).await,
            Source::Kept(_) => self.keep_thumbnail(bytes, &name).await,
        }
    }

    /// Makes a thumbnail an object.
    async fn keep_thumbnail(&self, bytes: Bytes, name: &ObjectName) -> Result<Opened, Refusal> {
        let mut file = self.storage.begin().await?;
        file.write(bytes).await.map_err(storage::refusal)?;
        let file = file.complete().await.map_err(storage::refusal)?;
        self.storage.keep(file, name).await?;
        let made = self.storage.begin_reading(name).await?;
        made.map(opened).ok_or_else(super::unknown)
    }

    /// Writes a thumbnail to a file that goes when it has been read.
    async fn open_once(&self, bytes: Bytes) -> Result<Opened, Refusal> {
        let mut file = self.storage.begin().await?;
        file.write(bytes).await.map_err(storage::refusal)?;
        let file = file.reopen().await.map_err(storage::refusal)?;
        begin_file(file).await.map(opened)
    }
}

/// A thumbnail. Its first byte tells what it is: thumbnails are PNG or JPEG.
fn opened(begun: Begun) -> Opened {
    let (content_type, ending) = match begun.first {
        0xff => ("image/jpeg", ".jpg"),
        _ => ("image/png", ".png"),
    };
    Opened {
        content: begun.content,
        size: begun.size,
        content_type: content_type.to_owned(),
        file_name: Some("thumbnail".to_owned() + ending),
    }
}

/// Decodes, shrinks and encodes; none when the picture is small enough as it is.
fn make(source: &Path, size: ThumbnailSize) -> Result<Option<Bytes>, Refusal> {
    let no_picture = |error: image::ImageError| match error {
        image::ImageError::Limits(_) => too_large(),
        error => Refusal::invalid(format!("this is no picture that this server can read: {error}")),
    };
    let file = std::fs::File::open(source).map_err(storage::refusal)?;
    let reader = ImageReader::new(BufReader::new(file))
        .with_guessed_format()
        .map_err(storage::refusal)?;
    let format = reader.format();
    let mut reader = reader;
    let mut limits = Limits::default();
    limits.max_alloc = Some(DECODING_BYTES);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(no_picture)?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > PIXELS || decoder.total_bytes() > DECODING_BYTES {
        return Err(too_large());
    }
    let orientation = decoder.orientation().map_err(no_picture)?;
    if width <= size.width && height <= size.height {
        return Ok(None);
    }
    let picture = DynamicImage::from_decoder(decoder).map_err(no_picture)?;
    let mut small = shrink(&picture, lying(size, orientation));
    // Turned when it is small: a turned picture is a second one.
    small.apply_orientation(orientation);
    let mut bytes = Vec::new();
    if format == Some(ImageFormat::Jpeg) {
        let encoder = JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY);
        small
            .into_rgb8()
            .write_with_encoder(encoder)
            .map_err(Refusal::internal)?;
    } else {
        let small = DynamicImage::ImageRgba8(small.into_rgba8());
        small
            .write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png)
            .map_err(Refusal::internal)?;
    }
    Ok(Some(bytes.into()))
}

fn too_large() -> Refusal {
    Refusal::TooLarge(format!(
        "thumbnails are made of pictures of at most {PIXELS} pixels and {DECODING_BYTES} bytes when decoded"
    ))
}

/// A size as it is before a picture is turned.
fn lying(size: ThumbnailSize, orientation: Orientation) -> ThumbnailSize {
    match orientation {
        Orientation::Rotate90
        | Orientation::Rotate270
        | Orientation::Rotate90FlipH
        | Orientation::Rotate270FlipH => ThumbnailSize {
            width: size.height,
            height: size.width,
            crop: size.crop,
        },
        _ => size,
    }
}

/// A picture in a smaller size, never in a larger one. Takes the memory of the small one only: each of its pixels is the
/// mean of those that it stands for, read where they are.
fn shrink(picture: &DynamicImage, size: ThumbnailSize) -> DynamicImage {
    let (width, height) = (picture.width(), picture.height());
    let small = if size.crop {
        let wanted = (size.width.min(width), size.height.min(height));
        let cut = largest_within((width, height), wanted);
        let (left, top) = ((width - cut.0) / 2, (height - cut.1) / 2);
        let view = imageops::crop_imm(picture, left, top, cut.0, cut.1);
        imageops::thumbnail(&*view, wanted.0, wanted.1)
    } else {
        let fitted = largest_within((size.width, size.height), (width, height));
        imageops::thumbnail(picture, fitted.0.min(width), fitted.1.min(height))
    };
    DynamicImage::ImageRgba8(small)
}

/// The largest size in the proportions of `like` that fits into `outer`; at least one pixel each way.
fn largest_within(outer: (u32, u32), like: (u32, u32)) -> (u32, u32) {
    let scaled = |length: u32, by: u32, of: u32| {
        let scaled = u64::from(length) * u64::from(by) / u64::from(of.max(1));
        u32::try_from(scaled).unwrap_or(u32::MAX).max(1)
    };
    let height = scaled(outer.0, like.1, like.0);
    if height <= outer.1 {
        (outer.0, height)
    } else {
        (scaled(outer.1, like.0, like.1).min(outer.0), outer.1)
    }
}

#[cfg(test)]
mod tests {
    use image::{Rgb, RgbImage};

    use super::*;

    fn picture(width: u32, height: u32, format: ImageFormat) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let image = RgbImage::from_fn(width, height, |x, y| Rgb([(x % 256) as u8, (y % 256) as u8, 9]));
        image.save_with_format(file.path(), format).unwrap();
        file
    }

    fn size(width: u32, height: u32, crop: bool) -> ThumbnailSize {
        ThumbnailSize { width, height, crop }
    }

    #[test]
    fn sizes_are_few() {
        assert_eq!(size(90, 20, true).nearest(), size(96, 96, true));
        assert_eq!(size(1, 1, false).nearest(), size(320, 240, false));
        assert_eq!(size(100_000, 1, false).nearest(), size(800, 600, false));
        assert_eq!(size(500, 500, true).nearest(), size(800, 600, false));
    }

    #[test]
    fn pictures_shrink_and_never_grow() {
        for format in [ImageFormat::Jpeg, ImageFormat::Png] {
            let large = picture(1000, 500, format);
            let made = make(large.path(), size(320, 240, false)).unwrap().unwrap();
            let made = image::load_from_memory(&made).unwrap();
            assert_eq!((made.width(), made.height()), (320, 160));
            let cut = make(large.path(), size(96, 96, true)).unwrap().unwrap();
            let cut = image::load_from_memory(&cut).unwrap();
            assert_eq!((cut.width(), cut.height()), (96, 96));
            let small = picture(20, 20, format);
            assert!(make(small.path(), size(32, 32, true)).unwrap().is_none());
        }
    }

    #[test]
    fn a_long_picture_is_cut_in_its_middle() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let red_in_the_middle = |x, _| {
            Rgb(if (450..550).contains(&x) {
                [255, 0, 0]
            } else {
                [0, 0, 255]
            })
        };
        RgbImage::from_fn(1000, 40, red_in_the_middle)
            .save_with_format(file.path(), ImageFormat::Png)
            .unwrap();
        let made = make(file.path(), size(32, 32, true)).unwrap().unwrap();
        let made = image::load_from_memory(&made).unwrap().into_rgb8();
        assert_eq!(made.dimensions(), (32, 32));
        assert!(made.pixels().all(|pixel| *pixel == Rgb([255, 0, 0])));
        let made = make(file.path(), size(320, 240, false)).unwrap().unwrap();
        assert_eq!(
            image::load_from_memory(&made).unwrap().into_rgb8().dimensions(),
            (320, 12)
        );
    }

    #[test]
    fn proportions_are_kept_within_what_is_given() {
        assert_eq!(largest_within((320, 240), (1000, 500)), (320, 160));
        assert_eq!(largest_within((320, 240), (500, 1000)), (120, 240));
        assert_eq!(largest_within((1_500_000, 33), (32, 32)), (33, 33));
        assert_eq!(largest_within((320, 240), (1_500_000, 33)), (320, 1));
    }

    #[test]
    fn a_picture_that_lies_is_stood_up_in_its_thumbnail() {
        let lying_size = lying(size(320, 240, false), Orientation::Rotate90);
        assert_eq!(lying_size, size(240, 320, false));
        assert_eq!(
            lying(size(320, 240, false), Orientation::Rotate180),
            size(320, 240, false)
        );
    }

    /// The head of a PNG of this size and depth, and hardly anything else.
    fn head_of_png(width: u32, height: u32, depth: u8, colour: u8) -> tempfile::NamedTempFile {
        let mut png = vec![0x89, b'P', b'N', b'G', 13, 10, 26, 10, 0, 0, 0, 13];
        let mut head = b"IHDR".to_vec();
        head.extend(width.to_be_bytes());
        head.extend(height.to_be_bytes());
        head.extend([depth, colour, 0, 0, 0]);
        let crc = head.iter().fold(!0_u32, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
                crc >> 1 ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 }
            })
        });
        png.extend(head);
        png.extend((!crc).to_be_bytes());
        png.extend([0, 0, 0, 1, b'I', b'D', b'A', b'T', 0, 0, 0, 0, 0]);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), png).unwrap();
        file
    }

    #[test]
    fn what_is_no_picture_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"<script>").unwrap();
        let refused = make(file.path(), size(32, 32, true));
        assert!(matches!(refused, Err(Refusal::InvalidParam(_))), "{refused:?}");
    }

    #[test]
    fn a_picture_that_promises_too_many_pixels_or_bytes_is_not_decoded() {
        let (too_many_pixels, too_many_bytes) = ((60_000, 60_000, 8, 2), (1_500_000, 33, 16, 6));
        for (width, height, depth, colour) in [too_many_pixels, too_many_bytes] {
            let file = head_of_png(width, height, depth, colour);
            let refused = make(file.path(), size(32, 32, true));
            assert!(matches!(refused, Err(Refusal::TooLarge(_))), "{refused:?}");
        }
    }
}
