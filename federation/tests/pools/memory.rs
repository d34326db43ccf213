//! The same without sockets: links in memory.

use std::{net::SocketAddr, sync::Arc};

use maru_federation::{
    Pool,
    link::{Path, memory::MemoryNetwork},
};
use maru_protocol::wire::{Text, request::media::Media};

use crate::support::{Book, MemoryServer, part, quick, target};

fn start(network: &MemoryNetwork, server: &Arc<MemoryServer>, book: &Book, address: SocketAddr) -> Pool {
    let transport = network.transport(address, server.tls.public_key());
    book.list(server, target(server, address));
    Pool::start(
        server.clone(),
        Arc::new(book.clone()),
        Arc::new(transport),
        quick(),
    )
}

#[tokio::test]
async fn logs_and_answers_flow_in_memory_and_go_on_after_a_restart() {
    let (network, book) = (MemoryNetwork::default(), Book::default());
    let (a, b) = (MemoryServer::new(1), MemoryServer::new(2));
    let addresses = [1, 2].map(|port| SocketAddr::from(([192, 0, 2, 1], port)));
    let to_b = start(&network, &a, &book, addresses[0]);
    let to_a = start(&network, &b, &book, addresses[1]);
    a.append(0..500);
    b.append(0..500);
    to_b.wake(&b.name);
    b.until_received(&a, 500).await;
    a.until_received(&b, 500).await;
    let asked = Media {
        media_id: Text::new("50").unwrap(),
    };
    let (parts, _) = to_b
        .request(&b.name, asked)
        .await
        .unwrap()
        .collect(64 << 20)
        .await
        .unwrap();
    assert_eq!(parts, (0..50).map(part).collect::<Vec<_>>());
    assert_eq!(to_b.peer(&b.name).unwrap().path, Some(Path::Memory));

    to_a.shut_down().await;
    a.append(500..600);
    to_b.wake(&b.name);
    let to_a = start(&network, &b, &book, addresses[1]);
    b.until_received(&a, 600).await;
    tokio::join!(to_a.shut_down(), to_b.shut_down());
}
