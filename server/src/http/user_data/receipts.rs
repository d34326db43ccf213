//! Read receipts and markers (client-server API, "Receipts" and "Fully read markers").

use std::sync::Arc;

use axum::extract::State;
use ruma::api::client::read_marker::set_read_marker::v3 as set_read_marker;
use ruma::api::client::receipt::create_receipt::v3 as create_receipt;
use ruma::events::receipt::ReceiptThread;

use crate::http::codec::extractors::{Answer, Call, Reply};
use crate::http::router::{Endpoints, Routes};
use crate::receipts::{Mark, Thread};
use crate::refusal::Refusal;
use crate::server::Server;

pub(in crate::http) fn routes() -> Routes {
    Routes::new()
        .endpoint::<create_receipt::Request, _>(create)
        .endpoint::<set_read_marker::Request, _>(set_markers)
}

async fn create(
    State(server): State<Arc<Server>>,
    call: Call<create_receipt::Request>,
) -> Reply<create_receipt::Response> {
    let (request, caller) = (call.request, call.caller);
    let mark = mark(&request.receipt_type, request.thread)?;
    let marks = vec![(mark, request.event_id)];
    server
        .receipts
        .set(&caller.user_id, &request.room_id, marks)
        .await?;
    Ok(Answer(create_receipt::Response::new()))
}

async fn set_markers(
    State(server): State<Arc<Server>>,
    call: Call<set_read_marker::Request>,
) -> Reply<set_read_marker::Response> {
    let (request, caller) = (call.request, call.caller);
    let marks = [
        (Mark::FullyRead, request.fully_read),
        (Mark::Public(Thread::Unthreaded), request.read_receipt),
        (Mark::Private(Thread::Unthreaded), request.private_read_receipt),
    ];
    let marks = marks
        .into_iter()
        .filter_map(|(mark, event_id)| Some((mark, event_id?)));
    server
        .receipts
        .set(&caller.user_id, &request.room_id, marks.collect())
        .await?;
    Ok(Answer(set_read_marker::Response::new()))
}

pub(in crate::http) fn mark(
    receipt_type: &create_receipt::ReceiptType,
    thread: ReceiptThread,
) -> Result<Mark, Refusal> {
    let thread = match thread {
        ReceiptThread::Unthreaded => Thread::Unthreaded,
        ReceiptThread::Main => Thread::Main,
        ReceiptThread::Thread(root) => Thread::Root(root),
        _ => return Err(Refusal::invalid("thread_id is \"main\" or the root of a thread")),
    };
    match receipt_type {
        create_receipt::ReceiptType::Read => Ok(Mark::Public(thread)),
        create_receipt::ReceiptType::ReadPrivate => Ok(Mark::Private(thread)),
        create_receipt::ReceiptType::FullyRead if thread == Thread::Unthreaded => Ok(Mark::FullyRead),
        create_receipt::ReceiptType::FullyRead => Err(Refusal::invalid("m.fully_read belongs to no thread")),
        _ => Err(Refusal::invalid("this server knows no such receipt type")),
    }
}
