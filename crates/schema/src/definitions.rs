//! The definitions of the built-in kinds, as the typed library describes them (JSON schema with descriptions).

use serde_json::{Map, Value};
use tripod_model::k8s_openapi::api;
use tripod_model::k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use tripod_model::k8s_openapi::schemars::generate::SchemaSettings;

/// All definitions by their full names (`io.k8s.api.core.v1.Pod`).
///
/// They take some megabytes: built when asked for, and not kept.
pub fn definitions() -> Map<String, Value> {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    macro_rules! roots {
        ($($root:ty),* $(,)?) => { $( let _ = generator.subschema_for::<$root>(); )* };
    }
    roots!(
        api::core::v1::Binding,
        api::core::v1::ConfigMap,
        api::core::v1::Endpoints,
        api::core::v1::Event,
        api::core::v1::LimitRange,
        api::core::v1::Namespace,
        api::core::v1::Node,
        api::core::v1::PersistentVolume,
        api::core::v1::PersistentVolumeClaim,
        api::core::v1::Pod,
        api::core::v1::PodTemplate,
        api::core::v1::ReplicationController,
        api::core::v1::ResourceQuota,
        api::core::v1::Secret,
        api::core::v1::Service,
        api::core::v1::ServiceAccount,
        api::apps::v1::ControllerRevision,
        api::apps::v1::DaemonSet,
        api::apps::v1::Deployment,
        api::apps::v1::ReplicaSet,
        api::apps::v1::StatefulSet,
        api::authentication::v1::SelfSubjectReview,
        api::authentication::v1::TokenRequest,
        api::authentication::v1::TokenReview,
        api::authorization::v1::LocalSubjectAccessReview,
        api::authorization::v1::SelfSubjectAccessReview,
        api::authorization::v1::SelfSubjectRulesReview,
        api::authorization::v1::SubjectAccessReview,
        api::autoscaling::v1::HorizontalPodAutoscaler,
        api::autoscaling::v1::Scale,
        api::autoscaling::v2::HorizontalPodAutoscaler,
        api::batch::v1::CronJob,
        api::batch::v1::Job,
        api::certificates::v1::CertificateSigningRequest,
        api::coordination::v1::Lease,
        api::discovery::v1::EndpointSlice,
        api::events::v1::Event,
    );
    roots!(
        api::flowcontrol::v1::FlowSchema,
        api::flowcontrol::v1::PriorityLevelConfiguration,
        api::networking::v1::IngressClass,
        api::networking::v1::Ingress,
        api::networking::v1::IPAddress,
        api::networking::v1::NetworkPolicy,
        api::networking::v1::ServiceCIDR,
        api::node::v1::RuntimeClass,
        api::policy::v1::Eviction,
        api::policy::v1::PodDisruptionBudget,
        api::rbac::v1::ClusterRole,
        api::rbac::v1::ClusterRoleBinding,
        api::rbac::v1::Role,
        api::rbac::v1::RoleBinding,
        api::resource::v1::DeviceClass,
        api::resource::v1::ResourceClaim,
        api::resource::v1::ResourceClaimTemplate,
        api::resource::v1::ResourceSlice,
        api::scheduling::v1::PriorityClass,
        api::storage::v1::CSIDriver,
        api::storage::v1::CSINode,
        api::storage::v1::CSIStorageCapacity,
        api::storage::v1::StorageClass,
        api::storage::v1::VolumeAttachment,
        api::storage::v1::VolumeAttributesClass,
        meta::DeleteOptions,
        meta::ListMeta,
        meta::Status,
    );
    generator.take_definitions(false)
}

/// `core.v1.Pod` of `io.k8s.api.core.v1.Pod`.
pub fn short_name(full: &str) -> &str {
    const PREFIXES: [&str; 4] = [
        "io.k8s.apimachinery.pkg.apis.",
        "io.k8s.apimachinery.pkg.",
        "io.k8s.api.",
        "io.k8s.",
    ];
    PREFIXES
        .iter()
        .find_map(|prefix| full.strip_prefix(prefix))
        .unwrap_or(full)
}

/// The full name of a definition: the reverse of [`short_name`].
pub fn full_name(short: &str) -> String {
    if short.starts_with("meta.v1.") {
        format!("io.k8s.apimachinery.pkg.apis.{short}")
    } else if ["util.", "runtime.", "api.resource."]
        .iter()
        .any(|p| short.starts_with(p))
    {
        format!("io.k8s.apimachinery.pkg.{short}")
    } else {
        format!("io.k8s.api.{short}")
    }
}
