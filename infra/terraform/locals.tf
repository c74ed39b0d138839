data "aws_region" "this" {}

locals {
  tags   = merge(var.tags, { Name = var.name })
  region = data.aws_region.this.name

  # Two failed health checks of the load balancer, and as long again, take a draining API out before it stops to accept.
  lame_duck_s = 15
  # After the drain a process still removes its reply queue; Fargate allows 120 s in all.
  stop_timeout_s = local.lame_duck_s + var.drain_s + 15

  ports = { api = 8080, worker = 9090 }

  desired = {
    api    = var.paused ? 0 : var.api.min_tasks
    worker = var.paused ? 0 : var.worker.min_tasks
  }

  # What both processes are told. Endpoints and credentials come from the task's AWS environment.
  environment = merge(var.settings, {
    AWS_REGION            = local.region
    BROKER_TABLE          = aws_dynamodb_table.this.name
    BROKER_PREFIX         = var.name
    BROKER_VISIBILITY_S   = tostring(var.visibility_s)
    BROKER_LAME_DUCK_S    = tostring(local.lame_duck_s)
    BROKER_DRAIN_S        = tostring(var.drain_s)
    BROKER_LOG_FORMAT     = "json"
    BROKER_LISTEN         = "0.0.0.0:${local.ports.api}"
    BROKER_METRICS_LISTEN = "0.0.0.0:${local.ports.worker}"
  }, length(local.schedule) > 0 ? { BROKER_SCHEDULER = "external" } : {})
}
