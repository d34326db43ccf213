//! Whether an application service can be reached (Application Service API, "Pinging").

use std::sync::Arc;

use axum::extract::State;
use ruma::api::client::appservice::request_ping::v1 as request_ping;

use crate::appservices::reader_name;
use crate::http::codec::extractors::{Answer, Call, Reply};
use crate::http::router::{Endpoints, Routes};
use crate::server::Server;

pub(in crate::http) fn routes() -> Routes {
    Routes::new().endpoint::<request_ping::Request, _>(ping)
}

async fn ping(
    State(server): State<Arc<Server>>,
    call: Call<request_ping::Request>,
) -> Reply<request_ping::Response> {
    let Call { request, caller } = call;
    let transaction_id = request.transaction_id.map(|id| id.to_string());
    let (service, id) = (&caller, &request.appservice_id);
    let took = server.appservices.ping(service, id, transaction_id).await?;
    // It is there: what waits for it goes out at once.
    server.readers.try_again(&reader_name(id));
    Ok(Answer(request_ping::Response::new(took)))
}
