//! Resources of the add-on, for the gateway's operator.

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::de::DeserializeOwned;

use super::services::object;
use crate::addon::id::{PlanName, PlatformId};
use crate::addon::{AddonOutcome, AddonRequest, Dialect, Provision, ResourceTarget};
use crate::api::answers::ResourceAnswer;
use crate::api::body::AcceptedMedia;
use crate::api::error::ApiError;
use crate::api::json::json;
use crate::api::orders::{PlanBody, ProvisionBody};
use crate::api::params::{AppRequest, Params, PathApp};
use crate::api::shared::ApiState;
use crate::control::request::{AddonOrder, DaemonRequest, Peer};

pub(in crate::api) async fn list(State(shared): State<ApiState>, params: Params) -> Result<Response, ApiError> {
    params.known(&[])?;
    let list = shared.request(shared.times.answer, DaemonRequest::Resources).await??;
    Ok(json(&list))
}

pub(in crate::api) async fn one(
    State(shared): State<ApiState>,
    PathApp(app): PathApp,
    params: Params,
) -> Result<Response, ApiError> {
    params.known(&[])?;
    let answer = shared.request(shared.times.answer, |reply| {
        DaemonRequest::ResourceView(ResourceTarget::Any(app), reply)
    });
    Ok(json(&answer.await??))
}

pub(in crate::api) async fn provision(
    State(shared): State<ApiState>,
    request: AppRequest,
    body: Body,
) -> Result<Response, ApiError> {
    let (app, by, ProvisionBody { plan, port }) = shared.of_app(request, body).await?;
    let provision = Provision {
        dialect: Dialect::Local,
        app: app.clone(),
        uuid: None,
        owner: None,
        plan: plan_named(&plan)?.into(),
        port,
        asked: None,
    };
    shared.order(app, AddonRequest::Provision(provision), by).await
}

pub(in crate::api) async fn plan(
    State(shared): State<ApiState>,
    request: AppRequest,
    body: Body,
) -> Result<Response, ApiError> {
    let (app, by, PlanBody { plan }) = shared.of_app(request, body).await?;
    let request = AddonRequest::ChangePlan(ResourceTarget::Any(app.clone()), plan_named(&plan)?.into());
    shared.order(app, request, by).await
}

pub(in crate::api) async fn suspend(State(shared): State<ApiState>, request: AppRequest) -> Result<Response, ApiError> {
    shared.order_about(request, AddonRequest::Suspend).await
}

pub(in crate::api) async fn resume(State(shared): State<ApiState>, request: AppRequest) -> Result<Response, ApiError> {
    shared.order_about(request, AddonRequest::Resume).await
}

pub(in crate::api) async fn remove(State(shared): State<ApiState>, request: AppRequest) -> Result<Response, ApiError> {
    shared.order_about(request, AddonRequest::Deprovision).await
}

fn plan_named(text: &str) -> Result<PlanName, ApiError> {
    text.parse().map_err(|error| ApiError::invalid("plan", error))
}

impl ApiState {
    /// Gives an order that has neither parameters nor a body.
    async fn order_about(
        &self,
        request: AppRequest,
        order: fn(ResourceTarget) -> AddonRequest,
    ) -> Result<Response, ApiError> {
        let AppRequest { by, app, params, .. } = request;
        params.known(&[])?;
        self.order(app.clone(), order(ResourceTarget::Any(app)), by).await
    }

    /// Reads the body of a request about an app. Returns the app, who asks, and the body.
    async fn of_app<T: DeserializeOwned>(
        &self,
        request: AppRequest,
        body: Body,
    ) -> Result<(PlatformId, Peer, T), ApiError> {
        let AppRequest {
            by,
            app,
            params,
            headers,
        } = request;
        params.known(&[])?;
        let (text, _place) = self.read(&headers, body, AcceptedMedia::Json).await?;
        Ok((app, by, object(&text)?))
    }

    /// Gives an order about a resource to the daemon, and returns the resource as it is afterwards.
    async fn order(&self, app: PlatformId, request: AddonRequest, by: Peer) -> Result<Response, ApiError> {
        let order = AddonOrder::new(request, Dialect::Local, by);
        let order = order.map_err(|_| ApiError::failed("the system gave no random numbers; nothing was changed"))?;
        let outcome = self
            .request(self.times.order, |reply| DaemonRequest::Addon(order, reply))
            .await??;
        let (created, changed) = match &outcome {
            AddonOutcome::Created(_) => (true, true),
            AddonOutcome::Changed(_) => (false, true),
            AddonOutcome::Unchanged(_) => (false, false),
            AddonOutcome::Removed(_) => {
                return Ok(json(&ResourceAnswer {
                    resource: None,
                    created: false,
                    changed: true,
                }));
            }
        };
        let answer = self.request(self.times.answer, |reply| {
            DaemonRequest::ResourceView(ResourceTarget::Any(app), reply)
        });
        let resource = Some(answer.await??);
        let mut response = json(&ResourceAnswer {
            resource,
            created,
            changed,
        });
        if created {
            *response.status_mut() = StatusCode::CREATED;
        }
        Ok(response)
    }
}
