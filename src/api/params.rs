//! What a request's query says. A word that is not known is an error: `dryrun=true` must not be an apply.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;

use super::error::ApiError;
use crate::model::duration;

/// The query, decoded.
#[derive(Debug)]
pub(super) struct Params(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let query = Query::<Vec<(String, String)>>::from_request_parts(parts, state).await;
        let Query(pairs) = query.map_err(|error: QueryRejection| ApiError::bad(error.body_text()))?;
        Ok(Self(pairs))
    }
}

impl Params {
    /// Each at most once, and no others.
    pub(super) fn known(self, known: &[&'static str]) -> Result<Known, ApiError> {
        let mut values = BTreeMap::new();
        for (name, value) in self.0 {
            let Some(name) = known.iter().find(|known| **known == name) else {
                let there_are = if known.is_empty() {
                    "there are none here".into()
                } else {
                    format!("known are {}", known.join(", "))
                };
                return Err(ApiError::bad(format!("parameter {name:?} is unknown; {there_are}")));
            };
            if values.insert(*name, value).is_some() {
                return Err(ApiError::bad(format!("parameter {name} is given twice")));
            }
        }
        Ok(Known(values))
    }
}

/// The query, with known names.
#[derive(Debug)]
pub(super) struct Known(BTreeMap<&'static str, String>);

impl Known {
    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    pub(super) fn read<T, E: Display>(
        &mut self,
        name: &str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, ApiError> {
        let Some(text) = self.0.remove(name) else {
            return Ok(None);
        };
        match read(&text) {
            Ok(value) => Ok(Some(value)),
            Err(error) => Err(ApiError::bad(format!("parameter {name}: {text:?} {error}"))),
        }
    }

    pub(super) fn parse<T: FromStr<Err: Display>>(&mut self, name: &str) -> Result<Option<T>, ApiError> {
        self.read(name, str::parse)
    }

    pub(super) fn flag(&mut self, name: &str) -> Result<bool, ApiError> {
        let read = |text: &str| match text {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err("is neither true nor false"),
        };
        Ok(self.read(name, read)?.unwrap_or(false))
    }

    pub(super) fn duration(&mut self, name: &str, most: Duration) -> Result<Option<Duration>, ApiError> {
        self.read(name, |text| match duration::parse(text) {
            Ok(time) if time > most => Err(format!("is more than {}", duration::show(most))),
            other => other.map_err(|error| error.to_string()),
        })
    }
}
