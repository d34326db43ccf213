//! What a service beside the server learns of somebody who hands it a token.

use http::Method;
use maru_tests::user::encode;
use maru_tests::{Reply, TestServer, on_both_engines};
use serde_json::json;

on_both_engines!(a_service_learns_who_somebody_is_and_nothing_else);

async fn who(server: &TestServer, token: &str) -> Reply {
    let path = format!(
        "/_matrix/federation/v1/openid/userinfo?access_token={}",
        encode(token)
    );
    server.request(Method::GET, &path, None).await
}

async fn a_service_learns_who_somebody_is_and_nothing_else(server: TestServer) {
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let path = |id: &str| format!("user/{}/openid/request_token", encode(id));
    let given = alice.post(&path(&alice.id), json!({})).await.ok();
    assert_eq!(given["token_type"], "Bearer");
    assert_eq!(given["matrix_server_name"], server.name());
    assert_eq!(given["expires_in"], 3600);
    let token = given["access_token"].as_str().unwrap();
    assert_eq!(who(&server, token).await.ok(), json!({ "sub": alice.id }));
    alice
        .post(&path(&bob.id), json!({}))
        .await
        .refused(403, "M_FORBIDDEN");
    // It opens nothing here, and an access token is none.
    let as_access_token = server
        .api()
        .request(Method::GET, "account/whoami", Some(token), None)
        .await;
    as_access_token.refused(401, "M_UNKNOWN_TOKEN");
    who(&server, &alice.token).await.refused(401, "M_UNKNOWN_TOKEN");
    who(&server, &token.replace("alice", "bob"))
        .await
        .refused(401, "M_UNKNOWN_TOKEN");
    who(&server, "").await.refused(401, "M_UNKNOWN_TOKEN");
    let without = server
        .request(Method::GET, "/_matrix/federation/v1/openid/userinfo", None)
        .await;
    without.refused(401, "M_MISSING_TOKEN");
    // It outlives a restart, and not its owner's account.
    let server = server.restart().await;
    assert_eq!(who(&server, token).await.ok(), json!({ "sub": alice.id }));
    let alice = alice.on(server.api());
    let closing = json!({ "auth": {
        "type": "m.login.password",
        "identifier": { "type": "m.id.user", "user": alice.id },
        "password": alice.password,
    } });
    alice.post("account/deactivate", closing).await.ok();
    who(&server, token).await.refused(401, "M_UNKNOWN_TOKEN");
}
