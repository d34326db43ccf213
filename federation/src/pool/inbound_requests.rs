//! Requests of a peer: read, handed to the server, answered part by part.

use std::{pin::pin, sync::Arc};

use maru_protocol::wire::{
    Answer, FrameError, Part, Refused, RefusedCode, Request, encode, request::Nothing,
};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    task::JoinSet,
    time::timeout,
};

use super::peer::Peer;
use super::shared::Shared;
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
    let large = Arc::new(Semaphore::new(limits::MAX_LARGE_REQUESTS_IN));
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
        let (shared, peer, large) = (shared.clone(), peer.clone(), large.clone());
        answers.spawn(async move {
            let _held = (permit, in_use);
            answer_one(&shared, &peer, &large, outgoing, incoming).await;
        });
    }
}

/// Reads one request and answers it. What goes wrong on the stream is the peer's to notice.
async fn answer_one<H: Homeserver>(
    shared: &Shared<H>,
    peer: &Peer,
    large: &Semaphore,
    outgoing: OutgoingStream,
    incoming: IncomingStream,
) {
    let mut writer = FrameWriter::new(outgoing);
    let mut reader = FrameReader::new(incoming);
    let read = read(&mut reader, large).await;
    peer.counters.bytes_in.add(reader.bytes);
    let ended = match read {
        Ok((request, _held)) => answer(shared, peer, request, &mut writer).await,
        Err(refused) => refuse(peer, &mut writer, refused).await,
    };
    peer.counters.bytes_out.add(writer.bytes);
    match ended {
        // Until then it runs: a connection closed now would take the end of the answer with it.
        Ok(()) => drop(timeout(limits::WRITE_TIMEOUT, writer.delivered()).await),
        Err(error) => tracing::debug!(peer = %peer.name, %error, "an answer was not read to its end"),
    }
}

/// The one frame of a request, with the permit of a large one, to be held as long as the request is.
async fn read<'a>(
    reader: &mut FrameReader<IncomingStream>,
    large: &'a Semaphore,
) -> Result<(Request, Option<SemaphorePermit<'a>>), Refused> {
    let announced = patient(reader.frame_length(limits::MAX_REQUEST_BYTES)).await?;
    let length = announced.ok_or_else(|| Refused::new(RefusedCode::Invalid, "an empty request"))?;
    let permit = if length > limits::LARGE_REQUEST_BYTES {
        large.acquire().await.ok()
    } else {
        None
    };
    let request = patient(reader.next::<Request>(limits::MAX_REQUEST_BYTES)).await?;
    let request = request.ok_or_else(|| Refused::new(RefusedCode::Invalid, "an empty request"))?;
    patient(reader.expect_end()).await?;
    Ok((request, permit))
}

/// Reads with patience, but not for ever.
async fn patient<T>(reading: impl Future<Output = Result<T, ReadError>>) -> Result<T, Refused> {
    match timeout(limits::REQUEST_TIMEOUT, reading).await {
        Ok(read) => read.map_err(|error| refusal(&error)),
        Err(_) => Err(Refused::new(
            RefusedCode::Invalid,
            "the request took too long to arrive",
        )),
    }
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
