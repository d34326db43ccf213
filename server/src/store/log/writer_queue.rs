//! What waits for the log's writer, in the order in which it came.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{mpsc, oneshot};

use super::follower::Follower;
use super::unlogged::InTurn;
use super::writer::{Answer, Task};
use super::{Change, HeadTicket};
use crate::observe::metrics;
use crate::store::{CommitLimits, StoreError};

/// A piece of work for the writer.
pub(in crate::store) enum Job {
    /// Stores a change, with others.
    Change(Change, Answer),
    /// Does something in a transaction of its own.
    Task(Task, Answer),
    /// Does something beside the log.
    Unlogged(InTurn),
    /// Has somebody hear of other nodes' commits.
    Follow(Arc<dyn Follower>),
    /// Closes the database.
    Close(oneshot::Sender<()>),
}

/// The jobs that wait.
pub(in crate::store) struct Queue {
    coming: mpsc::Receiver<Job>,
    /// The next ones.
    pub(in crate::store) waiting: VecDeque<Job>,
    /// Bytes of the changes that wait.
    bytes: Arc<AtomicUsize>,
    /// A ticket for each room's head on which changes were built that have been refused, by where its generation is kept.
    refused: HashMap<usize, HeadTicket>,
}

impl Queue {
    pub(in crate::store) fn new(coming: mpsc::Receiver<Job>, bytes: Arc<AtomicUsize>) -> Self {
        Self {
            coming,
            waiting: VecDeque::new(),
            bytes,
            refused: HashMap::new(),
        }
    }

    /// Waits for a job, and takes what else is there, up to `most` of them. False when nothing can come any more.
    pub(in crate::store) async fn fill(&mut self, most: usize) -> bool {
        if self.waiting.is_empty() {
            match self.coming.recv().await {
                Some(job) => self.waiting.push_back(job),
                None => return false,
            }
        }
        while self.waiting.len() < most {
            match self.coming.try_recv() {
                Ok(job) => self.waiting.push_back(job),
                Err(_) => break,
            }
        }
        true
    }

    /// The changes at the front that fit one commit; at least one.
    pub(in crate::store) fn gather(&mut self, limits: CommitLimits) -> Vec<(Change, Answer)> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while let Some(Job::Change(change, _)) = self.waiting.front() {
            let more = change.bytes();
            if !batch.is_empty() && (bytes + more > limits.bytes || batch.len() >= limits.changes) {
                break;
            }
            bytes += more;
            if let Some(Job::Change(change, answer)) = self.waiting.pop_front() {
                batch.push((change, answer));
            }
        }
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        batch
    }

    /// Refuses whatever waits, and whatever comes, for as long as it is polled. None of it has been tried, so nothing of it
    /// is stored. May be dropped at any time.
    pub(in crate::store) async fn refuse(&mut self) -> Infallible {
        let waiting = std::mem::take(&mut self.waiting);
        waiting.into_iter().for_each(|job| self.refuse_one(job));
        loop {
            match self.coming.recv().await {
                Some(job) => self.refuse_one(job),
                None => std::future::pending().await,
            }
        }
    }

    fn refuse_one(&mut self, job: Job) {
        let why = || StoreError::Unavailable("the outcome of a commit before this is unknown".into());
        let answer = match job {
            Job::Change(change, answer) => {
                self.bytes.fetch_sub(change.bytes(), Ordering::Relaxed);
                for ticket in change.tickets {
                    ticket.fail();
                    self.refused.insert(Arc::as_ptr(&ticket.current).addr(), ticket);
                }
                answer
            }
            Job::Task(_, answer) => answer,
            Job::Unlogged(transaction) => return transaction.refuse(why()),
            Job::Close(_) | Job::Follow(_) => return self.waiting.push_back(job),
        };
        metrics::CHANGES_FAILED.add(1);
        let _ = answer.send(Err(why()));
    }

    /// Accepts jobs again once the outcome is known. What has been built in the meantime was built on heads as they were
    /// before the commit of which it was unknown whether it moved them: that is built again.
    pub(in crate::store) fn accept(&mut self) {
        for (_, ticket) in self.refused.drain() {
            ticket.outdate();
        }
    }
}
