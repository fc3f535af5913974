"""EC2 through boto3: VPCs and their parts as Terraform makes them, security groups, and traffic that they let through or not."""

import subprocess
import unittest

import _aws
import _lib
from _aws import Base, client, daemon

WAIT = {"Delay": 1, "MaxAttempts": 60}


def setUpModule():
    _aws.start("busybox")


def tearDownModule():
    daemon.stop()


def filters(**values):
    return [{"Name": name.replace("_", "-"), "Values": [value]} for name, value in values.items()]


class Vpcs(Base):
    def setUp(self):
        self.ec2 = client("ec2")

    def test_a_vpc_from_first_to_last(self):
        ec2 = self.ec2
        tags = [{"ResourceType": "vpc", "Tags": [{"Key": "Name", "Value": "main"}]}]
        made = ec2.create_vpc(CidrBlock="10.7.0.0/16", TagSpecifications=tags)["Vpc"]
        vpc = made["VpcId"]
        self.assertEqual((made["State"], made["IsDefault"], made["Tags"]), ("pending", False, [{"Key": "Name", "Value": "main"}]))
        ec2.get_waiter("vpc_available").wait(VpcIds=[vpc], WaiterConfig=WAIT)
        self.assertEqual(ec2.describe_vpcs(Filters=[{"Name": "tag:Name", "Values": ["main"]}])["Vpcs"][0]["VpcId"], vpc)
        self.assertFalse(ec2.describe_vpc_attribute(VpcId=vpc, Attribute="enableDnsHostnames")["EnableDnsHostnames"]["Value"])
        ec2.modify_vpc_attribute(VpcId=vpc, EnableDnsHostnames={"Value": True})
        self.assertTrue(ec2.describe_vpc_attribute(VpcId=vpc, Attribute="enableDnsHostnames")["EnableDnsHostnames"]["Value"])
        main = ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [vpc]}, {"Name": "association.main", "Values": ["true"]}])["RouteTables"]
        self.assertEqual([r["GatewayId"] for r in main[0]["Routes"]], ["local"])
        self.assertEqual(len(ec2.describe_network_acls(Filters=filters(vpc_id=vpc))["NetworkAcls"]), 1)
        default = ec2.describe_security_groups(Filters=filters(vpc_id=vpc, group_name="default"))["SecurityGroups"][0]

        subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.7.1.0/24", AvailabilityZone="us-east-1b")["Subnet"]
        self.assertEqual((subnet["AvailabilityZone"], subnet["MapPublicIpOnLaunch"], subnet["AvailableIpAddressCount"]), ("us-east-1b", False, 251))
        self.fails("InvalidSubnet.Conflict", "conflicts", ec2.create_subnet, VpcId=vpc, CidrBlock="10.7.1.128/25")
        self.fails("InvalidSubnet.Range", "10.8", ec2.create_subnet, VpcId=vpc, CidrBlock="10.8.0.0/24")
        self.fails("InvalidParameterValue", "availabilityZone", ec2.create_subnet, VpcId=vpc, CidrBlock="10.7.2.0/24", AvailabilityZone="us-east-1x")
        ec2.modify_subnet_attribute(SubnetId=subnet["SubnetId"], MapPublicIpOnLaunch={"Value": True})
        self.assertTrue(ec2.describe_subnets(SubnetIds=[subnet["SubnetId"]])["Subnets"][0]["MapPublicIpOnLaunch"])

        gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
        ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
        self.fails("Resource.AlreadyAssociated", "attached", ec2.attach_internet_gateway, InternetGatewayId=gateway, VpcId=vpc)
        table = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
        ec2.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
        association = ec2.associate_route_table(RouteTableId=table, SubnetId=subnet["SubnetId"])["AssociationId"]
        told = ec2.describe_route_tables(RouteTableIds=[table])["RouteTables"][0]
        self.assertEqual([r["GatewayId"] for r in told["Routes"]], [gateway, "local"])
        self.fails("DependencyViolation", "routeTable", ec2.delete_route_table, RouteTableId=table)

        address = ec2.allocate_address(Domain="vpc")["AllocationId"]
        nat = ec2.create_nat_gateway(SubnetId=subnet["SubnetId"], AllocationId=address)["NatGateway"]["NatGatewayId"]
        ec2.get_waiter("nat_gateway_available").wait(NatGatewayIds=[nat], WaiterConfig=WAIT)
        self.fails("InvalidIPAddress.InUse", "in use", ec2.release_address, AllocationId=address)
        ec2.delete_nat_gateway(NatGatewayId=nat)
        ec2.get_waiter("nat_gateway_deleted").wait(NatGatewayIds=[nat], WaiterConfig=WAIT)
        ec2.release_address(AllocationId=address)

        group = ec2.create_security_group(GroupName="web", Description="d", VpcId=vpc)["GroupId"]
        self.fails("DependencyViolation", vpc, ec2.delete_vpc, VpcId=vpc)
        ec2.delete_security_group(GroupId=group)
        self.fails("CannotDelete", "default", ec2.delete_security_group, GroupId=default["GroupId"])
        ec2.disassociate_route_table(AssociationId=association)
        ec2.delete_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0")
        ec2.delete_route_table(RouteTableId=table)
        ec2.detach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
        ec2.delete_internet_gateway(InternetGatewayId=gateway)
        ec2.delete_subnet(SubnetId=subnet["SubnetId"])
        ec2.delete_vpc(VpcId=vpc)
        self.fails("InvalidVpcID.NotFound", vpc, ec2.describe_vpcs, VpcIds=[vpc])
        self.assertEqual(ec2.describe_security_groups(Filters=filters(vpc_id=vpc))["SecurityGroups"], [])

    def test_bad_input(self):
        self.fails("InvalidVpc.Range", "10.0.0.0/8", self.ec2.create_vpc, CidrBlock="10.0.0.0/8")
        self.fails("InvalidParameterValue", "cidrBlock", self.ec2.create_vpc, CidrBlock="ten")
        default = self.ec2.describe_vpcs(Filters=filters(is_default="true"))["Vpcs"][0]["VpcId"]
        self.fails("OperationNotPermitted", default, self.ec2.delete_vpc, VpcId=default)
        self.fails("InvalidParameterValue", "nonsense", self.ec2.describe_vpcs, Filters=filters(nonsense="x"))
        self.fails("UnsupportedOperation", "", self.ec2.run_instances, ImageId="a", MinCount=1, MaxCount=1)

    def test_defaults_can_be_tagged_and_changed(self):
        subnet = self.ec2.describe_subnets()["Subnets"][0]
        self.assertTrue(subnet["DefaultForAz"])
        self.ec2.create_tags(Resources=[subnet["SubnetId"]], Tags=[{"Key": "a", "Value": "b"}])
        self.ec2.modify_subnet_attribute(SubnetId=subnet["SubnetId"], MapPublicIpOnLaunch={"Value": False})
        told = self.ec2.describe_subnets(SubnetIds=[subnet["SubnetId"]])["Subnets"][0]
        self.assertEqual((told["Tags"], told["MapPublicIpOnLaunch"], told["CidrBlock"]), ([{"Key": "a", "Value": "b"}], False, subnet["CidrBlock"]))
        self.assertEqual(len(self.ec2.describe_subnets(Filters=filters(default_for_az="true"))["Subnets"]), 3)
        names = [a["AttributeName"] for a in self.ec2.describe_account_attributes()["AccountAttributes"]]
        self.assertIn("default-vpc", names)
        self.assertEqual([z["ZoneName"] for z in self.ec2.describe_availability_zones()["AvailabilityZones"]], ["us-east-1a", "us-east-1b", "us-east-1c"])


class Traffic(Base):
    """Two tasks, each in a group of its own: what the groups allow passes, and nothing else."""

    @classmethod
    def setUpClass(cls):
        cls.ec2, cls.ecs = client("ec2"), client("ecs")
        cls.ecs.create_cluster(clusterName="c")
        cls.ecs.register_task_definition(
            family="net", networkMode="awsvpc", cpu="256", memory="512", requiresCompatibilities=["FARGATE"],
            containerDefinitions=[{"name": "main", "image": "busybox:latest", "portMappings": [{"containerPort": 8080}],
                                   "command": ["sh", "-c", "mkdir -p /w; echo here >/w/index.html; httpd -p 8080 -h /w; exec httpd -f -p 8081 -h /w"]}])

    def run_task(self, subnet, groups, public="DISABLED"):
        net = {"awsvpcConfiguration": {"subnets": [subnet], "securityGroups": groups, "assignPublicIp": public}}
        task = self.ecs.run_task(cluster="c", taskDefinition="net", launchType="FARGATE", networkConfiguration=net)["tasks"][0]["taskArn"]
        self.addCleanup(self.ecs.stop_task, cluster="c", task=task)
        self.ecs.get_waiter("tasks_running").wait(cluster="c", tasks=[task], WaiterConfig=WAIT)
        task = self.ecs.describe_tasks(cluster="c", tasks=[task])["tasks"][0]
        details = {d["name"]: d["value"] for d in task["attachments"][0]["details"]}
        container = daemon.docker("ps", "-q", "--filter", f"name={task['taskArn'].rsplit('/', 1)[-1]}")
        return task, details, container

    def reaches(self, container, address, port):
        return "yes" in daemon.docker("exec", container, "sh", "-c", f"nc -w 1 {address} {port} </dev/null && echo yes || echo no")

    def pings(self, container, address):
        return "yes" in daemon.docker("exec", container, "sh", "-c", f"ping -c 1 -W 1 {address} >/dev/null 2>&1 && echo yes || echo no")

    def test_groups_are_enforced(self):
        ec2 = self.ec2
        vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
        subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.9.1.0/24")["Subnet"]["SubnetId"]
        front = ec2.create_security_group(GroupName="front", Description="d", VpcId=vpc)["GroupId"]
        back = ec2.create_security_group(GroupName="back", Description="d", VpcId=vpc)["GroupId"]
        elsewhere = ec2.create_security_group(GroupName="elsewhere", Description="d")["GroupId"]
        net = {"awsvpcConfiguration": {"subnets": [subnet], "securityGroups": [elsewhere]}}
        self.fails("InvalidParameterException", "different networks", self.ecs.run_task, cluster="c", taskDefinition="net", launchType="FARGATE", networkConfiguration=net)
        _, _, client_ = self.run_task(subnet, [front])
        task, details, _ = self.run_task(subnet, [back])
        address = details["privateIPv4Address"]
        shown = ec2.describe_network_interfaces(NetworkInterfaceIds=[details["networkInterfaceId"]])["NetworkInterfaces"][0]
        self.assertEqual((shown["VpcId"], shown["SubnetId"], shown["Groups"][0]["GroupId"]), (vpc, subnet, back))
        self.assertEqual(task["availabilityZone"], "us-east-1a")
        self.fails("DependencyViolation", subnet, ec2.delete_subnet, SubnetId=subnet)

        self.assertFalse(self.reaches(client_, address, 8080), "nothing is allowed yet")
        pair = [{"IpProtocol": "tcp", "FromPort": 8080, "ToPort": 8080, "UserIdGroupPairs": [{"GroupId": front}]}]
        ec2.authorize_security_group_ingress(GroupId=back, IpPermissions=pair)
        self.assertTrue(_lib.eventually(5, self.reaches, client_, address, 8080), "the group is allowed")
        self.assertFalse(self.reaches(client_, address, 8081), "another port is not")
        self.assertFalse(self.pings(client_, address), "nor is ICMP")
        echo = [{"IpProtocol": "icmp", "FromPort": 8, "ToPort": -1, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
        ec2.authorize_security_group_ingress(GroupId=back, IpPermissions=echo)
        self.assertTrue(_lib.eventually(5, self.pings, client_, address), "until it is allowed")
        ec2.revoke_security_group_ingress(GroupId=back, IpPermissions=echo)
        self.assertTrue(_lib.eventually(5, lambda: not self.pings(client_, address)), "and revoked again")
        self.fails("DependencyViolation", front, ec2.delete_security_group, GroupId=front)
        ec2.revoke_security_group_ingress(GroupId=back, IpPermissions=pair)
        self.assertTrue(_lib.eventually(5, lambda: not self.reaches(client_, address, 8080)))
        block = [{"IpProtocol": "tcp", "FromPort": 8000, "ToPort": 8090, "IpRanges": [{"CidrIp": "10.9.0.0/16"}]}]
        ec2.authorize_security_group_ingress(GroupId=back, IpPermissions=block)
        self.assertTrue(_lib.eventually(5, self.reaches, client_, address, 8081), "the VPC's block means the tasks of its subnets")
        all_out = [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
        ec2.revoke_security_group_egress(GroupId=front, IpPermissions=all_out)
        self.assertTrue(_lib.eventually(5, lambda: not self.reaches(client_, address, 8081)), "nothing goes out")

    def test_the_default_group_admits_its_own(self):
        subnet = self.ec2.describe_subnets(Filters=filters(default_for_az="true"))["Subnets"][0]["SubnetId"]
        _, details, first = self.run_task(subnet, [])
        _, _, second = self.run_task(subnet, [])
        self.assertTrue(self.reaches(second, details["privateIPv4Address"], 8080))
        other = self.ec2.create_security_group(GroupName="stranger", Description="d")["GroupId"]
        _, _, third = self.run_task(subnet, [other])
        self.assertFalse(self.reaches(third, details["privateIPv4Address"], 8080))

    def test_a_public_address(self):
        subnet = self.ec2.describe_subnets(Filters=filters(default_for_az="true"))["Subnets"][0]["SubnetId"]
        group = self.ec2.create_security_group(GroupName="public", Description="d")["GroupId"]
        rule = [{"IpProtocol": "tcp", "FromPort": 8080, "ToPort": 8080, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
        self.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=rule)
        _, details, _ = self.run_task(subnet, [group], "ENABLED")
        shown = self.ec2.describe_network_interfaces(NetworkInterfaceIds=[details["networkInterfaceId"]])["NetworkInterfaces"][0]
        self.assertEqual(shown["Association"]["PublicIp"], "192.0.2.1")

        def answer():
            return subprocess.run(["ip", "netns", "exec", "outside", "curl", "-sm2", "http://192.0.2.1:8080/"], capture_output=True, text=True).stdout == "here\n"

        self.assertTrue(_lib.eventually(5, answer), "the task answers on the node's address")


if __name__ == "__main__":
    unittest.main(verbosity=2)
