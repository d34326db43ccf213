//! The frames that a client may send over the WebSocket.

use maru::http::syncing::websocket_frames::ClientFrame;
use serde_json::Value;

/// Reading a frame never panics; what is read is an object with a type that says which frame it is, and a message keeps
/// its content; what is not has a reason.
pub fn websocket_frames(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let frame = match ClientFrame::parse(text) {
        Ok(frame) => frame,
        Err(why) => return assert!(why.len() > 10, "{why:?}"),
    };
    // Numbers beyond every type are passed over where nobody reads them, and are no `Value`.
    let Ok(json) = serde_json::from_str::<Value>(text) else {
        return;
    };
    let (named, content) = match &frame {
        ClientFrame::Ack { .. } => ("ack", None),
        ClientFrame::Send { content, .. } => ("send", content.as_deref()),
        ClientFrame::Typing { .. } => ("typing", None),
        ClientFrame::Receipt { .. } => ("receipt", None),
        ClientFrame::Heartbeat { .. } => ("heartbeat", None),
    };
    assert_eq!(json["type"], named, "{frame:?}");
    if let Some(content) = content {
        let content: Value = serde_json::from_str(content.get()).unwrap();
        assert_eq!(json["content"], content);
    }
}
