//! What a client asks first (client-server API, "API versions").

use ruma::api::client::discovery::get_supported_versions;

use crate::http::codec::extractors::{Answer, Call, Reply};
use crate::http::router::{Endpoints, Routes};

/// The specification versions of which everything that a client switches on by them is here.
const VERSIONS: [&str; 12] = [
    "v1.1", "v1.2", "v1.3", "v1.4", "v1.5", "v1.6", "v1.7", "v1.8", "v1.9", "v1.10", "v1.11", "v1.12",
];

/// What is here of later versions and of what no version has yet, by the names that clients and bridges look for: sliding sync;
/// pings, messages to devices of application services, their devices' keys, and devices that they make and act on.
const FEATURES: [&str; 5] = [
    "org.matrix.simplified_msc3575",
    "fi.mau.msc2659.stable",
    "org.matrix.msc3202",
    "io.element.msc4190",
    "org.matrix.msc4326",
];

pub(in crate::http) fn routes() -> Routes {
    Routes::new().endpoint::<get_supported_versions::Request, _>(supported_versions)
}

async fn supported_versions(
    _: Call<get_supported_versions::Request>,
) -> Reply<get_supported_versions::Response> {
    let versions = VERSIONS.map(str::to_owned).to_vec();
    let mut response = get_supported_versions::Response::new(versions);
    response.unstable_features = FEATURES.map(|name| (name.to_owned(), true)).into();
    Ok(Answer(response))
}
