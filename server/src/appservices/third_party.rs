//! The networks that services know, and who and what is there (Application Service API, "Third-party networks"): what all
//! services answer, together. One that does not answer is left out.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use serde_json::{Map, Value};

use super::Appservices;
use super::service::{Service, encode};

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThirdParty {
    /// Users.
    User,
    /// Rooms.
    Location,
}

impl ThirdParty {
    fn path(self) -> &'static str {
        match self {
            Self::User => "thirdparty/user",
            Self::Location => "thirdparty/location",
        }
    }
}

impl Appservices {
    /// All networks by their names, as their services describe them.
    pub async fn protocols(&self) -> BTreeMap<String, Value> {
        let known = self.services.iter();
        let names: std::collections::BTreeSet<&str> = known
            .flat_map(|service| &service.registration.protocols)
            .map(String::as_str)
            .collect();
        let asked = names
            .into_iter()
            .map(|name| async move { (name, self.protocol(name).await) });
        let answers = join_all(asked).await.into_iter();
        let found = answers.filter_map(|(name, network)| Some((name.to_owned(), network?)));
        found.collect()
    }

    /// A network as its services describe it; where there are several, with the instances of all.
    pub async fn protocol(&self, name: &str) -> Option<Value> {
        let path = format!("thirdparty/protocol/{}", encode(name));
        let mut networks = self
            .ask_all(Some(name), &path)
            .await
            .into_iter()
            .filter_map(object);
        let mut network = networks.next()?;
        for other in networks {
            let Some(Value::Array(more)) = other.get("instances") else {
                continue;
            };
            if let Value::Array(instances) = network
                .entry("instances")
                .or_insert_with(|| Vec::<Value>::new().into())
            {
                instances.extend(more.iter().cloned());
            }
        }
        Some(Value::Object(network))
    }

    /// Users or rooms of a network with these fields.
    pub async fn find_in(
        &self,
        protocol: &str,
        what: ThirdParty,
        fields: &BTreeMap<String, String>,
    ) -> Vec<Value> {
        // The token of who asks may stand among them, and is nobody else's.
        let fields = fields.iter().filter(|(name, _)| *name != "access_token");
        let fields = fields.map(|(name, value)| format!("{}={}", encode(name), encode(value)));
        let fields = fields.collect::<Vec<_>>().join("&");
        let path = format!("{}/{}?{fields}", what.path(), encode(protocol));
        listed(self.ask_all(Some(protocol), &path).await)
    }

    /// Users or rooms of any network that stand behind a Matrix name.
    pub async fn find_behind(&self, what: ThirdParty, name: &str) -> Vec<Value> {
        let field = match what {
            ThirdParty::User => "userid",
            ThirdParty::Location => "alias",
        };
        let path = format!("{}?{field}={}", what.path(), encode(name));
        listed(self.ask_all(None, &path).await)
    }

    /// What the services answer that know a network, or any.
    async fn ask_all(&self, protocol: Option<&str>, path: &str) -> Vec<Value> {
        let is_known = |service: &&std::sync::Arc<Service>| {
            let protocols = &service.registration.protocols;
            protocol.map_or(!protocols.is_empty(), |name| {
                protocols.iter().any(|known| known == name)
            })
        };
        let asked = self
            .services
            .iter()
            .filter(is_known)
            .map(|service| service.get(path));
        join_all(asked).await.into_iter().flatten().collect()
    }
}

fn object(answer: Value) -> Option<Map<String, Value>> {
    match answer {
        Value::Object(fields) => Some(fields),
        _ => None,
    }
}

fn listed(answers: Vec<Value>) -> Vec<Value> {
    let lists = answers.into_iter().filter_map(|answer| match answer {
        Value::Array(list) => Some(list),
        _ => None,
    });
    lists.flatten().collect()
}
