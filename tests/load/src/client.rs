//! One kept-alive HTTP/1.1 connection, one request at a time.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;

use crate::answer::{Answer, AnswerReader};
use crate::error::LoadError;
use crate::stream::Stream;
use crate::target::Target;

/// No request waits longer than this, long-polls excepted.
const PATIENCE: Duration = Duration::from_secs(120);

/// A connection that is made at the first request and made again when the server has closed it.
#[derive(Debug)]
pub(crate) struct Connection {
    target: Arc<Target>,
    stream: Option<Stream>,
    incoming: BytesMut,
    outgoing: Vec<u8>,
    patience: Duration,
}

/// What is asked of the server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    /// `GET`, `PUT` or `POST`.
    pub(crate) method: &'static str,
    /// Path and query, already encoded.
    pub(crate) path: &'a str,
    /// The access token, if the call needs one.
    pub(crate) token: Option<&'a str>,
    /// A JSON body.
    pub(crate) body: Option<&'a [u8]>,
}

impl Connection {
    /// Nothing is sent yet.
    pub(crate) fn new(target: Arc<Target>) -> Self {
        Self {
            target,
            stream: None,
            incoming: BytesMut::new(),
            outgoing: Vec::new(),
            patience: PATIENCE,
        }
    }

    /// For long-polls: waits this much longer than ordinary requests may take.
    pub(crate) fn wait_longer(&mut self, by: Duration) {
        self.patience = PATIENCE + by;
    }

    /// Sends a request and reads the whole answer, whatever its status.
    ///
    /// A request that may be repeated without harm (by its method or its transaction id) is sent once more if the
    /// server had closed the idle connection.
    pub(crate) async fn call(&mut self, request: Request<'_>) -> Result<Answer, LoadError> {
        let kept = self.stream.is_some();
        let first = self.attempt(request).await;
        if kept
            && request.method != "POST"
            && matches!(first, Err(LoadError::Io { .. } | LoadError::Protocol(_)))
        {
            return self.attempt(request).await;
        }
        first
    }

    async fn attempt(&mut self, request: Request<'_>) -> Result<Answer, LoadError> {
        let exchanged = tokio::time::timeout(self.patience, self.exchange(request)).await;
        let answer = exchanged
            .unwrap_or_else(|_| Err(LoadError::Timeout(format!("{} {}", request.method, request.path))));
        if !matches!(answer, Ok(Answer { keep_alive: true, .. })) {
            self.stream = None;
            self.incoming.clear();
        }
        answer
    }

    async fn exchange(&mut self, request: Request<'_>) -> Result<Answer, LoadError> {
        self.write_request(request)?;
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => none.insert(Stream::connect(&self.target).await?),
        };
        stream.send(&self.outgoing).await?;
        let mut reader = AnswerReader::default();
        loop {
            if let Some(answer) = reader.take(&mut self.incoming)? {
                return Ok(answer);
            }
            let expected = reader.missing(&self.incoming);
            if stream.receive(&mut self.incoming, expected).await? == 0 {
                return reader.end(&mut self.incoming);
            }
        }
    }

    /// Head and body in one buffer, so that they leave in one segment.
    fn write_request(&mut self, request: Request<'_>) -> Result<(), LoadError> {
        let Request {
            method,
            path,
            token,
            body,
        } = request;
        self.outgoing.clear();
        let head = &mut self.outgoing;
        let written = write!(
            head,
            "{method} {path} HTTP/1.1\r\nHost: {}\r\n",
            self.target.authority
        )
        .and_then(|()| token.map_or(Ok(()), |token| write!(head, "Authorization: Bearer {token}\r\n")))
        .and_then(|()| match body {
            Some(body) => {
                write!(
                    head,
                    "Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                    body.len()
                )?;
                head.write_all(body)
            }
            None => head.write_all(b"\r\n"),
        });
        written.map_err(LoadError::io("building a request"))
    }
}
