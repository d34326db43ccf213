//! Files of this server's users, for other servers.

use std::time::Duration;

use maru_federation::homeserver::{Finished, Parts};
use maru_protocol::wire::answer::{Part, Refused};
use maru_protocol::wire::bounded::{Octets, Text};
use maru_protocol::wire::request::Nothing;
use maru_protocol::wire::request::media::{Media, MediaInfo};
use tokio::io::AsyncReadExt;
use tokio_util::io::StreamReader;

use super::refused;
use crate::peers::request_handlers::RequestHandlers;
use crate::refusal::Refusal;

/// Bytes of one part.
const PIECE: usize = 256 * 1024;

impl RequestHandlers {
    /// Hands out a file that was uploaded here.
    pub(super) async fn media(&self, call: Media, parts: &Parts) -> Result<Finished, Refused> {
        let own = self.identity.name();
        let opened = self.media.open(own, &call.media_id, Duration::ZERO).await;
        let opened = opened.map_err(refused)?;
        let info = MediaInfo {
            length: opened.size,
            content_type: Some(Text::cut(&opened.content_type)),
            file_name: opened.file_name.as_deref().map(Text::cut),
        };
        let mut part = Part {
            media: Some(info),
            ..Part::default()
        };
        let size = opened.size;
        let mut content = StreamReader::new(opened.read(0..size).await.map_err(refused)?);
        let mut piece = vec![0; PIECE];
        loop {
            let read = content.read(&mut piece).await;
            let read = read.map_err(|error| refused(Refusal::internal(error)))?;
            part.data = piece.get(..read).and_then(Octets::new).unwrap_or_default();
            if read == 0 && part.media.is_none() {
                return Finished::done::<Media>(Nothing {});
            }
            parts.send(std::mem::take(&mut part)).await?;
        }
    }
}
