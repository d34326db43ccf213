//! Requests of a peer: read, handed to the server, answered part by part.

use std::{pin::pin, sync::Arc};

use maru_protocol::wire::{
    Answer, FrameError, Part, Refused, RefusedCode, Request, encode, request::Nothing,
};
use tokio::{sync::Semaphore, task::JoinSet, time::timeout};

use super::{peer::Peer, shared::Shared};
use crate::{
    homeserver::{Finished, Homeserver, Parts},
    limits,
    link::{
        IncomingStream, Link, OutgoingStream,
        frames::{FrameReader, FrameWriter, ReadError, WriteError},
    },
};

/// Answers the peer's requests until the link is closed, a bounded number at the same time.
pub(super) async fn serve<H: Homeserver>(shared: Arc<Shared<H>>, peer: Arc<Peer>, link: Arc<dyn Link>) {
    let running = Arc::new(Semaphore::new(limits::MAX_REQUESTS_IN as usize));
    let mut answers = JoinSet::new();
    loop {
        // Only fails once closed, which this one never is.
        let Ok(permit) = running.clone().acquire_owned().await else {
            return;
        };
        let Ok((outgoing, incoming)) = link.accept_request().await else {
            return;
        };
        while answers.try_join_next().is_some() {}
        let in_use = peer.begin_use();
        peer.counters.requests_in.add(1);
        let (shared, peer) = (shared.clone(), peer.clone());
        answers.spawn(async move {
            let _held = (permit, in_use);
            answer_one(&shared, &peer, outgoing, incoming).await;
        });
    }
}

/// Reads one request and answers it. What goes wrong on the stream is the peer's to notice.
async fn answer_one<H: Homeserver>(
    shared: &Shared<H>,
    peer: &Peer,
    outgoing: OutgoingStream,
    incoming: IncomingStream,
) {
    let mut writer = FrameWriter::new(outgoing);
    let ended = match timeout(limits::REQUEST_TIMEOUT, read(peer, incoming)).await {
        Ok(Ok(request)) => answer(shared, peer, request, &mut writer).await,
        Ok(Err(refused)) => refuse(peer, &mut writer, refused).await,
        Err(_) => return,
    };
    peer.counters.bytes_out.add(writer.bytes);
    match ended {
        // Until then it runs: a connection closed now would take the end of the answer with it.
        Ok(()) => drop(timeout(limits::WRITE_TIMEOUT, writer.delivered()).await),
        Err(error) => tracing::debug!(peer = %peer.name, %error, "an answer was not read to its end"),
    }
}

/// The one frame of a request.
async fn read(peer: &Peer, incoming: IncomingStream) -> Result<Request, Refused> {
    let mut reader = FrameReader::new(incoming);
    let request = reader.next::<Request>(limits::MAX_REQUEST_BYTES).await;
    peer.counters.bytes_in.add(reader.bytes);
    let request = request.map_err(|error| refusal(&error))?;
    let request = request.ok_or_else(|| Refused::new(RefusedCode::Invalid, "an empty request"))?;
    reader.expect_end().await.map_err(|error| refusal(&error))?;
    Ok(request)
}

fn refusal(error: &ReadError) -> Refused {
    let code = match error {
        ReadError::Frame(FrameError::Unknown(_)) => RefusedCode::UnknownRequest,
        ReadError::Frame(FrameError::TooLong { .. }) => RefusedCode::TooLarge,
        _ => RefusedCode::Invalid,
    };
    Refused::new(code, &error.to_string())
}

/// Lets the server answer, and sends the parts on while it does.
async fn answer<H: Homeserver>(
    shared: &Shared<H>,
    peer: &Peer,
    request: Request,
    writer: &mut FrameWriter<OutgoingStream>,
) -> Result<(), WriteError> {
    let (parts, mut waiting) = Parts::channel();
    let mut answering = pin!(shared.server.answer(&peer.name, request, parts));
    let ended = loop {
        tokio::select! {
            biased;
            Some(part) = waiting.recv() => send(writer, part).await?,
            ended = &mut answering => break ended,
            () = tokio::time::sleep(limits::ANSWER_TIMEOUT) => {
                break Err(Refused::new(RefusedCode::Unavailable, "took too long"));
            }
        }
    };
    // What was said before the end still waits.
    while let Ok(part) = waiting.try_recv() {
        send(writer, part).await?;
    }
    match ended {
        Ok(finished) => end(writer, finished).await,
        Err(refused) => refuse(peer, writer, refused).await,
    }
}

async fn send(writer: &mut FrameWriter<OutgoingStream>, part: Part) -> Result<(), WriteError> {
    let frame = encode(&Answer::<Nothing>::Part(part))?;
    in_time(writer.write_encoded(&frame)).await
}

async fn end(writer: &mut FrameWriter<OutgoingStream>, finished: Finished) -> Result<(), WriteError> {
    in_time(writer.write_encoded(&finished.into_frame())).await?;
    in_time(writer.finish()).await
}

async fn refuse(
    peer: &Peer,
    writer: &mut FrameWriter<OutgoingStream>,
    refused: Refused,
) -> Result<(), WriteError> {
    peer.counters.refused.add(1);
    let frame = encode(&Answer::<Nothing>::Refused(refused))?;
    in_time(writer.write_encoded(&frame)).await?;
    in_time(writer.finish()).await
}

/// A peer that does not read for long has given up.
async fn in_time(writing: impl Future<Output = Result<(), WriteError>>) -> Result<(), WriteError> {
    timeout(limits::WRITE_TIMEOUT, writing)
        .await
        .unwrap_or_else(|_| Err(WriteError::Broken(std::io::ErrorKind::TimedOut.into())))
}
