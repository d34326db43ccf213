//! Rules about the source that the compiler does not know: what may be where, and that pages and code agree.

mod client_api;
mod endpoints;
mod glossary;
mod layers;
mod limits;
mod order;
mod pages;
mod paths;
pub(crate) mod source;
