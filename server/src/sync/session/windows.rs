//! Where a session's windows come from: the user's inbox while that reaches back to the cursor, else the database.

use std::collections::HashSet;
use std::sync::Arc;

use maru_protocol::cursor::SinceToken;
use ruma::OwnedUserId;

use super::Session;
use crate::push::{IGNORED_USERS, ignored_users};
use crate::refusal::Refusal;
use crate::store::accounts::account_data::GLOBAL;
use crate::sync::shown::Shown;
use crate::sync::window::Window;
use crate::sync::{database_window, memory_window};

/// What a user's inbox has of a window.
#[derive(Debug)]
pub(in crate::sync) enum InMemory {
    /// All of it, which is nothing.
    Nothing,
    /// All of it.
    Window(Box<Window>),
    /// Not all: the database must be asked.
    TooLittle,
}

impl Session<'_> {
    /// Whom the user ignores now.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub(in crate::sync) async fn refresh_ignored_users(
        &mut self,
    ) -> Result<Arc<HashSet<OwnedUserId>>, Refusal> {
        self.ignored = self.ignored_users().await?;
        Ok(Arc::clone(&self.ignored))
    }

    /// The window since a cursor; none when there is nothing new.
    pub(super) async fn recent(
        &mut self,
        since: SinceToken,
        now: SinceToken,
    ) -> Result<Option<Window>, Refusal> {
        match self.in_memory(since, now) {
            InMemory::Nothing => {
                self.since = Some(now);
                Ok(None)
            }
            InMemory::Window(window) => Ok(Some(*window)),
            InMemory::TooLittle => self.gathered(Some(since), now).await.map(Some),
        }
    }

    /// What the inbox has since a cursor.
    pub(in crate::sync) fn in_memory(&self, since: SinceToken, now: SinceToken) -> InMemory {
        let ephemeral = now.ephemeral.newest();
        let told = since.ephemeral.of_start_at(ephemeral);
        let Some(fresh) = self.inbox.after(since.position, told, now.position, ephemeral) else {
            return InMemory::TooLittle;
        };
        if fresh.is_empty() {
            return InMemory::Nothing;
        }
        let filter = &self.wish.filter;
        let shown = Shown {
            wanted: &filter.timeline,
            ignored: &self.ignored,
        };
        let window = memory_window::window(
            fresh,
            since.position,
            &self.caller,
            (shown, filter),
            self.sync.rooms.repository.cache(),
        );
        window.map_or(InMemory::TooLittle, |window| InMemory::Window(Box::new(window)))
    }

    /// The window since a cursor, or of all there is, from the database.
    pub(super) async fn gathered(
        &self,
        since: Option<SinceToken>,
        now: SinceToken,
    ) -> Result<Window, Refusal> {
        let told = |since: SinceToken| since.ephemeral.of_start_at(now.ephemeral.newest());
        let passing = since.map(|since| self.sync.notifier.passing_after(told(since)));
        let (position, passing) = (since.map(|since| since.position), passing.unwrap_or_default());
        let Self {
            sync,
            caller,
            wish,
            ignored,
            ..
        } = self;
        let window =
            database_window::window(sync, caller, position, now.position, &passing, wish, ignored).await?;
        if window.until > now.position {
            sync.unanswered
                .answered_before(caller, window.until, &self.inbox)
                .await;
        }
        Ok(window)
    }

    /// Whom the user ignores: read once, and then kept current by the inbox.
    async fn ignored_users(&self) -> Result<Arc<HashSet<OwnedUserId>>, Refusal> {
        if let Some(known) = self.inbox.ignored() {
            return Ok(known);
        }
        let stored = self
            .sync
            .store
            .accounts
            .account_data(&self.caller.user_id, GLOBAL, IGNORED_USERS)
            .await?;
        let read = stored
            .map(|data| ignored_users(&data.content))
            .unwrap_or_default();
        Ok(self.inbox.remember_ignored(read))
    }
}
