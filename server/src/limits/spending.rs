//! What every writing endpoint spends, and every frame of a WebSocket. The router finds the row of an endpoint and the
//! extractors spend it before they read the body, so a handler cannot forget it.

use super::Budget;
use super::Budget::{
    AccountChanges, Acknowledgements, ClientRegistrations, DeviceGrants, DirectoryChanges, Events, Invites,
    Joins, Keys, LoginsFromAddress, LoginsToAccount, LoginsToAccountFromAddress, PageForms, Pings, Presence,
    ProfileChanges, ProofsOfDevice, Receipts, RefreshesFromAddress, RegistrationRequests,
    RegistrationsFromAddress, Reports, Rooms, Searches, Settings, SlidingSyncs, ToDevice, Typing, Uploads,
    UserCodes,
};

/// What an endpoint spends.
#[derive(Clone, Copy, Debug)]
pub struct Spending {
    /// The method.
    pub method: &'static str,
    /// The path without the part that names API and version; whole, with its slash, where it has none.
    pub path: &'static str,
    /// What every request spends, once each.
    pub each: &'static [Budget],
    /// What the handler spends besides, by what the request says.
    pub by_content: &'static [Budget],
}

const fn row(method: &'static str, path: &'static str, each: &'static [Budget]) -> Spending {
    and(method, path, each, &[])
}

const fn and(
    method: &'static str,
    path: &'static str,
    each: &'static [Budget],
    by_content: &'static [Budget],
) -> Spending {
    Spending {
        method,
        path,
        each,
        by_content,
    }
}

/// All writing endpoints, and those among the reading ones that cost or tell a stranger something.
pub static ENDPOINTS: &[Spending] = &[
    and(
        "POST",
        "register",
        &[RegistrationRequests],
        &[RegistrationsFromAddress],
    ),
    row("GET", "register/available", &[LoginsFromAddress]),
    row(
        "GET",
        "register/m.login.registration_token/validity",
        &[RegistrationsFromAddress],
    ),
    row(
        "GET",
        "register/org.matrix.msc3231.login.registration_token/validity",
        &[RegistrationsFromAddress],
    ),
    and(
        "POST",
        "login",
        &[LoginsFromAddress],
        &[LoginsToAccountFromAddress, LoginsToAccount],
    ),
    row("POST", "refresh", &[RefreshesFromAddress]),
    row("POST", "/oauth/register", &[ClientRegistrations]),
    and(
        "POST",
        "/oauth/authorize",
        &[PageForms],
        &[
            LoginsFromAddress,
            LoginsToAccountFromAddress,
            LoginsToAccount,
            RegistrationRequests,
            RegistrationsFromAddress,
        ],
    ),
    row("POST", "/oauth/token", &[RefreshesFromAddress]),
    row("POST", "/oauth/revoke", &[RefreshesFromAddress]),
    row("POST", "/oauth/device_authorization", &[DeviceGrants]),
    and(
        "POST",
        "/oauth/device",
        &[PageForms],
        &[
            LoginsFromAddress,
            LoginsToAccountFromAddress,
            LoginsToAccount,
            UserCodes,
        ],
    ),
    and(
        "POST",
        "/account",
        &[PageForms],
        &[
            LoginsFromAddress,
            LoginsToAccountFromAddress,
            LoginsToAccount,
            AccountChanges,
            ProfileChanges,
        ],
    ),
    and("POST", "login/get_token", &[AccountChanges], &[ProofsOfDevice]),
    row("POST", "logout", &[AccountChanges]),
    row("POST", "logout/all", &[AccountChanges]),
    and("POST", "account/password", &[AccountChanges], &[ProofsOfDevice]),
    and("POST", "account/deactivate", &[AccountChanges], &[ProofsOfDevice]),
    and("POST", "delete_devices", &[AccountChanges], &[ProofsOfDevice]),
    and(
        "DELETE",
        "devices/{device_id}",
        &[AccountChanges],
        &[ProofsOfDevice],
    ),
    row("PUT", "devices/{device_id}", &[Settings]),
    row("PUT", "profile/{user_id}/{field}", &[ProfileChanges]),
    row("DELETE", "profile/{user_id}/{field}", &[ProfileChanges]),
    row("PUT", "presence/{user_id}/status", &[Presence]),
    and("POST", "createRoom", &[Rooms], &[Invites, Events]),
    row("POST", "rooms/{room_id}/upgrade", &[Rooms]),
    row("POST", "join/{room_id_or_alias}", &[Joins]),
    row("POST", "rooms/{room_id}/join", &[Joins]),
    row("POST", "knock/{room_id_or_alias}", &[Joins]),
    row("POST", "rooms/{room_id}/invite", &[Invites]),
    row("POST", "rooms/{room_id}/leave", &[Events]),
    row("POST", "rooms/{room_id}/kick", &[Events]),
    row("POST", "rooms/{room_id}/ban", &[Events]),
    row("POST", "rooms/{room_id}/unban", &[Events]),
    row("POST", "rooms/{room_id}/forget", &[Settings]),
    row("PUT", "rooms/{room_id}/send/{event_type}/{txn_id}", &[Events]),
    row("PUT", "rooms/{room_id}/redact/{event_id}/{txn_id}", &[Events]),
    and(
        "PUT",
        "rooms/{room_id}/state/{event_type}",
        &[Events],
        &[Invites, Joins],
    ),
    and(
        "PUT",
        "rooms/{room_id}/state/{event_type}/",
        &[Events],
        &[Invites, Joins],
    ),
    and(
        "PUT",
        "rooms/{room_id}/state/{event_type}/{state_key}",
        &[Events],
        &[Invites, Joins],
    ),
    row(
        "POST",
        "rooms/{room_id}/receipt/{receipt_type}/{event_id}",
        &[Receipts],
    ),
    row("POST", "rooms/{room_id}/read_markers", &[Receipts]),
    row("PUT", "rooms/{room_id}/typing/{user_id}", &[Typing]),
    row("PUT", "directory/room/{room_alias}", &[DirectoryChanges]),
    row("DELETE", "directory/room/{room_alias}", &[DirectoryChanges]),
    row("PUT", "directory/list/room/{room_id}", &[DirectoryChanges]),
    row("POST", "publicRooms", &[Searches]),
    row("POST", "user_directory/search", &[Searches]),
    row("POST", "search", &[Searches]),
    row("POST", "rooms/{room_id}/report/{event_id}", &[Reports]),
    row("POST", "rooms/{room_id}/report", &[Reports]),
    row("POST", "users/{user_id}/report", &[Reports]),
    row("POST", "sync", &[SlidingSyncs]),
    row("PUT", "sendToDevice/{event_type}/{txn_id}", &[ToDevice]),
    row("POST", "keys/upload", &[Keys]),
    row("POST", "room_keys/version", &[Keys]),
    row("PUT", "room_keys/version/{version}", &[Keys]),
    row("DELETE", "room_keys/version/{version}", &[Keys]),
    row("PUT", "room_keys/keys", &[Keys]),
    row("PUT", "room_keys/keys/{room_id}", &[Keys]),
    row("PUT", "room_keys/keys/{room_id}/{session_id}", &[Keys]),
    row("GET", "room_keys/keys", &[Keys]),
    row("DELETE", "room_keys/keys", &[Keys]),
    row("DELETE", "room_keys/keys/{room_id}", &[Keys]),
    row("DELETE", "room_keys/keys/{room_id}/{session_id}", &[Keys]),
    row("POST", "keys/query", &[Keys]),
    row("POST", "keys/claim", &[Keys]),
    and("POST", "keys/device_signing/upload", &[Keys], &[ProofsOfDevice]),
    row("POST", "keys/signatures/upload", &[Keys]),
    row("PUT", "user/{user_id}/account_data/{event_type}", &[Settings]),
    row(
        "PUT",
        "user/{user_id}/rooms/{room_id}/account_data/{event_type}",
        &[Settings],
    ),
    row("PUT", "user/{user_id}/rooms/{room_id}/tags/{tag}", &[Settings]),
    row("DELETE", "user/{user_id}/rooms/{room_id}/tags/{tag}", &[Settings]),
    row("POST", "user/{user_id}/openid/request_token", &[Settings]),
    row("POST", "user/{user_id}/filter", &[Settings]),
    row("PUT", "pushrules/global/{kind}/{rule_id}", &[Settings]),
    row("DELETE", "pushrules/global/{kind}/{rule_id}", &[Settings]),
    row("PUT", "pushrules/global/{kind}/{rule_id}/actions", &[Settings]),
    row("PUT", "pushrules/global/{kind}/{rule_id}/enabled", &[Settings]),
    row("POST", "appservice/{appservice_id}/ping", &[Pings]),
    row("GET", "thirdparty/protocols", &[Searches]),
    row("GET", "thirdparty/protocol/{protocol}", &[Searches]),
    row("GET", "thirdparty/user/{protocol}", &[Searches]),
    row("GET", "thirdparty/location/{protocol}", &[Searches]),
    row("GET", "thirdparty/user", &[Searches]),
    row("GET", "thirdparty/location", &[Searches]),
    row("POST", "upload", &[Uploads]),
    row("POST", "create", &[Uploads]),
    row("PUT", "upload/{server_name}/{media_id}", &[Uploads]),
];

/// The frames that a client may send over a WebSocket, and what each spends.
pub static FRAMES: &[(&str, Budget)] = &[
    ("ack", Acknowledgements),
    ("send", Events),
    ("receipt", Receipts),
    ("typing", Typing),
    ("heartbeat", Presence),
];

/// What an endpoint spends, by its method and its path as it is served.
#[must_use]
pub fn of_endpoint(method: &str, path: &str) -> Option<&'static Spending> {
    let path = without_version(path).unwrap_or(path);
    ENDPOINTS
        .iter()
        .find(|row| row.method == method && row.path == path)
}

/// A path after API and version: `rooms/{room_id}/ban` of `/_matrix/client/v3/rooms/{room_id}/ban`. Unstable versions
/// may have a name of their own behind theirs.
fn without_version(path: &str) -> Option<&str> {
    let (_api, rest) = path.strip_prefix("/_matrix/")?.split_once('/')?;
    let (version, rest) = rest.split_once('/')?;
    match rest.split_once('/') {
        Some((extension, rest)) if version == "unstable" && extension.contains('.') => Some(rest),
        _ => Some(rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_found_whatever_the_version() {
        for path in [
            "/_matrix/client/v3/logout",
            "/_matrix/client/r0/logout",
            "/_matrix/client/unstable/org.example.1/logout",
        ] {
            assert_eq!(
                of_endpoint("POST", path).map(|row| row.path),
                Some("logout"),
                "{path}"
            );
        }
        assert!(of_endpoint("GET", "/_matrix/client/v3/logout").is_none());
        assert!(of_endpoint("POST", "/logout").is_none());
        let signing = of_endpoint("POST", "/_matrix/client/unstable/keys/device_signing/upload");
        assert_eq!(signing.map(|row| row.each), Some(&[Keys][..]));
    }

    #[test]
    fn no_row_stands_twice_and_all_spend_something() {
        for (at, row) in ENDPOINTS.iter().enumerate() {
            assert!(!row.each.is_empty(), "{row:?}");
            let twin = |other: &&Spending| other.method == row.method && other.path == row.path;
            assert!(!ENDPOINTS[at + 1..].iter().any(|other| twin(&other)), "{row:?}");
        }
    }
}
