//! Files of this server's users, for other servers; and theirs, for this one.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt};
use maru_federation::homeserver::{Finished, Parts};
use maru_federation::pool::Answering;
use maru_protocol::wire::answer::{Part, Refused};
use maru_protocol::wire::bounded::{Octets, Text};
use maru_protocol::wire::request::Nothing;
use maru_protocol::wire::request::media::{Media, MediaInfo};
use ruma::ServerName;
use tokio::io::AsyncReadExt;

use super::refused;
use crate::media::{Fetched, OtherServers};
use crate::peers::{Peers, rpc_client};
use crate::refusal::Refusal;

/// Bytes of one part.
const PIECE: usize = 256 * 1024;

impl Peers {
    /// Hands out a file that was uploaded here.
    pub(super) async fn give_media(&self, call: Media, parts: &Parts) -> Result<Finished, Refused> {
        let own = self.identity.name();
        let opened = self.media.open(own, &call.media_id, Duration::ZERO).await;
        let mut opened = opened.map_err(refused)?;
        let info = MediaInfo {
            length: opened.size,
            content_type: Some(Text::cut(&opened.content_type)),
            file_name: opened.file_name.as_deref().map(Text::cut),
        };
        let mut part = Part {
            media: Some(info),
            ..Part::default()
        };
        let mut piece = vec![0; PIECE];
        loop {
            let read = opened.file.read(&mut piece).await;
            let read = read.map_err(|error| refused(Refusal::internal(error)))?;
            part.data = piece.get(..read).and_then(Octets::new).unwrap_or_default();
            if read == 0 && part.media.is_none() {
                return Finished::done::<Media>(Nothing {});
            }
            parts.send(std::mem::take(&mut part)).await?;
        }
    }

    async fn ask_for_media(&self, server_name: &ServerName, media_id: &str) -> Result<Fetched, Refusal> {
        let unknown = || Refusal::not_found("that server has no such media");
        let media_id = Text::new(media_id).ok_or_else(unknown)?;
        let mut answer = self.rpc.request_stream(server_name, Media { media_id }).await?;
        let first = answer
            .part()
            .await
            .map_err(|error| rpc_client::refusal(server_name, error))?;
        let Some((info, data)) = first.and_then(|part| Some((part.media?, part.data))) else {
            return Err(Refusal::Unavailable(format!(
                "{server_name} does not say what the file is"
            )));
        };
        let first = stream::iter([Ok(Bytes::from(data.to_vec()))]);
        Ok(Fetched {
            length: info.length,
            content_type: info.content_type.map(|text| text.to_string()),
            file_name: info.file_name.map(|text| text.to_string()),
            content: first.chain(rest(answer)).boxed(),
        })
    }
}

/// The bytes of the parts that are left of an answer.
fn rest(answer: Answering<Media>) -> impl stream::Stream<Item = Result<Bytes, Refusal>> + Send {
    stream::try_unfold(answer, async |mut answer| {
        let peer = answer.peer().clone();
        let part = answer
            .part()
            .await
            .map_err(|error| rpc_client::refusal(&peer, error))?;
        Ok(part.map(|part| (Bytes::from(part.data.to_vec()), answer)))
    })
}

impl OtherServers for Peers {
    fn fetch<'a>(
        &'a self,
        server_name: &'a ServerName,
        media_id: &'a str,
    ) -> BoxFuture<'a, Result<Fetched, Refusal>> {
        Box::pin(self.ask_for_media(server_name, media_id))
    }
}
