//! One node of a homeserver leads: it speaks with other homeservers, and the others have it do what needs them
//! (`spec/decisions/0008-requests-go-through-the-node-that-leads.md`).
//!
//! | file | what |
//! |---|---|
//! | `leader_link.rs` | the link to the node that leads, as a node that does not uses it |
//! | `follow.rs` | keeps that link while another node leads |
//! | `lead.rs` | begins to lead, and ends it |
//! | `node_requests.rs` | what other nodes ask of this one |
//! | `term.rs` | what ends when this node leads no longer |

pub(super) mod follow;
pub(super) mod lead;
pub(super) mod leader_link;
pub(super) mod node_requests;
pub(super) mod term;
