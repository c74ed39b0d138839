# The services on Fargate, as a module of its own: table and queues are those of somebody else.

mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  name                     = "broker"
  image                    = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/broker@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
  vpc_id                   = "vpc-1"
  private_subnet_ids       = ["subnet-1", "subnet-2"]
  load_balancer_subnet_ids = ["subnet-3", "subnet-4"]
  private_route_table_ids  = ["rtb-1"]
  certificate_arn          = "arn:aws:acm:eu-central-1:123456789012:certificate/1"
  environment              = { AWS_REGION = "eu-central-1", BROKER_TABLE = "broker", BROKER_PREFIX = "broker" }
  policies                 = { api = "{\"Statement\":[]}", worker = "{\"Statement\":[]}" }
  requests_queue_name      = "broker-requests"
}

# Every `run` starts the provider anew, so one run has many assertions.
run "by_default" {
  module {
    source = "./modules/ecs"
  }

  assert {
    condition     = alltrue([for task in aws_ecs_task_definition.this : jsondecode(task.container_definitions)[0].stopTimeout == 90])
    error_message = "drain_s 60 must give 90."
  }

  assert {
    condition = alltrue([for task in aws_ecs_task_definition.this : (
      jsondecode(task.container_definitions)[0].readonlyRootFilesystem
      && jsondecode(task.container_definitions)[0].user == "65532:65532"
      && jsondecode(task.container_definitions)[0].linuxParameters.capabilities.drop == ["ALL"]
    )])
    error_message = "Containers run without root, without capabilities, on a read-only file system."
  }

  assert {
    condition = (
      jsondecode(aws_ecs_task_definition.this["worker"].container_definitions)[0].mountPoints == [{ sourceVolume = "tmp", containerPath = "/tmp", readOnly = false }]
      && [for volume in aws_ecs_task_definition.this["worker"].volume : volume.name] == ["tmp"]
      && length(aws_ecs_task_definition.this["api"].volume) == 0
    )
    error_message = "A worker keeps the lists of a sync in /tmp, which must be writable there."
  }

  assert {
    condition     = [for secret in jsondecode(aws_ecs_task_definition.this["api"].container_definitions)[0].secrets : secret.name] == ["BROKER_ADMIN_TOKENS", "BROKER_TRACK_TOKENS"]
    error_message = "The API's tokens must come from secrets."
  }

  assert {
    condition     = jsondecode(aws_ecs_task_definition.this["worker"].container_definitions)[0].secrets == []
    error_message = "A worker needs no token of ours."
  }

  assert {
    condition     = !strcontains(aws_iam_role_policy.execution["worker"].policy, "secretsmanager")
    error_message = "A worker that has no secret must not read any."
  }

  assert {
    condition     = alltrue([for task in aws_ecs_task_definition.this : length([for variable in jsondecode(task.container_definitions)[0].environment : variable if strcontains(variable.name, "TOKEN")]) == 0])
    error_message = "A token in plain text."
  }

  assert {
    condition     = local.backlog_expression == "(visible + inflight) / IF(running > 1, running, 1)"
    error_message = "infra/check/scaling.py evaluates the expression against the rule; change both on purpose."
  }

  assert {
    condition     = aws_appautoscaling_policy.backlog[0].target_tracking_scaling_policy_configuration[0].target_value == 100
    error_message = "100 messages a worker by default."
  }

  assert {
    condition     = aws_appautoscaling_target.this["worker"].min_capacity == 2 && aws_appautoscaling_target.this["worker"].max_capacity == 10
    error_message = "2 to 10 workers by default."
  }

  assert {
    condition     = one([for rule in aws_wafv2_web_acl.this[0].rule : rule.statement[0].rate_based_statement[0].limit if rule.name == "flood"]) >= 300000
    error_message = "1,000 requests a second are 300,000 in five minutes."
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.scale_on_age[0].threshold == 5
    error_message = "From 5 s on."
  }

  assert {
    condition     = alltrue([for step in aws_appautoscaling_policy.oldest_age[0].step_scaling_policy_configuration[0].step_adjustment : step.scaling_adjustment >= 2])
    error_message = "Two workers at least per step."
  }

  assert {
    condition     = length(aws_vpc_endpoint.interface) == 0 && length(aws_vpc_endpoint.gateway) == 0 && length(aws_security_group.endpoints) == 0
    error_message = "Off by default: private DNS of an endpoint concerns the whole VPC."
  }
}

run "with_everything_set" {
  command = plan

  module {
    source = "./modules/ecs"
  }

  variables {
    drain_s = 90
    api     = { cpu = 4096, memory = 8192 }
    worker  = { cpu = 256 }
    scheduled_scaling = {
      class_begins = { schedule = "cron(45 8 ? * MON-FRI *)", timezone = "Europe/Berlin", min_tasks = 8 }
      class_ends   = { schedule = "cron(0 11 ? * MON-FRI *)", timezone = "Europe/Berlin", min_tasks = 2 }
      api_begins   = { service = "api", schedule = "cron(45 8 ? * MON-FRI *)", timezone = "Europe/Berlin", min_tasks = 4 }
    }
    provider_cidrs       = ["198.51.100.0/24"]
    provider_ports       = [443, 8443]
    hook_cidrs           = ["198.51.100.0/24", "10.1.2.0/24"]
    hook_ports           = [443, 8443]
    otlp_endpoint        = "http://collector.internal:4318"
    otlp_cidrs           = ["10.20.0.0/16"]
    kms_key_arn          = "arn:aws:kms:eu-central-1:123456789012:key/1"
    create_vpc_endpoints = true
    vpc_cidr_blocks      = ["10.20.0.0/16", "10.21.0.0/16"]
  }

  assert {
    condition     = local.stop_timeout_s > local.lame_duck_s + var.drain_s && local.stop_timeout_s <= 120
    error_message = "ECS must wait longer than the drain lasts, and Fargate waits 120 s at most."
  }

  assert {
    condition     = local.environment.BROKER_DRAIN_S == "90" && tonumber(aws_lb_target_group.api.deregistration_delay) == local.lame_duck_s + 90
    error_message = "Process and load balancer must drain as long as is said."
  }

  assert {
    condition     = alltrue([for service in [aws_ecs_service.api, aws_ecs_service.worker] : service.deployment_minimum_healthy_percent == 100])
    error_message = "A deployment must never run fewer tasks than are wanted."
  }

  assert {
    condition     = local.environments.api.BROKER_THREADS == "4" && local.environments.worker.BROKER_THREADS == "1"
    error_message = "Threads must follow from the CPUs of each task."
  }

  assert {
    condition     = aws_appautoscaling_scheduled_action.this["class_begins"].scalable_target_action[0].min_capacity == "8" && aws_appautoscaling_scheduled_action.this["class_begins"].scalable_target_action[0].max_capacity == "10"
    error_message = "The least number rises, the most stays unless it is given."
  }

  assert {
    condition     = aws_appautoscaling_scheduled_action.this["api_begins"].resource_id == "service/broker/api"
    error_message = "Each service has its own."
  }

  assert {
    condition     = toset(keys(aws_vpc_security_group_egress_rule.https)) == toset(["api 0.0.0.0/0", "worker 0.0.0.0/0", "worker 198.51.100.0/24", "worker 10.1.2.0/24"])
    error_message = "The provider's addresses must not narrow those of AWS, and an API calls neither the provider nor hooks."
  }

  assert {
    condition     = [for rule in aws_vpc_security_group_egress_rule.provider : rule.to_port] == [8443]
    error_message = "The provider's own port."
  }

  assert {
    condition     = keys(aws_vpc_security_group_egress_rule.hooks) == ["8443 10.1.2.0/24"]
    error_message = "Hooks are reached at their ports, each by one rule: AWS refuses a second one."
  }

  assert {
    condition     = length(aws_vpc_security_group_egress_rule.otlp) == 2 && alltrue([for rule in aws_vpc_security_group_egress_rule.otlp : rule.to_port == 4318])
    error_message = "Both services send traces to the port of the URL."
  }

  assert {
    condition     = local.environment.BROKER_OTLP_ENDPOINT == "http://collector.internal:4318"
    error_message = "The processes must know where."
  }

  assert {
    condition = (
      alltrue([for secret in aws_secretsmanager_secret.this : secret.kms_key_id == var.kms_key_arn])
      && alltrue([for group in aws_cloudwatch_log_group.this : group.kms_key_id == var.kms_key_arn])
    )
    error_message = "Secrets and logs."
  }

  assert {
    condition     = toset([for rule in aws_vpc_security_group_ingress_rule.endpoints : rule.cidr_ipv4]) == toset(["10.20.0.0/16", "10.21.0.0/16"])
    error_message = "Neighbours of the tasks use the same endpoints: all of the VPC must be admitted."
  }
}

run "what_the_data_says_is_not_said_again" {
  command = plan

  module {
    source = "./modules/ecs"
  }

  variables {
    environment = { AWS_REGION = "eu-central-1", BROKER_TABLE = "broker", BROKER_PREFIX = "broker", BROKER_SYNC_EVERY_S = "1800" }
    settings    = { BROKER_SYNC_EVERY_S = "600" }
  }

  expect_failures = [var.settings]
}

run "paused_means_zero" {
  command = plan

  module {
    source = "./modules/ecs"
  }

  variables {
    paused = true
  }

  assert {
    condition     = alltrue([for target in aws_appautoscaling_target.this : target.min_capacity == 0 && target.max_capacity == 0])
    error_message = "Both services must go to zero."
  }
}

run "without_autoscaling_nothing_of_it_is_made" {
  command = plan

  module {
    source = "./modules/ecs"
  }

  variables {
    autoscaling = false
  }

  assert {
    condition     = length(aws_appautoscaling_target.this) == 0 && length(aws_cloudwatch_metric_alarm.scale_on_age) == 0
    error_message = "No target, no policy, no alarm that scales."
  }
}

run "what_exists_is_used" {
  module {
    source = "./modules/ecs"
  }

  variables {
    cluster                  = { name = "shared", arn = "arn:aws:ecs:eu-central-1:123456789012:cluster/shared" }
    load_balancer            = { listener_arn = "arn:aws:elasticloadbalancing:eu-central-1:123456789012:listener/app/shared/1/1", security_group_id = "sg-lb", arn_suffix = "app/shared/1", hosts = ["broker.example.org"], priority = 40, admin = { listener_arn = "arn:aws:elasticloadbalancing:eu-central-1:123456789012:listener/app/shared/1/2" } }
    security_group_ids       = { api = "sg-api", worker = "sg-worker" }
    log_group_names          = { api = "/shared/api", worker = "/shared/worker" }
    role_path                = "/teams/labs/"
    permissions_boundary_arn = "arn:aws:iam::123456789012:policy/boundary"
    certificate_arn          = null
    load_balancer_subnet_ids = []
  }

  assert {
    condition = (
      length(aws_ecs_cluster.this) + length(aws_lb.this) + length(aws_lb_listener.https) + length(aws_lb_listener.http) + length(aws_security_group.task)
      + length(aws_security_group.load_balancer) + length(aws_cloudwatch_log_group.this) + length(aws_wafv2_web_acl.this) == 0
    )
    error_message = "Nothing that exists is made again."
  }

  assert {
    condition     = aws_ecs_service.api.name == "broker-api" && aws_ecs_service.worker.name == "broker-worker" && aws_ecs_service.api.cluster == var.cluster.arn
    error_message = "In a shared cluster the services' names carry the prefix."
  }

  assert {
    condition     = aws_appautoscaling_target.this["worker"].resource_id == "service/shared/broker-worker" && local.backlog_metrics.running.dimensions == { ClusterName = "shared", ServiceName = "broker-worker" }
    error_message = "Autoscaling must find the services."
  }

  assert {
    condition     = one(aws_ecs_service.api.network_configuration).security_groups == toset(["sg-api"])
    error_message = "The given groups."
  }

  assert {
    condition     = alltrue([for role in concat(values(aws_iam_role.task), values(aws_iam_role.execution)) : role.path == "/teams/labs/" && role.permissions_boundary == var.permissions_boundary_arn])
    error_message = "Path and boundary must reach every role."
  }

  assert {
    condition     = strcontains(aws_iam_role_policy.execution["api"].policy, "arn:aws:logs:eu-central-1:123456789012:log-group:/shared/api:*")
    error_message = "Logs go to the given groups."
  }

  assert {
    condition     = aws_lb_listener_rule.no_metrics_shared[0].priority < aws_lb_listener_rule.api[0].priority
    error_message = "Metrics must be refused before the rest is forwarded."
  }

  assert {
    condition = (
      length(aws_lb_listener.admin) == 0 && aws_lb_listener_rule.admin[0].listener_arn == var.load_balancer.admin.listener_arn
      && toset([for balancer in aws_ecs_service.api.load_balancer : balancer.container_port]) == toset([8080, 8081])
    )
    error_message = "Operators come in by the listener that its owner names."
  }
}

run "a_collector_at_an_open_address_and_port_has_no_rule_of_its_own" {
  command = plan

  module {
    source = "./modules/ecs"
  }

  variables {
    aws_cidrs     = ["10.0.0.0/8"]
    hook_cidrs    = ["10.1.2.0/24"]
    hook_ports    = [443, 4318]
    otlp_endpoint = "https://collector.internal:4318"
    otlp_cidrs    = ["10.0.0.0/8", "10.1.2.0/24"]
  }

  assert {
    condition     = keys(aws_vpc_security_group_egress_rule.otlp) == ["api 10.0.0.0/8", "api 10.1.2.0/24", "worker 10.0.0.0/8"]
    error_message = "AWS refuses a second rule of a port and an address."
  }
}

run "a_collector_at_port_443_is_reached_with_aws" {
  command = plan

  module {
    source = "./modules/ecs"
  }

  variables {
    otlp_endpoint = "https://collector.internal"
    otlp_cidrs    = ["0.0.0.0/0"]
  }

  assert {
    condition     = length(aws_vpc_security_group_egress_rule.otlp) == 0 && length(aws_vpc_security_group_egress_rule.https) == 2
    error_message = "AWS refuses a second rule of a port and an address."
  }
}

run "metrics_leave_the_task_with_the_prefix" {
  module {
    source = "./modules/ecs"
  }

  variables {
    collector = { image = "public.ecr.aws/aws-observability/aws-otel-collector@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef" }
  }

  assert {
    condition     = alltrue([for task in aws_ecs_task_definition.this : [for container in jsondecode(task.container_definitions) : container.name][1] == "collector" && !jsondecode(task.container_definitions)[1].essential])
    error_message = "A collector beside each process; that it fails stops nothing."
  }

  assert {
    condition = alltrue([for service in ["api", "worker"] : (
      yamldecode(local.collector_config[service]).receivers.prometheus.config.scrape_configs[0].static_configs[0].labels.prefix == "broker"
      && alltrue([for set in yamldecode(local.collector_config[service]).exporters.awsemf.metric_declarations[0].dimensions : contains(set, "prefix")])
    )])
    error_message = "Every metric must say which deployment it is of."
  }

  assert {
    condition     = local.environment.BROKER_OTLP_ENDPOINT == "http://127.0.0.1:4318" && alltrue([for policy in aws_iam_role_policy.collector : strcontains(policy.policy, "xray:PutTraceSegments")])
    error_message = "Traces leave by the collector, and its role may send them."
  }
}
