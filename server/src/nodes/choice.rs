//! Which node a client is told to use: one that lives, does not stop and says where it is; the nearest, and of those one
//! with little to do.
//!
//! Zones are names of parts joined by `/`, the widest first: `asia/seoul/a`. Two are the nearer the more first parts they
//! have in common.

use std::cmp::Reverse;

use crate::store::nodes::StoredNode;

/// A node that clients may be told to use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its name.
    pub name: String,
    /// The base URL of its client API.
    pub address: String,
    /// Near what it stands.
    pub zone: Option<String>,
    /// How much it has to do, in connections of clients.
    pub load: i64,
    /// How near it is to whom it is for.
    nearness: usize,
}

/// The nodes that somebody near a zone may use, the best first: the nearest, and of those the least loaded. Each node
/// comes with whether it is dead.
pub(super) fn candidates(
    nodes: impl IntoIterator<Item = (StoredNode, bool)>,
    zone: Option<&str>,
) -> Vec<Candidate> {
    let serving = nodes
        .into_iter()
        .filter(|(node, is_dead)| !is_dead && !node.draining);
    let candidate = |(node, _): (StoredNode, bool)| {
        let nearness = nearness(zone, node.zone.as_deref());
        Some(Candidate {
            name: node.name,
            address: node.address?,
            zone: node.zone,
            load: node.load,
            nearness,
        })
    };
    let mut candidates: Vec<_> = serving.filter_map(candidate).collect();
    candidates.sort_by_key(|candidate| (Reverse(candidate.nearness), candidate.load));
    candidates
}

/// The address of one of the nearest: of two taken by chance, the less loaded one. Loads are a second old, and of many
/// who are told at the same moment not all should go to the same node.
pub(super) fn choose(candidates: &[Candidate]) -> Option<String> {
    let nearest = candidates.first()?.nearness;
    let near = candidates.partition_point(|candidate| candidate.nearness == nearest);
    let chosen = rand::random_range(0..near).min(rand::random_range(0..near));
    Some(candidates[chosen].address.clone())
}

/// How many first parts two zones have in common.
fn nearness(one: Option<&str>, other: Option<&str>) -> usize {
    let (Some(one), Some(other)) = (one, other) else {
        return 0;
    };
    let parts = one.split('/').zip(other.split('/'));
    parts.take_while(|(one, other)| one == other).count()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::store::nodes::RunId;

    fn node(name: &str, zone: &str, load: i64) -> StoredNode {
        StoredNode {
            name: name.to_owned(),
            run: RunId(1),
            beat: 1,
            address: Some(format!("https://{name}.example")),
            link: None,
            zone: Some(zone.to_owned()).filter(|zone| !zone.is_empty()),
            load,
            version: String::new(),
            draining: false,
        }
    }

    fn names(nodes: &[StoredNode], zone: Option<&str>) -> String {
        let alive = nodes.iter().map(|node| (node.clone(), false));
        let names = candidates(alive, zone)
            .into_iter()
            .map(|candidate| candidate.name);
        names.collect()
    }

    #[test]
    fn the_nearest_come_first_and_then_the_least_loaded() {
        let nodes = [
            node("a", "asia/seoul/1", 9),
            node("b", "asia/seoul/2", 3),
            node("c", "asia/tokyo/1", 1),
            node("d", "europe", 0),
            node("e", "", 2),
        ];
        assert_eq!(names(&nodes, Some("asia/seoul/1")), "abcde");
        assert_eq!(names(&nodes, Some("asia/seoul/9")), "bacde");
        assert_eq!(names(&nodes, Some("asia/osaka")), "cbade");
        assert_eq!(names(&nodes, Some("europe/rome")), "dceba");
        assert_eq!(names(&nodes, None), "dceba");
        assert_eq!(names(&nodes, Some("as")), "dceba", "parts are whole");
    }

    #[test]
    fn nobody_is_sent_to_who_is_dead_stops_or_has_no_address() {
        let mut nodes = vec![
            (node("a", "", 0), true),
            (node("b", "", 0), false),
            (node("c", "", 0), false),
        ];
        nodes[1].0.draining = true;
        nodes[2].0.address = None;
        assert_eq!(candidates(nodes, None), []);
        assert_eq!(choose(&[]), None);
    }

    #[test]
    fn of_many_most_go_to_the_less_loaded_of_the_nearest_and_not_all() {
        let nodes = [node("a", "x", 5), node("b", "x", 1), node("c", "y", 0)];
        let candidates = candidates(nodes.map(|node| (node, false)), Some("x"));
        let mut counts: HashMap<String, u32> = HashMap::new();
        for _ in 0..4000 {
            *counts.entry(choose(&candidates).unwrap()).or_default() += 1;
        }
        let (a, b) = (counts["https://a.example"], counts["https://b.example"]);
        assert_eq!(a + b, 4000, "{counts:?}");
        // Three of four go to the less loaded one.
        assert!((2800..3200).contains(&b), "{counts:?}");
    }
}
