# Alarms, dashboard, metrics from logs and saved queries, for whichever parts there are.

data "aws_region" "this" {}

locals {
  tags = merge(var.tags, { Name = var.name })
  # The attribute `name` is deprecated in version 6 of the provider; `id` is the same in both.
  region    = data.aws_region.this.id
  namespace = "SandboxBroker/${var.name}"

  has_logs = var.log_groups != null
  has_ecs  = var.ecs != null
  has_alb  = var.load_balancer != null
  # The processes' own metrics.
  has_process = var.collector_namespace != null

  actions        = var.alarms.actions
  ticket_actions = coalesce(var.alarms.ticket_actions, var.alarms.actions)
}
