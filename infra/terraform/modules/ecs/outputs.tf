output "url_host" {
  description = "The load balancer's DNS name, for the API's own name to point at; null with an existing load balancer."
  value       = one(aws_lb.this[*].dns_name)
}

output "load_balancer_zone_id" {
  description = "Zone id of the load balancer for an alias record; null with an existing load balancer."
  value       = one(aws_lb.this[*].zone_id)
}

output "load_balancer_arn_suffix" {
  description = "For metrics of the load balancer."
  value       = local.listener.arn_suffix
}

output "target_group_arn_suffix" {
  description = "For metrics of the target group."
  value       = aws_lb_target_group.api.arn_suffix
}

output "secret_arns" {
  description = "The secrets to put tokens into, before the first task can start."
  value       = { for name, secret in aws_secretsmanager_secret.this : name => secret.arn }
}

output "cluster_name" {
  description = "The ECS cluster."
  value       = local.cluster.name
}

output "service_names" {
  description = "Names of the two ECS services."
  value       = { api = aws_ecs_service.api.name, worker = aws_ecs_service.worker.name }
}

output "desired_tasks" {
  description = "Least number of tasks of each service."
  value       = local.desired
}

output "log_groups" {
  description = "Log groups by service."
  value       = local.log_group
}

output "task_security_group_ids" {
  description = "Security groups of the tasks, by service."
  value       = local.task_security_group
}

output "task_role_arns" {
  description = "Roles of the tasks, by service."
  value       = { for service, role in aws_iam_role.task : service => role.arn }
}

output "collector_namespace" {
  description = "CloudWatch namespace of the collector's metrics; null without a collector."
  value       = local.collected ? "SandboxBroker/${var.name}/process" : null
}

output "worker_scaling" {
  description = "The workers' scaling rule as rendered: expression, its metrics, target and bounds."
  value = {
    expression           = local.backlog_expression
    metrics              = local.backlog_metrics
    target               = var.worker.backlog_per_task
    min                  = local.desired.worker
    max                  = var.paused ? 0 : var.worker.max_tasks
    scale_out_cooldown_s = var.worker.scale_out_cooldown_s
    scale_in_cooldown_s  = var.worker.scale_in_cooldown_s
  }
}
