#!/bin/bash
# Amazon ECS on one node, with the aws client: definitions, tasks, services, and what docker and the logs show of them.
. "$(dirname "$0")/lib.sh"
cd "$LIB" || exit
PATH=$PATH:$PROJECT/target/venv/bin
command -v aws >/dev/null || { echo "skipped: there is no aws client"; exit 0; }

aws() { timeout -k 5 "${LIMIT:-60}" aws --output json "$@"; }
ecs() { aws ecs "$@"; }
task() { ecs describe-tasks --cluster c --tasks "$1" --query 'tasks[0]'; }
service() { ecs describe-services --cluster c --services web --query 'services[0]'; }
# define FAMILY COMMAND [MORE]: a definition of one container; MORE are further members of the container
define() {
  ecs register-task-definition --family "$1" --network-mode awsvpc --cpu 256 --memory 512 --requires-compatibilities FARGATE --container-definitions \
    "$(jq -n --arg command "$2" --argjson more "${3:-{\}}" '[{name: "main", image: "busybox:latest", command: ["sh", "-c", $command]} + $more]')"
}
# launch FAMILY: runs a task of it; TASK is its identifier
launch() {
  TASK=$(ecs run-task --cluster c --task-definition "$1" --launch-type FARGATE --network-configuration "$NET" --query 'tasks[0].taskArn' --output text)
  TASK=${TASK##*/}
  [[ $TASK =~ ^[0-9a-f]{32}$ ]]
}

begin() {
  need_daemon
  load busybox
  check "init" says 'is now a manager' -- docker swarm init --advertise-addr 192.0.2.1 || exit
  check "aws-env" says '^export AWS_ENDPOINT_URL=http://192\.0\.2\.1:4566$' '^export AWS_ACCESS_KEY_ID=AKIA' -- "$TRIPOD" aws-env --data-root "$DATA" || exit
  eval "$OUT"
  export AWS_ENDPOINT_URL AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_DEFAULT_REGION
}

definitions() {
  step "Clusters and definitions"
  check "a cluster" json '.cluster.status == "ACTIVE"' -- ecs create-cluster --cluster-name c || exit
  check "a wrong name is refused" fails 'InvalidParameterException.*clusterName' -- ecs create-cluster --cluster-name 'a b'
  SUBNET=$(aws ec2 describe-subnets --query 'Subnets[0].SubnetId' --output text)
  NET="awsvpcConfiguration={subnets=[$SUBNET]}"
  check "a definition" json '.taskDefinition.revision == 1' -- define sleeper 'sleep 600'
  check "a size that Fargate has not" fails 'ClientException.*No Fargate configuration exists' -- ecs register-task-definition --family x --network-mode awsvpc --cpu 512 --memory 512 \
    --requires-compatibilities FARGATE --container-definitions '[{"name":"a","image":"busybox"}]'
  check "no image" fails 'ClientException.*Container.image' -- ecs register-task-definition --family x --container-definitions '[{"name":"a","memory":64}]'
  check "FireLens is refused by name" fails 'ClientException.*firelensConfiguration' -- define x true '{"firelensConfiguration":{"type":"fluentbit"}}'
  check "an operation that is not there" fails 'UnsupportedOperation.*CreateTaskSet' -- ecs create-task-set --service s --cluster c --task-definition t
}

tasks() {
  step "Tasks"
  check "a task is started" launch sleeper || return
  soon 30 "it runs" json '.lastStatus == "RUNNING" and .attachments[0].status == "ATTACHED"' -- task "$TASK"
  check "docker shows its container" says "k8s_main_sleeper-$TASK" -- docker ps --format '{{.Names}}'
  local uri; uri=$(docker inspect -f '{{range .Config.Env}}{{println .}}{{end}}' "$(docker ps -q --filter "name=$TASK")" | sed -n 's/^ECS_CONTAINER_METADATA_URI_V4=//p')
  check "the task finds its metadata" json '.Family == "sleeper" and .Containers[0].KnownStatus == "RUNNING"' -- get "$uri/task"
  check "and what it uses" json '.memory_stats.usage > 0' -- get "$uri/stats"
  check "another's secret is none" fails 404 -- get "${uri%/*/*}/0123/4567"
  local eni; eni=$(task "$TASK" | jq -r '.attachments[0].details[] | select(.name == "networkInterfaceId").value')
  check "EC2 shows its interface" json '.NetworkInterfaces[0].Status == "in-use"' -- aws ec2 describe-network-interfaces --network-interface-ids "$eni"
  check "it is told to stop" json '.task.desiredStatus == "STOPPED" and .task.stopCode == "UserInitiated"' -- ecs stop-task --cluster c --task "$TASK" --reason because
  soon 60 "it has stopped" json '.lastStatus == "STOPPED" and .stoppedReason == "because"' -- task "$TASK"
  soon 10 "nothing of it runs" lacks "$TASK" -- docker ps --format '{{.Names}}'
  check "an essential container may not end" eval 'define ends "exit 3" >/dev/null && launch ends'
  soon 30 "the task ends with it" json '.stopCode == "EssentialContainerExited" and .containers[0].exitCode == 3' -- task "$TASK"
  check "an image that is nowhere" eval 'define nowhere true "{\"image\":\"busybox:no-such-tag\"}" >/dev/null && launch nowhere'
  soon 60 "the task cannot start" json '.stopCode == "TaskFailedToStart" and (.stoppedReason | startswith("CannotPullContainerError"))' -- task "$TASK"
}

services() {
  step "Services"
  check "a service" json '.service.events == []' -- ecs create-service --cluster c --service-name web --task-definition sleeper --desired-count 2 --launch-type FARGATE \
    --network-configuration "$NET" --deployment-configuration 'deploymentCircuitBreaker={enable=true,rollback=true}' || return
  soon 60 "it is steady" json '.runningCount == 2 and .deployments[0].rolloutState == "COMPLETED" and (.events[0].message | contains("steady state"))' -- service
  define sleeper 'exit 1' '{"image":"busybox:no-such-tag"}' >/dev/null
  check "a revision that cannot start" json '.service.deployments | length == 2' -- ecs update-service --cluster c --service web --task-definition sleeper:2
  soon 120 "the circuit breaker goes back" json '(.taskDefinition | endswith("sleeper:1")) and (.deployments | length == 1) and any(.events[]; .message | contains("rolling back"))' -- service
  check "two tasks run all the while" json '.runningCount == 2' -- service
  check "it is deleted" json '.service.status == "DRAINING"' -- ecs delete-service --cluster c --service web --force
  soon 60 "its tasks end" json '.taskArns == []' -- ecs list-tasks --cluster c
  soon 90 "so does the cluster" json '.cluster.status == "INACTIVE"' -- ecs delete-cluster --cluster c
}

begin
definitions
tasks
services
