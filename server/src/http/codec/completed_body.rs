//! Bodies that are completed before they are read: what the specification lets clients leave out, or write in an older
//! way, while ruma's types want it.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use ruma::api::error::DeserializationError;
use ruma::api::{IncomingRequest, Metadata};
use serde_json::{Map, Value};

/// What is put into a body.
pub(in crate::http) trait Completion: fmt::Debug + 'static {
    /// Completes the fields of a body; false when nothing is missing.
    fn complete(fields: &mut Map<String, Value>) -> bool;
}

/// A request of type `R` whose body is completed by `C`.
#[derive(Debug)]
pub(in crate::http) struct Completed<R, C> {
    pub(in crate::http) request: R,
    completion: PhantomData<C>,
}

impl<R: Metadata, C> Metadata for Completed<R, C> {
    const METHOD: http::Method = R::METHOD;
    const RATE_LIMITED: bool = R::RATE_LIMITED;
    type Authentication = R::Authentication;
    type PathBuilder = R::PathBuilder;
    const PATH_BUILDER: R::PathBuilder = R::PATH_BUILDER;
}

impl<R: IncomingRequest, C: Completion> IncomingRequest for Completed<R, C> {
    type EndpointError = R::EndpointError;
    type OutgoingResponse = R::OutgoingResponse;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path_args: &[&str],
    ) -> Result<Self, DeserializationError> {
        let body = completed::<C>(request.body());
        let read = R::try_from_http_request_inner(request.map(|_| &*body), path_args);
        read.map(|request| Self {
            request,
            completion: PhantomData,
        })
    }
}

/// A body, completed if it is an object; what else it is, ruma's type judges.
fn completed<C: Completion>(body: &[u8]) -> Cow<'_, [u8]> {
    let Ok(Value::Object(mut fields)) = serde_json::from_slice(body) else {
        return body.into();
    };
    match C::complete(&mut fields) {
        true => Value::Object(fields).to_string().into_bytes().into(),
        false => body.into(),
    }
}
