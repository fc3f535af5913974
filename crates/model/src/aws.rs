//! What AWS users keep beside their clusters: identities, security groups, logs, parameters, secrets.
//!
//! Their names are not Kubernetes names: `metadata.name` is made of region and name (see [`crate::ecs::object_name`]),
//! or is the identifier that AWS gives (`sg-…`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Time;
use crate::object::ObjectMeta;

/// Tags by key.
pub type Tags = BTreeMap<String, String>;

macro_rules! objects {
    ($($(#[$doc:meta])* $name:ident($kind:literal, $resource:literal) $spec:ident {
        $($(#[$field_doc:meta])* $field:ident: $type:ty,)*
    })*) => { $(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
        #[serde(default, rename_all = "camelCase")]
        pub struct $name {
            /// Metadata.
            pub metadata: ObjectMeta,
            /// Content.
            pub spec: $spec,
        }
        crate::kind!($name, "aws.tripod.dev/v1", $kind, $resource, namespaced: false);
        impl $name {
            /// A new one.
            pub fn new(name: impl Into<String>, uid: String, now: Time, spec: $spec) -> Self {
                let metadata =
                    ObjectMeta { name: name.into(), uid, creation_timestamp: Some(now), ..ObjectMeta::default() };
                Self { metadata, spec }
            }
        }
        #[doc = concat!("Content of a ", $kind, ".")]
        #[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
        #[serde(default, rename_all = "camelCase")]
        pub struct $spec { $($(#[$field_doc])* pub $field: $type,)* }
    )* };
}

objects! {
    /// A user.
    User("User", "users.aws.tripod.dev") UserSpec {
        /// Name.
        name: String,
        /// `/` or `/division/`.
        path: String,
        /// `AIDA…`.
        id: String,
        /// Attached managed policies, ARNs.
        attached: Vec<String>,
        /// Inline policies by name.
        inline: BTreeMap<String, String>,
        /// Tags.
        tags: Tags,
        /// ARN of the boundary.
        boundary: String,
        /// Names of its groups.
        groups: Vec<String>,
    }
    /// A group of users.
    Group("Group", "groups.aws.tripod.dev") GroupSpec {
        /// Name.
        name: String,
        /// `/` or `/division/`.
        path: String,
        /// `AGPA…`.
        id: String,
        /// Attached managed policies, ARNs.
        attached: Vec<String>,
        /// Inline policies by name.
        inline: BTreeMap<String, String>,
    }
    /// What is set for the account as a whole; there is one, `account`.
    Account("Account", "accounts.aws.tripod.dev") AccountSpec {
        /// Its alias; empty when it has none.
        alias: String,
        /// `PasswordPolicy` of the API.
        password_policy: Option<Value>,
    }
    /// An access key.
    AccessKey("AccessKey", "accesskeys.aws.tripod.dev") AccessKeySpec {
        /// `AKIA…`, or `ASIA…` of a session.
        id: String,
        /// Secret.
        secret: String,
        /// Name of the user; empty for a session.
        user: String,
        /// Taken out of use.
        inactive: bool,
        /// ARN that a session acts as.
        session_arn: String,
        /// `AROA…:session` of a session.
        session_id: String,
        /// Name of the role of a session.
        session_role: String,
        /// Token that goes with the key of a session.
        token: String,
        /// When a session ends.
        expires: Option<Time>,
        /// Policies that a session is held within.
        session_policies: Vec<String>,
        /// Name of the user whose policies a federated session has.
        session_user: String,
    }
    /// A role.
    Role("Role", "roles.aws.tripod.dev") RoleSpec {
        /// Name.
        name: String,
        /// `/` or `/division/`.
        path: String,
        /// `AROA…`.
        id: String,
        /// Who may assume it, a policy document.
        trust: String,
        /// Description.
        description: Option<String>,
        /// Longest session, seconds.
        max_session: i64,
        /// Attached managed policies, ARNs.
        attached: Vec<String>,
        /// Inline policies by name.
        inline: BTreeMap<String, String>,
        /// Tags.
        tags: Tags,
        /// ARN of the boundary.
        boundary: String,
    }
    /// A managed policy of the account.
    Policy("Policy", "policies.aws.tripod.dev") PolicySpec {
        /// Name.
        name: String,
        /// `/` or `/division/`.
        path: String,
        /// `ANPA…`.
        id: String,
        /// Description.
        description: Option<String>,
        /// Documents by version, `v1` …
        versions: BTreeMap<String, PolicyVersion>,
        /// The version that counts.
        default_version: String,
        /// Number of the next version.
        next: u64,
        /// Tags.
        tags: Tags,
        /// When it last changed.
        updated: Option<Time>,
    }
    /// An instance profile.
    InstanceProfile("InstanceProfile", "instanceprofiles.aws.tripod.dev") InstanceProfileSpec {
        /// Name.
        name: String,
        /// `/` or `/division/`.
        path: String,
        /// `AIPA…`.
        id: String,
        /// Names of roles, at most one.
        roles: Vec<String>,
        /// Tags.
        tags: Tags,
    }
    /// A security group.
    SecurityGroup("SecurityGroup", "securitygroups.aws.tripod.dev") SecurityGroupSpec {
        /// AWS region.
        region: String,
        /// Name, unique in its VPC.
        name: String,
        /// Description.
        description: String,
        /// `vpc-…`.
        vpc: String,
        /// What is let in and out.
        rules: Vec<GroupRule>,
        /// Tags.
        tags: Tags,
    }
    /// A part of the network that users made, or changed: VPC, subnet, route table, gateway, address …
    VpcPart("VpcPart", "vpcparts.aws.tripod.dev") VpcPartSpec {
        /// AWS region.
        region: String,
        /// `vpc`, `subnet` …: the resource type of its tags.
        kind: String,
        /// It, as the API tells it, without its tags.
        content: Value,
    }
    /// Tags of what has no tags in its object (VPCs and their parts).
    ResourceTags("ResourceTags", "resourcetags.aws.tripod.dev") ResourceTagsSpec {
        /// The resource.
        id: String,
        /// Its region.
        region: String,
        /// Tags.
        tags: Tags,
    }
    /// A log group.
    LogGroup("LogGroup", "loggroups.aws.tripod.dev") LogGroupSpec {
        /// AWS region.
        region: String,
        /// Name.
        name: String,
        /// Days that events are kept; 0 for ever.
        retention: i64,
        /// Class, `STANDARD`.
        class: String,
        /// Key.
        kms_key: String,
        /// Tags.
        tags: Tags,
    }
    /// A log stream.
    LogStream("LogStream", "logstreams.aws.tripod.dev") LogStreamSpec {
        /// AWS region.
        region: String,
        /// Name of the group.
        group: String,
        /// Name.
        name: String,
        /// Milliseconds since 1970 of the first event.
        first: Option<i64>,
        /// Milliseconds since 1970 of the last event.
        last: Option<i64>,
        /// Milliseconds since 1970 at which events last came in.
        ingested: Option<i64>,
        /// Number of the chunk that is written to.
        chunk: u64,
        /// Bytes in that chunk.
        bytes: u64,
        /// Number of the oldest chunk that is kept.
        oldest: u64,
        /// Events that came in so far: the next one's number.
        events: u64,
    }
    /// Events of a log stream.
    LogChunk("LogChunk", "logchunks.aws.tripod.dev") LogChunkSpec {
        /// Name of the stream's object.
        stream: String,
        /// Number in the stream.
        number: u64,
        /// In order of coming in.
        events: Vec<LogEvent>,
    }
    /// A parameter.
    Parameter("Parameter", "parameters.aws.tripod.dev") ParameterSpec {
        /// AWS region.
        region: String,
        /// Name.
        name: String,
        /// `String`, `StringList`, `SecureString`.
        kind: String,
        /// Oldest first, at most 100.
        versions: Vec<ParameterVersion>,
        /// Tags.
        tags: Tags,
    }
    /// A secret of the Secrets Manager.
    ManagedSecret("ManagedSecret", "managedsecrets.aws.tripod.dev") ManagedSecretSpec {
        /// AWS region.
        region: String,
        /// Name.
        name: String,
        /// ARN.
        arn: String,
        /// Description.
        description: Option<String>,
        /// Key.
        kms_key: Option<String>,
        /// Versions by identifier.
        versions: BTreeMap<String, SecretVersion>,
        /// When it last changed.
        changed: Option<Time>,
        /// When its deletion was asked for, and when it goes.
        deleted: Option<(Time, Time)>,
        /// Resource policy.
        policy: Option<String>,
        /// Tags.
        tags: Tags,
    }
    /// Settings of an account, by principal (`default` for all).
    AccountSettings("AccountSettings", "accountsettings.aws.tripod.dev") AccountSettingsSpec {
        /// AWS region.
        region: String,
        /// ARN, or `default`.
        principal: String,
        /// Values by name.
        values: BTreeMap<String, String>,
    }
    /// A capacity provider of the user's own.
    CapacityProvider("CapacityProvider", "capacityproviders.aws.tripod.dev") CapacityProviderSpec {
        /// AWS region.
        region: String,
        /// Name.
        name: String,
        /// `autoScalingGroupProvider` of the API.
        group: Value,
        /// Tags.
        tags: Tags,
    }
}

/// A version of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PolicyVersion {
    /// Document.
    pub document: String,
    /// When it was made.
    pub created: Option<Time>,
}

/// A rule of a security group.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GroupRule {
    /// `sgr-…`.
    pub id: String,
    /// Out of the members, not to them.
    pub egress: bool,
    /// `tcp`, `udp`, `icmp`, a number, or `-1` for all.
    pub protocol: String,
    /// First port, or ICMP type; -1 for all.
    pub from: i64,
    /// Last port, or ICMP code; -1 for all.
    pub to: i64,
    /// Peer: an IPv4 block.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cidr: String,
    /// Peer: an IPv6 block.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cidr6: String,
    /// Peer: members of a group.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// Peer: a prefix list.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub prefix_list: String,
    /// Description.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Tags.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: Tags,
}

impl GroupRule {
    /// Whether another rule lets through exactly the same.
    pub fn same(&self, other: &Self) -> bool {
        let key = |r: &Self| {
            (
                r.egress,
                r.protocol.clone(),
                r.from,
                r.to,
                r.cidr.clone(),
                r.cidr6.clone(),
                r.group.clone(),
                r.prefix_list.clone(),
            )
        };
        key(self) == key(other)
    }
}

/// A line of a log.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LogEvent {
    /// Milliseconds since 1970.
    pub at: i64,
    /// Milliseconds since 1970 at which it came in.
    pub ingested: i64,
    /// Number in the stream.
    pub number: u64,
    /// Text.
    pub message: String,
}

/// A version of a parameter.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ParameterVersion {
    /// From 1.
    pub version: i64,
    /// Value.
    pub value: String,
    /// Description.
    pub description: Option<String>,
    /// What values must match.
    pub allowed_pattern: Option<String>,
    /// Key.
    pub key: Option<String>,
    /// Tier.
    pub tier: String,
    /// Data type.
    pub data_type: String,
    /// When.
    pub at: Option<Time>,
    /// ARN of who wrote it.
    pub by: String,
    /// Labels.
    pub labels: Vec<String>,
}

/// A version of a secret.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SecretVersion {
    /// Text.
    pub string: Option<String>,
    /// Bytes, base64.
    pub binary: Option<String>,
    /// `AWSCURRENT` …
    pub stages: Vec<String>,
    /// When.
    pub created: Option<Time>,
}
