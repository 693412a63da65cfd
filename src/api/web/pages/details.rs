//! The pages of a deploy, of an app and of the doctor's findings.

use std::time::Instant;

use axum::body::Body;
use axum::http::{Response, StatusCode};

use super::{Pages, SERVICES, unavailable};
use crate::addon::ResourceTarget;
use crate::addon::id::ResourceId;
use crate::api::web::site::Web;
use crate::control::request::{AddonRefused, AppView, DaemonRequest, ResourceView};
use crate::control::storage::Query;
use crate::dashboard::{DeployPage, DoctorPage, ResourcePage, refusal};
use crate::doctor::RunningDaemon;

impl Pages {
    /// Returns the page of a deploy.
    pub(in crate::api::web) async fn deploy(&self, site: &Web, id: &str) -> Response<Body> {
        let nothing = || {
            let message = "There is no such deploy, or it is forgotten. The page of a service lists its last ones.";
            refusal(StatusCode::NOT_FOUND, "No such deploy", message, SERVICES)
        };
        let Ok(id) = id.parse::<u64>() else { return nothing() };
        // The progress is asked for first, so that a deploy that ends in between is over in the record.
        let views = match self.request(DaemonRequest::Deploys).await {
            Ok(views) => views,
            Err(why) => return unavailable(&why),
        };
        let record = match self.query(|reply| Query::Deploy(id, reply)).await {
            Some(Some(record)) => record,
            Some(None) => return nothing(),
            None => return unavailable("the store does not answer"),
        };
        let may_order = site.token.is_some();
        let progress = views.into_iter().find(|view| view.id == id);
        self.with_reading(move |reading| {
            let page = DeployPage {
                record: &record,
                progress: progress.as_ref(),
                reading,
                may_order,
            };
            page.page().response(StatusCode::OK)
        })
        .await
    }

    /// Returns the page of a resource of the add-on.
    pub(in crate::api::web) async fn app(&self, site: &Web, id: &str) -> Response<Body> {
        let nothing = || {
            let message = "There is no such resource of the add-on, or it was removed.";
            refusal(StatusCode::NOT_FOUND, "No such app", message, SERVICES)
        };
        let Ok(id) = id.parse::<ResourceId>() else {
            return nothing();
        };
        let resource = match self.resource(id).await {
            Ok(resource) => resource,
            Err(Some(why)) => return unavailable(&why),
            Err(None) => return nothing(),
        };
        let name = resource.service.clone();
        let facts = match self.facts(site, &name).await {
            Ok(facts) => facts,
            Err(why) => return unavailable(&why),
        };
        self.written(move || {
            facts.with_page(&name, |service| {
                let resource = &resource;
                ResourcePage { resource, service }.page().response(StatusCode::OK)
            })
        })
        .await
    }

    /// Returns a resource. Fails with `None` if there is none, or with the reason why it is not known.
    async fn resource(&self, id: ResourceId) -> Result<ResourceView, Option<String>> {
        let known = |refused| match refused {
            AddonRefused::Resource(_) => None,
            AddonRefused::Off => Some("the add-on is off".to_owned()),
            AddonRefused::Daemon(_) => Some("the resources are not known".to_owned()),
        };
        let app: Result<AppView, AddonRefused> = self
            .request(|reply| DaemonRequest::AppPage(id, reply))
            .await
            .map_err(Some)?;
        let app = app.map_err(known)?.resource.app.clone();
        let target = ResourceTarget::Any(app);
        let found = self
            .request(|reply| DaemonRequest::ResourceView(target, reply))
            .await
            .map_err(Some)?;
        found.map_err(known)
    }

    /// Returns the findings of the doctor.
    pub(in crate::api::web) async fn doctor(&self, site: &Web) -> Response<Body> {
        let Some(source) = site.diagnosis.clone() else {
            return unavailable("this daemon does not know how to examine its machine");
        };
        let reading = match self.reader.reading(Instant::now()).await {
            Ok(reading) => reading,
            Err(why) => return unavailable(&why),
        };
        let read = move || {
            let node = &reading.node;
            Ok(source(&RunningDaemon {
                pid: Some(node.pid),
                owns_table: node.owns_table,
                in_sync: reading.in_sync,
                problems: &reading.listed_problems,
            }))
        };
        match self.diagnoses.look((), Instant::now(), read).await {
            Ok(diagnosis) => {
                self.written(move || {
                    let diagnosis = &diagnosis;
                    DoctorPage { diagnosis }.page().response(StatusCode::OK)
                })
                .await
            }
            Err(why) => unavailable(&why),
        }
    }
}
