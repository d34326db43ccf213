//! What other nodes have learnt of other servers, or were told by the admin: taken up here, and heeded by who has connections.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use maru_protocol::wire::CloseCode;
use ruma::ServerName;

use super::known_servers::KnownServers;
use crate::peers::rpc_client::RpcClient;
use crate::store::StoreError;
use crate::store::log::{Committed, Mirror, Record};

/// Keeps what is known of other servers current with what other nodes store of them.
#[derive(Debug)]
pub(in crate::peers) struct KnownServersMirror {
    servers: Arc<KnownServers>,
    rpc: Arc<RpcClient>,
}

impl KnownServersMirror {
    pub(in crate::peers) fn new(servers: &Arc<KnownServers>, rpc: &Arc<RpcClient>) -> Self {
        Self {
            servers: Arc::clone(servers),
            rpc: Arc::clone(rpc),
        }
    }

    async fn take_up(&self, names: BTreeSet<&ServerName>) -> Result<(), StoreError> {
        for name in names {
            let changed = self.servers.reload(name).await?;
            if changed.root_key {
                self.rpc
                    .disconnect(name, CloseCode::KeyChanged, "another root key is accepted");
            }
            if changed.removed {
                self.rpc.disconnect(name, CloseCode::Done, "removed by the admin");
            }
            if changed.root_key || changed.added {
                self.rpc.wake(name);
            }
        }
        Ok(())
    }
}

impl Mirror for KnownServersMirror {
    fn follow<'f>(&'f self, records: &'f [Committed]) -> BoxFuture<'f, Result<(), StoreError>> {
        let names = records.iter().filter_map(|committed| match &committed.record {
            Record::KnownServer(name) => Some(&**name),
            _ => None,
        });
        Box::pin(self.take_up(names.collect()))
    }
}
