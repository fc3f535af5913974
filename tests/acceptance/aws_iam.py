"""IAM and STS through boto3: identities, policies, what they allow, sessions, and the simulator."""

import json
import unittest

import _aws
from _aws import ACCOUNT, Base, client, keys


def setUpModule():
    _aws.start()


def tearDownModule():
    _aws.daemon.stop()


def document(*statements):
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def allow(action, resource="*", **more):
    return {"Effect": "Allow", "Action": action, "Resource": resource, **more}


def trust(principal, **more):
    return document({"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole", **more})


class Identity(Base):
    def setUp(self):
        self.iam = client("iam")
        self.name = self.id().rsplit(".", 1)[-1]

    def user(self, *statements):
        """A new user with these statements; clients for it by service."""
        self.iam.create_user(UserName=self.name)
        if statements:
            self.iam.put_user_policy(UserName=self.name, PolicyName="p", PolicyDocument=document(*statements))
        key = self.iam.create_access_key(UserName=self.name)["AccessKey"]
        return lambda service, region="us-east-1": client(service, region, **keys(key))


class Users(Identity):
    def test_life(self):
        made = self.iam.create_user(UserName=self.name, Path="/a/", Tags=[{"Key": "k", "Value": "v"}])["User"]
        self.assertEqual(made["Arn"], f"arn:aws:iam::{ACCOUNT}:user/a/{self.name}")
        self.fails("EntityAlreadyExists", "already exists", self.iam.create_user, UserName=self.name.upper())
        self.assertEqual(self.iam.get_user(UserName=self.name)["User"]["Tags"], [{"Key": "k", "Value": "v"}])
        key = self.iam.create_access_key(UserName=self.name)["AccessKey"]
        self.iam.update_user(UserName=self.name, NewUserName="renamed", NewPath="/b/")
        self.fails("NoSuchEntity", self.name, self.iam.get_user, UserName=self.name)
        self.assertEqual(client("sts", **keys(key)).get_caller_identity()["Arn"], f"arn:aws:iam::{ACCOUNT}:user/b/renamed")
        self.iam.create_access_key(UserName="renamed")
        self.fails("LimitExceeded", "AccessKeysPerUser", self.iam.create_access_key, UserName="renamed")
        self.iam.update_access_key(UserName="renamed", AccessKeyId=key["AccessKeyId"], Status="Inactive")
        self.fails("InvalidClientTokenId", "", client("sts", **keys(key)).get_caller_identity)
        for k in self.iam.list_access_keys(UserName="renamed")["AccessKeyMetadata"]:
            self.iam.delete_access_key(UserName="renamed", AccessKeyId=k["AccessKeyId"])
        self.iam.delete_user(UserName="renamed")

    def test_pages(self):
        for i in range(7):
            self.iam.create_user(UserName=f"page{i}", Path="/pages/")
        pages = list(self.iam.get_paginator("list_users").paginate(PathPrefix="/pages/", PaginationConfig={"PageSize": 3}))
        self.assertEqual([len(p["Users"]) for p in pages], [3, 3, 1])
        self.assertEqual([u["UserName"] for p in pages for u in p["Users"]], [f"page{i}" for i in range(7)])

    def test_bad_input(self):
        self.fails("ValidationError", "userName", self.iam.create_user, UserName="a b")
        self.fails("NoSuchEntity", "cannot be found", self.iam.delete_user, UserName="nobody")
        self.fails("MalformedPolicyDocument", "", self.iam.create_policy, PolicyName="p", PolicyDocument="{}")
        self.fails("NoSuchEntity", "nowhere", self.iam.create_user, UserName="bounded", PermissionsBoundary=f"arn:aws:iam::{ACCOUNT}:policy/nowhere")


class Groups(Identity):
    def test_members_have_its_policies(self):
        mine = self.user()
        self.iam.create_group(GroupName="g", Path="/p/")
        self.fails("EntityAlreadyExists", "g", self.iam.create_group, GroupName="g")
        self.fails("AccessDenied", "iam:ListGroups", mine("iam").list_groups)
        self.iam.put_group_policy(GroupName="g", PolicyName="p", PolicyDocument=document(allow("iam:ListGroups")))
        self.iam.add_user_to_group(GroupName="g", UserName=self.name)
        self.assertEqual([g["GroupName"] for g in mine("iam").list_groups()["Groups"]], ["g"])
        self.assertEqual([u["UserName"] for u in self.iam.get_group(GroupName="g")["Users"]], [self.name])
        self.assertEqual([g["Arn"] for g in self.iam.list_groups_for_user(UserName=self.name)["Groups"]], [f"arn:aws:iam::{ACCOUNT}:group/p/g"])
        self.fails("DeleteConflict", "remove users", self.iam.delete_group, GroupName="g")
        self.iam.update_group(GroupName="g", NewGroupName="h")
        self.assertEqual([u["UserName"] for u in self.iam.get_group(GroupName="h")["Users"]], [self.name])
        mine("iam").list_groups()
        self.iam.remove_user_from_group(GroupName="h", UserName=self.name)
        self.fails("AccessDenied", "iam:ListGroups", mine("iam").list_groups)
        self.fails("DeleteConflict", "delete policies", self.iam.delete_group, GroupName="h")
        self.iam.delete_group_policy(GroupName="h", PolicyName="p")
        self.iam.attach_group_policy(GroupName="h", PolicyArn="arn:aws:iam::aws:policy/ReadOnlyAccess")
        self.assertEqual(self.iam.list_attached_group_policies(GroupName="h")["AttachedPolicies"][0]["PolicyName"], "ReadOnlyAccess")
        entities = self.iam.list_entities_for_policy(PolicyArn="arn:aws:iam::aws:policy/ReadOnlyAccess")
        self.assertEqual([g["GroupName"] for g in entities["PolicyGroups"]], ["h"])
        self.iam.detach_group_policy(GroupName="h", PolicyArn="arn:aws:iam::aws:policy/ReadOnlyAccess")
        self.iam.delete_group(GroupName="h")


class Policies(Identity):
    def test_versions(self):
        arn = self.iam.create_policy(PolicyName=self.name, PolicyDocument=document(allow("ecs:*")), Description="d")["Policy"]["Arn"]
        for i in range(4):
            self.iam.create_policy_version(PolicyArn=arn, PolicyDocument=document(allow(f"s{i}:*")), SetAsDefault=i == 3)
        self.fails("LimitExceeded", "5 versions", self.iam.create_policy_version, PolicyArn=arn, PolicyDocument=document(allow("x:*")))
        versions = self.iam.list_policy_versions(PolicyArn=arn)["Versions"]
        self.assertEqual([(v["VersionId"], v["IsDefaultVersion"]) for v in versions], [("v5", True), ("v4", False), ("v3", False), ("v2", False), ("v1", False)])
        self.fails("DeleteConflict", "default version", self.iam.delete_policy_version, PolicyArn=arn, VersionId="v5")
        self.fails("DeleteConflict", "more than one version", self.iam.delete_policy, PolicyArn=arn)
        self.assertEqual(self.iam.get_policy_version(PolicyArn=arn, VersionId="v3")["PolicyVersion"]["Document"]["Statement"][0]["Action"], "s1:*")
        self.iam.set_default_policy_version(PolicyArn=arn, VersionId="v2")
        for v in ("v1", "v3", "v4", "v5"):
            self.iam.delete_policy_version(PolicyArn=arn, VersionId=v)
        self.iam.delete_policy(PolicyArn=arn)
        self.fails("NoSuchEntity", "was not found", self.iam.get_policy, PolicyArn=arn)

    def test_resources_and_not(self):
        mine = self.user(
            allow("ecs:*", [f"arn:aws:ecs:*:{ACCOUNT}:cluster/mine-*"]),
            {"Effect": "Deny", "Action": "ecs:DeleteCluster", "Resource": f"arn:aws:ecs:*:{ACCOUNT}:cluster/mine-kept"})
        ecs = mine("ecs")
        ecs.create_cluster(clusterName="mine-a")
        ecs.create_cluster(clusterName="mine-kept")
        self.fails("AccessDeniedException", f"ecs:CreateCluster on resource: arn:aws:ecs:us-east-1:{ACCOUNT}:cluster/other", ecs.create_cluster, clusterName="other")
        self.fails("AccessDeniedException", "explicit deny", ecs.delete_cluster, cluster="mine-kept")
        self.fails("AccessDeniedException", "ecs:ListClusters", ecs.list_clusters)
        ecs.delete_cluster(cluster="mine-a")
        self.iam.put_user_policy(UserName=self.name, PolicyName="p", PolicyDocument=document({"Effect": "Allow", "NotAction": "iam:*", "Resource": "*"}))
        ecs.list_clusters()
        self.fails("AccessDenied", "iam:ListUsers", mine("iam").list_users)

    def test_conditions(self):
        mine = self.user(
            allow("ecs:ListClusters", Condition={"StringEquals": {"aws:RequestedRegion": "eu-west-1"}}),
            allow("ecs:CreateCluster", Condition={"StringEquals": {"aws:RequestTag/team": "red"}, "ForAllValues:StringEquals": {"aws:TagKeys": ["team"]}}),
            allow("ecs:DeleteCluster", Condition={"StringEquals": {"aws:ResourceTag/team": "red"}}),
            allow("ecs:ListTasks", Condition={"ArnEquals": {"ecs:cluster": f"arn:aws:ecs:us-east-1:{ACCOUNT}:cluster/red"}}),
            allow("logs:DescribeLogGroups", Condition={"IpAddress": {"aws:SourceIp": "192.0.2.0/24"}, "DateLessThan": {"aws:CurrentTime": "2100-01-01T00:00:00Z"}}),
            allow("iam:GetUser", "arn:aws:iam::*:user/${aws:username}"))
        ecs = mine("ecs")
        mine("ecs", "eu-west-1").list_clusters()
        self.fails("AccessDeniedException", "ecs:ListClusters", ecs.list_clusters)
        ecs.create_cluster(clusterName="red", tags=[{"key": "team", "value": "red"}])
        self.fails("AccessDeniedException", "", ecs.create_cluster, clusterName="blue", tags=[{"key": "team", "value": "blue"}])
        self.fails("AccessDeniedException", "", ecs.create_cluster, clusterName="blue", tags=[{"key": "team", "value": "red"}, {"key": "x", "value": ""}])
        client("ecs").create_cluster(clusterName="untagged")
        ecs.list_tasks(cluster="red")
        self.fails("AccessDeniedException", "", ecs.list_tasks, cluster="untagged")
        self.fails("AccessDeniedException", "", ecs.delete_cluster, cluster="untagged")
        ecs.delete_cluster(cluster="red")
        mine("logs").describe_log_groups()
        self.assertEqual(mine("iam").get_user()["User"]["UserName"], self.name)
        self.fails("AccessDenied", "iam:GetUser", mine("iam").get_user, UserName="admin")

    def test_names_of_the_other_services(self):
        at = f"us-east-1:{ACCOUNT}"
        client("ssm").put_parameter(Name="/app/a", Value="1", Type="String")
        client("ssm").put_parameter(Name="/other", Value="1", Type="String")
        client("logs").create_log_group(logGroupName="/app")
        arn = client("secretsmanager").create_secret(Name="app-secret", SecretString="x")["ARN"]
        mine = self.user(
            allow("ssm:GetParameter*", f"arn:aws:ssm:{at}:parameter/app/*"), allow("logs:*", f"arn:aws:logs:{at}:log-group:/app:*"),
            allow("secretsmanager:GetSecretValue", f"arn:aws:secretsmanager:{at}:secret:app-??????*"))
        ssm, logs = mine("ssm"), mine("logs")
        self.assertEqual(ssm.get_parameter(Name="/app/a")["Parameter"]["Value"], "1")
        self.fails("AccessDeniedException", ":parameter/other", ssm.get_parameter, Name="/other")
        self.fails("AccessDeniedException", ":parameter/other", ssm.get_parameters, Names=["/app/a", "/other"])
        logs.create_log_stream(logGroupName="/app", logStreamName="s")
        self.fails("AccessDeniedException", "log-group:/none", logs.create_log_group, logGroupName="/none")
        self.assertEqual(mine("secretsmanager").get_secret_value(SecretId="app-secret")["SecretString"], "x")
        self.fails("AccessDeniedException", arn, mine("secretsmanager").delete_secret, SecretId="app-secret")

    def test_policies_of_secrets(self):
        mine, manager = self.user(), client("secretsmanager")
        arn = manager.create_secret(Name="shared", SecretString="x")["ARN"]
        self.fails("AccessDeniedException", arn, mine("secretsmanager").get_secret_value, SecretId="shared")
        policy = {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:user/{self.name}"}, "Action": "secretsmanager:GetSecretValue", "Resource": "*"}
        manager.put_resource_policy(SecretId="shared", ResourcePolicy=document(policy))
        self.assertEqual(mine("secretsmanager").get_secret_value(SecretId="shared")["SecretString"], "x")
        manager.put_resource_policy(SecretId="shared", ResourcePolicy=document({**policy, "Effect": "Deny"}))
        self.iam.put_user_policy(UserName=self.name, PolicyName="all", PolicyDocument=document(allow("*")))
        self.fails("AccessDeniedException", "explicit deny", mine("secretsmanager").get_secret_value, SecretId="shared")

    def test_boundaries(self):
        mine = self.user(allow("*"))
        arn = self.iam.create_policy(PolicyName="bound", PolicyDocument=document(allow("ecs:*")))["Policy"]["Arn"]
        self.iam.put_user_permissions_boundary(UserName=self.name, PermissionsBoundary=arn)
        self.assertEqual(self.iam.get_user(UserName=self.name)["User"]["PermissionsBoundary"]["PermissionsBoundaryArn"], arn)
        mine("ecs").list_clusters()
        self.fails("AccessDenied", "iam:ListUsers", mine("iam").list_users)
        self.fails("DeleteConflict", "attached", self.iam.delete_policy, PolicyArn=arn)
        self.iam.delete_user_permissions_boundary(UserName=self.name)
        mine("iam").list_users()

    def test_passing_roles(self):
        self.iam.create_role(RoleName="passed", Path="/app/", AssumeRolePolicyDocument=_aws.TASKS_TRUST)
        arn = f"arn:aws:iam::{ACCOUNT}:role/app/passed"
        mine = self.user(allow("ecs:*"))
        definition = {"family": "passed", "taskRoleArn": arn, "containerDefinitions": [{"name": "a", "image": "b", "memory": 64}]}
        self.fails("AccessDeniedException", f"iam:PassRole on resource: {arn}", mine("ecs").register_task_definition, **definition)
        condition = {"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}}
        self.iam.put_user_policy(UserName=self.name, PolicyName="pass", PolicyDocument=document(allow("iam:PassRole", f"arn:aws:iam::{ACCOUNT}:role/app/*", Condition=condition)))
        mine("ecs").register_task_definition(**definition)


class Sessions(Identity):
    def assume(self, sts, role, **more):
        return sts.assume_role(RoleArn=f"arn:aws:iam::{ACCOUNT}:role/{role}", RoleSessionName="session", **more)["Credentials"]

    def test_who_may_assume(self):
        mine = self.user()
        user = f"arn:aws:iam::{ACCOUNT}:user/{self.name}"
        for role, principal in [("named", {"AWS": user}), ("account", {"AWS": ACCOUNT}), ("other", {"AWS": f"arn:aws:iam::{ACCOUNT}:user/other"}),
                                ("service", {"Service": "ecs-tasks.amazonaws.com"})]:
            self.iam.create_role(RoleName=role, AssumeRolePolicyDocument=trust(principal))
        self.assume(mine("sts"), "named")
        for role in ("account", "other", "service", "none"):
            self.fails("AccessDenied", "sts:AssumeRole", mine("sts").assume_role, RoleArn=f"arn:aws:iam::{ACCOUNT}:role/{role}", RoleSessionName="session")
        self.iam.put_user_policy(UserName=self.name, PolicyName="p", PolicyDocument=document(allow("sts:AssumeRole", f"arn:aws:iam::{ACCOUNT}:role/account")))
        self.assume(mine("sts"), "account")
        self.iam.update_assume_role_policy(RoleName="named", PolicyDocument=trust({"AWS": user}, Condition={"StringEquals": {"sts:ExternalId": "word"}}))
        self.fails("AccessDenied", "", mine("sts").assume_role, RoleArn=f"arn:aws:iam::{ACCOUNT}:role/named", RoleSessionName="session")
        self.assume(mine("sts"), "named", ExternalId="word")

    def test_sessions_are_held_within_their_policies(self):
        self.iam.create_role(RoleName="wide", AssumeRolePolicyDocument=trust({"AWS": ACCOUNT}), MaxSessionDuration=7200)
        self.iam.attach_role_policy(RoleName="wide", PolicyArn="arn:aws:iam::aws:policy/AdministratorAccess")
        sts = client("sts")
        session = keys(self.assume(sts, "wide", Policy=document(allow("ecs:List*"))))
        client("ecs", **session).list_clusters()
        self.fails("AccessDeniedException", "ecs:CreateCluster", client("ecs", **session).create_cluster, clusterName="x")
        session = keys(self.assume(sts, "wide", PolicyArns=[{"arn": "arn:aws:iam::aws:policy/IAMReadOnlyAccess"}]))
        client("iam", **session).list_users()
        self.fails("AccessDeniedException", "", client("ecs", **session).list_clusters)
        session = keys(self.assume(sts, "wide", DurationSeconds=7200))
        self.fails("ValidationError", "MaxSessionDuration", sts.assume_role, RoleArn=f"arn:aws:iam::{ACCOUNT}:role/wide", RoleSessionName="session", DurationSeconds=7201)
        self.fails("ValidationError", "role chaining", client("sts", **session).assume_role, RoleArn=f"arn:aws:iam::{ACCOUNT}:role/wide", RoleSessionName="session", DurationSeconds=7200)
        self.fails("AccessDenied", "MultiFactorAuthentication", sts.assume_role, RoleArn=f"arn:aws:iam::{ACCOUNT}:role/wide", RoleSessionName="session", SerialNumber="arn:aws:iam::1:mfa/x", TokenCode="123456")

    def test_federation(self):
        mine = self.user(allow("ecs:*"), allow("sts:GetFederationToken"))
        made = mine("sts").get_federation_token(Name="visitor", Policy=document(allow(["ecs:List*", "iam:*"])))
        session = keys(made["Credentials"])
        self.assertEqual(made["FederatedUser"]["Arn"], f"arn:aws:sts::{ACCOUNT}:federated-user/visitor")
        self.assertEqual(client("sts", **session).get_caller_identity()["Arn"], made["FederatedUser"]["Arn"])
        client("ecs", **session).list_clusters()
        self.fails("AccessDeniedException", "", client("ecs", **session).create_cluster, clusterName="x")
        self.fails("AccessDenied", "", client("iam", **session).list_users)
        self.fails("AccessDenied", "session credentials", client("sts", **session).get_session_token)

    def test_session_tokens(self):
        session = client("sts").get_session_token(DurationSeconds=900)["Credentials"]
        self.assertEqual(client("sts", **keys(session)).get_caller_identity()["Arn"], f"arn:aws:iam::{ACCOUNT}:user/admin")
        self.fails("InvalidClientTokenId", "", client("sts", **{**keys(session), "aws_session_token": "wrong"}).get_caller_identity)


class Account(Identity):
    def test_alias_and_passwords(self):
        self.iam.create_account_alias(AccountAlias="tripod")
        self.assertEqual(self.iam.list_account_aliases()["AccountAliases"], ["tripod"])
        self.iam.delete_account_alias(AccountAlias="tripod")
        self.fails("NoSuchEntity", "alias", self.iam.delete_account_alias, AccountAlias="tripod")
        self.fails("NoSuchEntity", "Password Policy", self.iam.get_account_password_policy)
        self.iam.update_account_password_policy(MinimumPasswordLength=12, MaxPasswordAge=30)
        policy = self.iam.get_account_password_policy()["PasswordPolicy"]
        self.assertEqual((policy["MinimumPasswordLength"], policy["ExpirePasswords"], policy["RequireSymbols"]), (12, True, False))
        self.iam.delete_account_password_policy()

    def test_everything_at_once(self):
        self.user(allow("ecs:*"))
        self.iam.create_policy(PolicyName=self.name, PolicyDocument=document(allow("ecs:*")))
        pages = self.iam.get_paginator("get_account_authorization_details").paginate(PaginationConfig={"PageSize": 2})
        users = {u["UserName"]: u for page in pages for u in page["UserDetailList"]}
        self.assertEqual(users[self.name]["UserPolicyList"][0]["PolicyDocument"]["Statement"][0]["Action"], "ecs:*")
        local = self.iam.get_account_authorization_details(Filter=["LocalManagedPolicy"])
        self.assertEqual((local["UserDetailList"], [p["PolicyName"] for p in local["Policies"] if p["PolicyName"] == self.name]), ([], [self.name]))
        self.assertGreaterEqual(self.iam.get_account_summary()["SummaryMap"]["Users"], 2)

    def test_simulation(self):
        self.user(allow("ecs:*", "arn:aws:ecs:*:*:cluster/a"), {"Effect": "Deny", "Action": "ecs:DeleteCluster", "Resource": "*"})
        results = self.iam.simulate_principal_policy(
            PolicySourceArn=f"arn:aws:iam::{ACCOUNT}:user/{self.name}", ActionNames=["ecs:CreateCluster", "ecs:DeleteCluster", "iam:ListUsers"],
            ResourceArns=["arn:aws:ecs:r:1:cluster/a"])["EvaluationResults"]
        self.assertEqual([r["EvalDecision"] for r in results], ["allowed", "explicitDeny", "implicitDeny"])
        conditional = document(allow("s:*", Condition={"StringEquals": {"aws:username": "ann"}}))
        ask = {"PolicyInputList": [conditional], "ActionNames": ["s:Get"]}
        result = self.iam.simulate_custom_policy(**ask)["EvaluationResults"][0]
        self.assertEqual((result["EvalDecision"], result["MissingContextValues"]), ("implicitDeny", ["aws:username"]))
        entries = [{"ContextKeyName": "aws:username", "ContextKeyValues": ["ann"], "ContextKeyType": "string"}]
        self.assertEqual(self.iam.simulate_custom_policy(**ask, ContextEntries=entries)["EvaluationResults"][0]["EvalDecision"], "allowed")
        self.assertEqual(self.iam.get_context_keys_for_custom_policy(PolicyInputList=[conditional])["ContextKeyNames"], ["aws:username"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
