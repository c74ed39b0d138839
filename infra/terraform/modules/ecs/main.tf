# API and workers on Fargate: services, load balancer, roles, scaling, and the web ACL. Table and queues come from modules/data.

data "aws_region" "this" {}
data "aws_caller_identity" "this" {}
data "aws_partition" "this" {}

locals {
  tags = merge(var.tags, { Name = var.name })
  # The attribute `name` is deprecated in version 6 of the provider; `id` is the same in both.
  region  = data.aws_region.this.id
  account = data.aws_caller_identity.this.account_id

  # Two failed health checks of the load balancer, and as long again, take a draining API out before it stops to accept.
  lame_duck_s = 15
  # After the drain a process still removes its reply queue; Fargate allows 120 s in all.
  stop_timeout_s = local.lame_duck_s + var.drain_s + 15

  ports = { api = 8080, worker = 9090, admin = 8081 }

  # Operators and machines have a listener of their own, which the public one does not lead to: ours, or one that its owner names.
  admin_listener = local.own_load_balancer ? length(var.admin_cidrs) > 0 : var.load_balancer.admin != null
  open_ports     = { api = [local.ports.api, local.ports.admin], worker = [local.ports.worker] }

  desired = {
    api    = var.paused ? 0 : var.api.min_tasks
    worker = var.paused ? 0 : var.worker.min_tasks
  }

  # A cluster of one's own needs no prefix in the services' names; a shared one does.
  own_cluster  = var.cluster == null
  service_name = { for service in ["api", "worker"] : service => local.own_cluster ? service : "${var.name}-${service}" }
  cluster = local.own_cluster ? { name = aws_ecs_cluster.this[0].name, arn = aws_ecs_cluster.this[0].arn } : {
    name = var.cluster.name, arn = var.cluster.arn
  }

  own_load_balancer = var.load_balancer == null
  listener = local.own_load_balancer ? {
    arn            = aws_lb_listener.https[0].arn
    security_group = aws_security_group.load_balancer[0].id
    arn_suffix     = aws_lb.this[0].arn_suffix
    } : {
    arn            = var.load_balancer.listener_arn
    security_group = var.load_balancer.security_group_id
    arn_suffix     = var.load_balancer.arn_suffix
  }

  own_security_groups = var.security_group_ids == null
  task_security_group = local.own_security_groups ? { for service, group in aws_security_group.task : service => group.id } : {
    api = var.security_group_ids.api, worker = var.security_group_ids.worker
  }

  own_log_groups = var.log_group_names == null
  log_group = local.own_log_groups ? { for service, group in aws_cloudwatch_log_group.this : service => group.name } : {
    api = var.log_group_names.api, worker = var.log_group_names.worker
  }

  # What both processes are told. Credentials come from the task's AWS environment.
  environment = merge(
    var.settings,
    var.environment,
    {
      BROKER_LAME_DUCK_S    = tostring(local.lame_duck_s)
      BROKER_DRAIN_S        = tostring(var.drain_s)
      BROKER_LOG_FORMAT     = "json"
      BROKER_LISTEN         = "0.0.0.0:${local.ports.api}"
      BROKER_ADMIN_LISTEN   = "0.0.0.0:${local.ports.admin}"
      BROKER_METRICS_LISTEN = "0.0.0.0:${local.ports.worker}"
    },
    try(var.collector.traces, false) ? { BROKER_OTLP_ENDPOINT = "http://127.0.0.1:4318" } : {},
    var.otlp_endpoint != null ? { BROKER_OTLP_ENDPOINT = var.otlp_endpoint } : {},
  )
}
