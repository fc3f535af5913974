#!/bin/bash
# Terraform with the AWS provider makes a VPC, roles, logs and a Fargate service, sees no change in a second plan, and
# takes all of it away again. The provider is not installed by anything here: it is looked for in the folders of
# TERRAFORM_PLUGINS (as `terraform providers mirror` fills one) and where Terraform looks by itself.
. "$(dirname "$0")/lib.sh"
cd "$LIB" || exit
PLUGINS=${TERRAFORM_PLUGINS:-/usr/local/share/terraform/plugins}
provider() { compgen -G "$1/registry.terraform.io/hashicorp/aws/*" >/dev/null; }
command -v terraform >/dev/null || { echo "skipped: there is no terraform"; exit 0; }
provider "$PLUGINS" || PLUGINS=/usr/share/terraform/plugins
provider "$PLUGINS" || { echo "skipped: terraform's provider hashicorp/aws is not installed"; exit 0; }

tf() { LIMIT=300 timeout -k 5 300 terraform -chdir="$WORK/tf" "$@" -no-color; }

begin() {
  need_daemon
  load busybox
  check "init" says 'is now a manager' -- docker swarm init --advertise-addr 192.0.2.1 || exit
  eval "$("$TRIPOD" aws-env --data-root "$DATA")"
  export AWS_ENDPOINT_URL AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_DEFAULT_REGION TF_IN_AUTOMATION=1 CHECKPOINT_DISABLE=1
  mkdir "$WORK/tf"
  cat >"$WORK/tf/main.tf" <<'TF'
terraform { required_providers { aws = { source = "hashicorp/aws" } } }
provider "aws" {
  region = "us-east-1"
  skip_metadata_api_check = true
}
data "aws_availability_zones" "all" { state = "available" }
data "aws_caller_identity" "me" {}
resource "aws_vpc" "main" {
  cidr_block = "10.5.0.0/16"
  enable_dns_hostnames = true
  tags = { Name = "main" }
}
resource "aws_subnet" "a" {
  count = 2
  vpc_id = aws_vpc.main.id
  cidr_block = cidrsubnet(aws_vpc.main.cidr_block, 8, count.index)
  availability_zone = data.aws_availability_zones.all.names[count.index]
  map_public_ip_on_launch = true
}
resource "aws_internet_gateway" "out" { vpc_id = aws_vpc.main.id }
resource "aws_route_table" "out" {
  vpc_id = aws_vpc.main.id
  route {
    cidr_block = "0.0.0.0/0"
    gateway_id = aws_internet_gateway.out.id
  }
}
resource "aws_route_table_association" "out" {
  count = 2
  subnet_id = aws_subnet.a[count.index].id
  route_table_id = aws_route_table.out.id
}
resource "aws_security_group" "web" {
  name = "web"
  vpc_id = aws_vpc.main.id
  ingress {
    from_port = 80
    to_port = 80
    protocol = "tcp"
    cidr_blocks = ["0.0.0.0/0"]
  }
  egress {
    from_port = 0
    to_port = 0
    protocol = "-1"
    cidr_blocks = ["0.0.0.0/0"]
  }
}
resource "aws_iam_role" "task" {
  name = "task"
  assume_role_policy = jsonencode({ Version = "2012-10-17", Statement = [{ Effect = "Allow", Action = "sts:AssumeRole", Principal = { Service = "ecs-tasks.amazonaws.com" } }] })
}
resource "aws_iam_role_policy_attachment" "task" {
  role = aws_iam_role.task.name
  policy_arn = "arn:aws:iam::aws:policy/service-role/AmazonECSTaskExecutionRolePolicy"
}
resource "aws_cloudwatch_log_group" "web" {
  name = "/ecs/web"
  retention_in_days = 7
}
resource "aws_ssm_parameter" "word" {
  name = "/web/word"
  type = "String"
  value = "sesame"
}
resource "aws_ecs_cluster" "main" { name = "main" }
resource "aws_ecs_task_definition" "web" {
  family = "web"
  network_mode = "awsvpc"
  requires_compatibilities = ["FARGATE"]
  cpu = "256"
  memory = "512"
  execution_role_arn = aws_iam_role.task.arn
  container_definitions = jsonencode([{
    name = "web", image = "busybox:latest", essential = true, command = ["sleep", "600"]
    secrets = [{ name = "WORD", valueFrom = aws_ssm_parameter.word.name }]
    logConfiguration = { logDriver = "awslogs", options = { "awslogs-group" = aws_cloudwatch_log_group.web.name, "awslogs-region" = "us-east-1", "awslogs-stream-prefix" = "web" } }
  }])
}
resource "aws_ecs_service" "web" {
  name = "web"
  cluster = aws_ecs_cluster.main.id
  task_definition = aws_ecs_task_definition.web.arn
  desired_count = 2
  launch_type = "FARGATE"
  wait_for_steady_state = true
  network_configuration {
    subnets = aws_subnet.a[*].id
    security_groups = [aws_security_group.web.id]
  }
}
output "account" { value = data.aws_caller_identity.me.account_id }
TF
}

walk() {
  step "Apply, plan, destroy"
  check "init" says 'successfully initialized' -- tf init -input=false -plugin-dir="$PLUGINS" || return
  check "apply" says 'Apply complete' -- tf apply -auto-approve || return
  check "the tasks run" json '.services[0].runningCount == 2' -- timeout 60 "$PROJECT/target/venv/bin/aws" --output json ecs describe-services --cluster main --services web
  check "a second plan shows no change" exits 0 -- tf plan -detailed-exitcode
  check "destroy" says 'Destroy complete' -- tf destroy -auto-approve
  soon 30 "no container is left" prints '' -- docker ps -q
}

begin
walk
