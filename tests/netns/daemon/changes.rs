//! Changes through the API.
