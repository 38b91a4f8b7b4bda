//! What travels over HTTP: bodies, media types, answers.

pub mod body;
pub mod coalesce;
pub mod compress;
pub mod negotiate;
pub mod respond;

pub use body::Body;
