//! Policies that AWS itself keeps, as far as they matter for what is served.

/// A policy of AWS.
pub(super) struct Managed {
    /// After `arn:aws:iam::aws:policy`.
    pub(super) path: &'static str,
    pub(super) name: &'static str,
    pub(super) document: &'static str,
}

macro_rules! policy {
    ($path:literal, $name:literal, [$($action:literal),*]) => {
        Managed {
            path: $path,
            name: $name,
            document: concat!(
                "{\"Version\":\"2012-10-17\",\"Statement\":[{\"Effect\":\"Allow\",\"Action\":[",
                $("\"", $action, "\",",)* "\"tripod:None\"],\"Resource\":\"*\"}]}"
            ),
        }
    };
}

pub(super) const MANAGED: &[Managed] = &[
    policy!("/", "AdministratorAccess", ["*"]),
    policy!(
        "/",
        "PowerUserAccess",
        ["ecs:*", "ec2:*", "logs:*", "ssm:*", "secretsmanager:*", "sts:*"]
    ),
    policy!(
        "/",
        "ReadOnlyAccess",
        ["*:Describe*", "*:List*", "*:Get*", "logs:FilterLogEvents"]
    ),
    policy!(
        "/",
        "AmazonECS_FullAccess",
        [
            "ecs:*",
            "ec2:Describe*",
            "iam:ListRoles",
            "iam:PassRole",
            "iam:CreateServiceLinkedRole",
            "logs:CreateLogGroup",
            "logs:DescribeLogGroups",
            "logs:FilterLogEvents"
        ]
    ),
    policy!("/", "AmazonEC2FullAccess", ["ec2:*"]),
    policy!("/", "AmazonEC2ReadOnlyAccess", ["ec2:Describe*"]),
    policy!("/", "IAMFullAccess", ["iam:*"]),
    policy!("/", "IAMReadOnlyAccess", ["iam:Get*", "iam:List*"]),
    policy!("/", "CloudWatchLogsFullAccess", ["logs:*"]),
    policy!(
        "/",
        "CloudWatchLogsReadOnlyAccess",
        [
            "logs:Describe*",
            "logs:Get*",
            "logs:List*",
            "logs:FilterLogEvents"
        ]
    ),
    policy!("/", "AmazonSSMFullAccess", ["ssm:*"]),
    policy!(
        "/",
        "AmazonSSMReadOnlyAccess",
        ["ssm:Describe*", "ssm:Get*", "ssm:List*"]
    ),
    policy!("/", "SecretsManagerReadWrite", ["secretsmanager:*"]),
    policy!(
        "/service-role/",
        "AmazonECSTaskExecutionRolePolicy",
        [
            "ecr:GetAuthorizationToken",
            "ecr:BatchCheckLayerAvailability",
            "ecr:GetDownloadUrlForLayer",
            "ecr:BatchGetImage",
            "logs:CreateLogStream",
            "logs:PutLogEvents"
        ]
    ),
    policy!(
        "/service-role/",
        "AmazonEC2ContainerServiceRole",
        [
            "ec2:AuthorizeSecurityGroupIngress",
            "ec2:Describe*",
            "elasticloadbalancing:*"
        ]
    ),
    policy!(
        "/service-role/",
        "AmazonEC2ContainerServiceforEC2Role",
        [
            "ec2:DescribeTags",
            "ecs:CreateCluster",
            "ecs:DeregisterContainerInstance",
            "ecs:DiscoverPollEndpoint",
            "ecs:Poll",
            "ecs:RegisterContainerInstance",
            "ecs:StartTelemetrySession",
            "ecs:UpdateContainerInstancesState",
            "ecs:Submit*",
            "logs:CreateLogStream",
            "logs:PutLogEvents"
        ]
    ),
    policy!(
        "/service-role/",
        "AmazonEC2ContainerServiceAutoscaleRole",
        [
            "ecs:DescribeServices",
            "ecs:UpdateService",
            "cloudwatch:DescribeAlarms",
            "cloudwatch:PutMetricAlarm"
        ]
    ),
    policy!(
        "/service-role/",
        "AmazonEC2ContainerServiceEventsRole",
        ["ecs:RunTask", "iam:PassRole", "ecs:TagResource"]
    ),
    policy!(
        "/aws-service-role/",
        "AmazonECSServiceRolePolicy",
        [
            "ec2:*NetworkInterface*",
            "ec2:Describe*",
            "elasticloadbalancing:*",
            "servicediscovery:*",
            "logs:*"
        ]
    ),
];

const PREFIX: &str = "arn:aws:iam::aws:policy";

impl Managed {
    pub(super) fn arn(&self) -> String {
        format!("{PREFIX}{}{}", self.path, self.name)
    }
}

/// A policy of AWS by its ARN.
pub(super) fn find(arn: &str) -> Option<&'static Managed> {
    let rest = arn.strip_prefix(PREFIX)?;
    MANAGED.iter().find(|m| rest.strip_prefix(m.path) == Some(m.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arns_find_their_policies_and_documents_are_json() {
        for m in MANAGED {
            assert_eq!(find(&m.arn()).map(|f| f.name), Some(m.name));
            super::super::document(m.document).unwrap();
        }
        assert!(find("arn:aws:iam::aws:policy/Nothing").is_none());
    }
}
