//! Media (client-server API, "Content repository"). Downloads need a token; the old paths without one are not served.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use ruma::api::client::authenticated_media::{
    get_content::v1 as get_content, get_content_as_filename::v1 as get_content_as_filename,
    get_content_thumbnail::v1 as get_content_thumbnail, get_media_config::v1 as get_media_config,
};
use ruma::api::client::media::{
    create_content::v3 as create_content, create_content_async::v3 as create_content_async,
    create_mxc_uri::v1 as create_mxc_uri, get_media_config::v3 as get_media_config_v3,
};
use ruma::http_headers::{ContentDisposition, ContentDispositionType};
use ruma::{MilliSecondsSinceUnixEpoch, UInt};

use super::codec::error::{ApiError, plain};
use super::codec::extractors::{Answer, Call, Reply};
use super::codec::range::Part;
use super::codec::streamed_body::Upload;
use super::router::{Endpoints, Routes};
use crate::media::{About, Opened, ThumbnailSize};
use crate::refusal::Refusal;
use crate::server::Server;

/// What a shown document may do: nothing.
const SANDBOX: &str = "sandbox; default-src 'none'; script-src 'none'; plugin-types application/pdf; \
                       style-src 'unsafe-inline'; object-src 'self';";

#[expect(deprecated, reason = "clients still ask for the limit where it used to be")]
pub(super) fn routes() -> Routes {
    Routes::new()
        .endpoint::<create_content::Request, _>(upload)
        .endpoint::<create_mxc_uri::Request, _>(create)
        .endpoint::<create_content_async::Request, _>(upload_created)
        .endpoint::<get_content::Request, _>(download)
        .endpoint::<get_content_as_filename::Request, _>(download_as)
        .endpoint::<get_content_thumbnail::Request, _>(thumbnail)
        .endpoint::<get_media_config::Request, _>(config)
        .endpoint::<get_media_config_v3::Request, _>(config_v3)
}

async fn upload(
    State(server): State<Arc<Server>>,
    upload: Upload<create_content::Request>,
) -> Reply<create_content::Response> {
    let about = About {
        content_type: upload.request.content_type,
        file_name: upload.request.filename,
        size: upload.length,
    };
    let content = upload.body.into_data_stream();
    let address = server
        .media
        .upload(&upload.caller.user_id, about, content)
        .await?;
    Ok(Answer(create_content::Response::new(address)))
}

async fn create(
    State(server): State<Arc<Server>>,
    call: Call<create_mxc_uri::Request>,
) -> Reply<create_mxc_uri::Response> {
    let (address, until) = server.media.create(&call.caller.user_id).await?;
    let mut response = create_mxc_uri::Response::new(address);
    response.unused_expires_at = Some(MilliSecondsSinceUnixEpoch(UInt::new_saturating(until)));
    Ok(Answer(response))
}

async fn upload_created(
    State(server): State<Arc<Server>>,
    upload: Upload<create_content_async::Request>,
) -> Result<axum::Json<serde_json::Value>, ApiError> {
    let (request, user_id) = (upload.request, upload.caller.user_id);
    let about = About {
        content_type: request.content_type,
        file_name: request.filename,
        size: upload.length,
    };
    let content = upload.body.into_data_stream();
    server
        .media
        .upload_created(&user_id, &request.server_name, &request.media_id, about, content)
        .await?;
    Ok(axum::Json(serde_json::json!({})))
}

async fn download(
    State(server): State<Arc<Server>>,
    headers: HeaderMap,
    call: Call<get_content::Request>,
) -> Result<Response, ApiError> {
    let request = call.request;
    let opened = server
        .media
        .open(&request.server_name, &request.media_id, request.timeout_ms)
        .await?;
    answer_part(opened, &headers, &request.media_id).await
}

async fn download_as(
    State(server): State<Arc<Server>>,
    headers: HeaderMap,
    call: Call<get_content_as_filename::Request>,
) -> Result<Response, ApiError> {
    let request = call.request;
    let opened = server
        .media
        .open(&request.server_name, &request.media_id, request.timeout_ms)
        .await?;
    answer_part(opened.named(&request.filename), &headers, &request.media_id).await
}

async fn thumbnail(
    State(server): State<Arc<Server>>,
    call: Call<get_content_thumbnail::Request>,
) -> Result<Response, ApiError> {
    let request = call.request;
    let pixels = |count: UInt| u32::try_from(u64::from(count)).unwrap_or(u32::MAX);
    let size = ThumbnailSize {
        width: pixels(request.width),
        height: pixels(request.height),
        crop: request.method == Some(ruma::media::Method::Crop),
    };
    let wait: Duration = request.timeout_ms;
    let opened = server
        .media
        .thumbnail(
            &call.caller.user_id,
            &request.server_name,
            &request.media_id,
            size,
            wait,
        )
        .await?;
    let (headers, size) = (describe(&opened)?, opened.size);
    Ok((headers, stream(opened, 0..size).await?).into_response())
}

async fn config(
    State(server): State<Arc<Server>>,
    _: Call<get_media_config::Request>,
) -> Reply<get_media_config::Response> {
    let largest = UInt::new_saturating(server.media.largest());
    Ok(Answer(get_media_config::Response::new(largest)))
}

#[expect(deprecated, reason = "clients still ask for the limit where it used to be")]
async fn config_v3(
    State(server): State<Arc<Server>>,
    _: Call<get_media_config_v3::Request>,
) -> Reply<get_media_config_v3::Response> {
    let largest = UInt::new_saturating(server.media.largest());
    Ok(Answer(get_media_config_v3::Response::new(largest)))
}

/// A content, or the part of it that is asked for. Content never changes, so its id is its version too.
async fn answer_part(opened: Opened, asked: &HeaderMap, media_id: &str) -> Result<Response, ApiError> {
    let etag = format!("\"{media_id}\"");
    let size = opened.size;
    let (status, bytes) = match Part::asked(asked, size, &etag) {
        Part::Whole => (StatusCode::OK, 0..size),
        Part::Bytes(bytes) => (StatusCode::PARTIAL_CONTENT, bytes),
        Part::Unsatisfiable => {
            let why = format!("the content has {size} bytes");
            let mut response = plain(StatusCode::RANGE_NOT_SATISFIABLE, "M_UNKNOWN", &why);
            let range = value(&format!("bytes */{size}"))?;
            response.headers_mut().insert(header::CONTENT_RANGE, range);
            return Ok(response);
        }
    };
    let mut headers = describe(&opened)?;
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::ETAG, value(&etag)?);
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes.end - bytes.start));
    if status == StatusCode::PARTIAL_CONTENT {
        let range = format!("bytes {}-{}/{size}", bytes.start, bytes.end - 1);
        headers.insert(header::CONTENT_RANGE, value(&range)?);
    }
    Ok((status, headers, stream(opened, bytes).await?).into_response())
}

/// Bytes of a content, read as they are sent.
async fn stream(opened: Opened, bytes: Range<u64>) -> Result<Body, Refusal> {
    Ok(Body::from_stream(opened.read(bytes).await?))
}

fn value(text: &str) -> Result<HeaderValue, Refusal> {
    HeaderValue::from_str(text).map_err(Refusal::internal)
}

/// The headers of a content, with those that keep it from doing harm in a browser.
fn describe(opened: &Opened) -> Result<HeaderMap, Refusal> {
    let disposition = if opened.is_safe_to_show() {
        ContentDispositionType::Inline
    } else {
        ContentDispositionType::Attachment
    };
    let disposition = ContentDisposition::new(disposition).with_filename(opened.file_name.clone());
    let headers = [
        (header::CONTENT_TYPE, value(&opened.content_type)?),
        (header::CONTENT_LENGTH, HeaderValue::from(opened.size)),
        (header::CONTENT_DISPOSITION, value(&disposition.to_string())?),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(SANDBOX)),
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            HeaderValue::from_static("cross-origin"),
        ),
        (
            header::CACHE_CONTROL,
            HeaderValue::from_static("private, max-age=604800, immutable"),
        ),
    ];
    Ok(headers.into_iter().collect())
}
