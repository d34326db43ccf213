//! Messages to a device: given until the device's next cursor acknowledges them.

use maru_protocol::cursor::Position;

use super::Sync;
use crate::accounts::Caller;
use crate::refusal::Refusal;

/// Messages in one answer: as many as may wait for a device, so that none is left behind its cursor.
const MOST_MESSAGES: usize = 10_000;

/// The stored messages of a device between two positions, oldest first.
pub(super) async fn stored(
    sync: &Sync,
    caller: &Caller,
    after: Position,
    up_to: Position,
) -> Result<Vec<String>, Refusal> {
    let messages = sync
        .store
        .to_device(&caller.user_id, &caller.device_id, after, up_to, MOST_MESSAGES)
        .await?;
    Ok(messages.into_iter().map(|(_, json)| json).collect())
}
