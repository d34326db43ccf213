//! What an object storage answers.

use std::io;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};

use super::{Body, Contents, LEAST_PART, Operation, Stored, stored};

pub(super) fn full(status: StatusCode, text: &str) -> Response<Body> {
    let body = Full::new(Bytes::copy_from_slice(text.as_bytes()));
    let mut response = Response::new(body.map_err(|never| match never {}).boxed());
    *response.status_mut() = status;
    response
}

pub(super) fn refused(status: u16, code: &str) -> Response<Body> {
    full(
        StatusCode::from_u16(status).unwrap(),
        &format!("<Error><Code>{code}</Code></Error>"),
    )
}

pub(super) fn described(object: &Stored) -> http::response::Builder {
    Response::builder()
        .header(header::ETAG, &object.etag)
        .header(header::LAST_MODIFIED, "Sun, 29 Nov 2026 20:00:00 GMT")
}

/// Makes an object of the parts that are named, which must be all, in order.
pub(super) fn complete(contents: &mut Contents, upload: &str, name: &str, body: &[u8]) -> Response<Body> {
    let Some((meant, parts)) = contents.uploads.get(upload) else {
        return refused(404, "NoSuchUpload");
    };
    let text = String::from_utf8_lossy(body);
    let numbers: Vec<u32> = text
        .split("<PartNumber>")
        .skip(1)
        .map(|rest| rest.split('<').next().unwrap().parse().unwrap())
        .collect();
    if meant != name
        || numbers.iter().ne(parts.keys())
        || !parts
            .values()
            .all(|part| text.contains(part.etag.trim_matches('"')))
    {
        return refused(400, "InvalidPart");
    }
    let all_but_last = parts.values().rev().skip(1);
    if all_but_last.clone().any(|part| part.bytes.len() < LEAST_PART) {
        return refused(400, "EntityTooSmall");
    }
    let whole: Vec<_> = parts.values().map(|part| part.bytes.clone()).collect();
    let object = stored(whole.concat().into());
    let answer = format!(
        "<CompleteMultipartUploadResult><ETag>{}</ETag></CompleteMultipartUploadResult>",
        object.etag.replace('"', "&quot;")
    );
    contents.objects.insert(name.to_owned(), object);
    contents.uploads.remove(upload);
    full(StatusCode::OK, &answer)
}

/// An object, or the part that is asked for.
pub(super) fn given(object: &Stored, operation: Operation, headers: &HeaderMap) -> Response<Body> {
    let size = object.bytes.len();
    let range = headers.get(header::RANGE).and_then(|range| {
        let (first, last) = range.to_str().ok()?.strip_prefix("bytes=")?.split_once('-')?;
        let last = last.parse::<usize>().map_or(size, |last| (last + 1).min(size));
        Some(first.parse::<usize>().ok()?..last)
    });
    let mut response = described(object).header(header::ACCEPT_RANGES, "bytes");
    let bytes = match range {
        Some(range) if range.start >= size => return refused(416, "InvalidRange"),
        Some(range) => {
            let (first, last) = (range.start, range.end - 1);
            let shown = format!("bytes {first}-{last}/{size}");
            response = response.status(206).header(header::CONTENT_RANGE, shown);
            object.bytes.slice(range)
        }
        None => object.bytes.clone(),
    };
    response = response.header(header::CONTENT_LENGTH, bytes.len());
    let bytes = if operation == Operation::Head {
        Bytes::new()
    } else {
        bytes
    };
    let body = Full::new(bytes).map_err(|never| match never {});
    response.body(body.boxed()).unwrap()
}

/// The first half of an answer, after which the connection is cut.
pub(super) async fn cut_short(answer: Response<Body>) -> Response<Body> {
    let (mut head, body) = answer.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    head.headers.insert(header::CONTENT_LENGTH, bytes.len().into());
    let half = bytes.slice(..bytes.len() / 2);
    let pieces = [Ok(Frame::data(half)), Err(io::ErrorKind::ConnectionReset.into())];
    Response::from_parts(head, BodyExt::boxed(StreamBody::new(stream::iter(pieces))))
}
