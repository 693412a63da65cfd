//! Route that changes several services in one request: all of them or none.

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::services::{expected, object, tag};
use crate::api::answers::{BatchAnswer, BatchItemAnswer, ServiceFields};
use crate::api::body::AcceptedMedia;
use crate::api::error::ApiError;
use crate::api::json::json;
use crate::api::limits::MAX_DRAIN;
use crate::api::params::{self, ChangeRequest};
use crate::api::shared::ApiState;
use crate::control::request::{BatchItem, BatchOrder, DaemonRequest, ServiceEdit};
use crate::store::Expect;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BatchBody {
    services: Vec<Item>,
}

/// One of `put`, `patch` and `delete`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Item {
    name: String,
    #[serde(default)]
    revision: Option<u64>,
    #[serde(default)]
    put: Option<Box<RawValue>>,
    #[serde(default)]
    patch: Option<Box<RawValue>>,
    #[serde(default)]
    delete: bool,
}

pub(in crate::api) async fn change(
    State(shared): State<ApiState>,
    ChangeRequest { by, params, headers }: ChangeRequest,
    body: Body,
) -> Result<Response, ApiError> {
    let mut params = params.known(&["take_over", "drain"])?;
    let revision = match expected(&headers, false)? {
        Expect::Revision(revision) => Some(revision),
        _ => None,
    };
    let (take_over, drain) = (params.flag("take_over")?, params.duration("drain", MAX_DRAIN)?);
    let (text, _place) = shared.read(&headers, body, AcceptedMedia::Patch).await?;
    let BatchBody { services } = object(&text)?;
    let items = services.into_iter().enumerate().map(|(at, item)| read(item, at));
    let order = BatchOrder {
        items: items.collect::<Result<_, _>>()?,
        revision,
        take_over,
        drain,
        by,
    };
    let is_conditional = revision.is_some()
        || order
            .items
            .iter()
            .any(|item| matches!(item.expect, Expect::Revision(_) | Expect::Absent));
    let done = shared
        .request(shared.times.order, |reply| DaemonRequest::Batch(order, reply))
        .await?;
    let done = done.map_err(|refused| ApiError::of_order(refused, is_conditional))?;
    let services = done.services.iter().map(|(name, edited)| BatchItemAnswer {
        name: name.to_string(),
        service: edited.service.as_deref().map(ServiceFields::from),
        revision: edited.revision,
        created: edited.created,
        changed: edited.changed,
    });
    let mut response = json(&BatchAnswer {
        revision: done.revision,
        changed: done.changed,
        services: services.collect(),
        warnings: done.warnings,
    });
    tag(&mut response, done.revision);
    Ok(response)
}

fn read(item: Item, at: usize) -> Result<BatchItem, ApiError> {
    let place = |field: &str| format!("services[{at}]{field}");
    let name = params::name(&item.name).map_err(|message| ApiError::invalid(&place(".name"), message))?;
    let bytes = |json: Box<RawValue>| json.get().as_bytes().to_vec();
    let edit = match (item.put, item.patch, item.delete) {
        (Some(put), None, false) => ServiceEdit::Put(bytes(put)),
        (None, Some(patch), false) => ServiceEdit::Patch(bytes(patch)),
        (None, None, true) => ServiceEdit::Delete,
        _ => {
            return Err(ApiError::invalid(
                &place(""),
                "must have one of put, patch and delete (true)",
            ));
        }
    };
    let expect = match (item.revision, &edit) {
        (Some(0), _) => Expect::Absent,
        (Some(revision), _) => Expect::Revision(revision),
        (None, ServiceEdit::Put(_)) => Expect::Anything,
        (None, _) => Expect::Present,
    };
    Ok(BatchItem { name, edit, expect })
}
