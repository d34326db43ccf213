//! Finding people (client-server API, "User Directory").

use std::sync::Arc;

use axum::extract::State;
use ruma::api::client::user_directory::search_users::v3 as search_users;

use crate::accounts::DirectoryUser;
use crate::http::codec::extractors::{Answer, Call, Reply};
use crate::http::router::{Endpoints, Routes};
use crate::server::Server;

pub(in crate::http) fn routes() -> Routes {
    Routes::new().endpoint::<search_users::Request, _>(search)
}

async fn search(
    State(server): State<Arc<Server>>,
    call: Call<search_users::Request>,
) -> Reply<search_users::Response> {
    let (request, caller) = (call.request, call.caller);
    let limit = request.limit.into();
    let page = server
        .accounts
        .search_users(&caller.user_id, &request.search_term, limit)
        .await?;
    let results = page.users.into_iter().map(shown).collect();
    Ok(Answer(search_users::Response::new(results, page.limited)))
}

/// A found user on the wire.
fn shown(found: DirectoryUser) -> search_users::User {
    let mut user = search_users::User::new(found.user_id);
    user.display_name = found.display_name;
    user.avatar_url = found.avatar_url.map(Into::into);
    user
}
