//! Files of other servers' users.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt};
use maru_federation::pool::Answering;
use maru_protocol::wire::bounded::Text;
use maru_protocol::wire::request::media::Media;
use ruma::ServerName;
use std::sync::Arc;

use crate::media::{Fetched, OtherServers};
use crate::peers::dependencies::Dependencies;
use crate::peers::rpc_client;
use crate::peers::rpc_client::RpcClient;
use crate::refusal::Refusal;

/// Files of other servers' users, downloaded from their servers.
#[derive(Debug)]
pub(in crate::peers) struct RemoteMedia {
    rpc: Arc<RpcClient>,
}

impl RemoteMedia {
    pub(in crate::peers) fn new(dependencies: &Dependencies) -> Self {
        Self {
            rpc: Arc::clone(&dependencies.rpc),
        }
    }

    async fn request_media(&self, server_name: &ServerName, media_id: &str) -> Result<Fetched, Refusal> {
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

impl OtherServers for RemoteMedia {
    fn fetch<'a>(
        &'a self,
        server_name: &'a ServerName,
        media_id: &'a str,
    ) -> BoxFuture<'a, Result<Fetched, Refusal>> {
        Box::pin(self.request_media(server_name, media_id))
    }
}
