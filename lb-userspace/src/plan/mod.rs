//! From [`crate::model::desired::Desired`] and what the maps hold to a [`Plan`], and its application.

pub mod store;
