//! Two servers talk over a network that loses, delays, doubles and reorders packets, and for a while passes none: what
//! was said arrives on the other side exactly once.

use std::time::Duration;

use maru_tests::{Engine, Relay, Site, Weather};
use tokio::sync::watch;

use super::talk::Talk;

const USERS_OF_EACH: usize = 4;
const MESSAGES_OF_EACH: usize = 250;

/// For how long nothing passes. The connection may or may not live through it.
const CUT: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_network_only_delays() {
    let [a, b] = [Engine::Sqlite; 2].map(Site::new);
    let ((name_a, address_a), (name_b, address_b)) =
        ((a.name.clone(), a.address), (b.name.clone(), b.address));
    let ways = [Relay::to(address_a, 1).await, Relay::to(address_b, 2).await];
    let servers = [
        a.start(&[(&name_b, ways[1].address())], "").await,
        b.start(&[(&name_a, ways[0].address())], "").await,
    ];
    let talk = Talk::prepare(&servers, USERS_OF_EACH).await;
    let (said, mut progress) = watch::channel(0);
    let all = 2 * USERS_OF_EACH * MESSAGES_OF_EACH;
    let weather = async {
        for (after, weather, lasts) in [
            (all / 8, Weather::STORM, Duration::ZERO),
            (all / 2, Weather::CUT, CUT),
            (all / 2, Weather::STORM, Duration::from_secs(2)),
        ] {
            progress.wait_for(|said| *said >= after).await.unwrap();
            ways.iter().for_each(|way| way.set(weather.clone()));
            tokio::time::sleep(lasts).await;
        }
        ways.iter().for_each(|way| way.set(Weather::CALM));
    };
    let (said, ()) = tokio::join!(talk.speak(MESSAGES_OF_EACH, &said), weather);
    assert_eq!(said.len(), all);
    talk.check_arrived(&said).await;
}
