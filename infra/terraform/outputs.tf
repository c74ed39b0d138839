output "url_host" {
  description = "The load balancer's DNS name: what the API's own name points at."
  value       = aws_lb.this.dns_name
}

output "load_balancer_zone_id" {
  description = "For an alias record."
  value       = aws_lb.this.zone_id
}

output "table_name" {
  description = "BROKER_TABLE for the broker command."
  value       = aws_dynamodb_table.this.name
}

output "prefix" {
  description = "BROKER_PREFIX for the broker command."
  value       = var.name
}

output "warm_throughput_command" {
  description = "To be run once before an expected rush on a new table: provider 5 has no argument for warm throughput. The index needs as much as the table, whose writes its throttling fails."
  value = join(" ", [
    "aws dynamodb update-table --region ${local.region} --table-name ${aws_dynamodb_table.this.name}",
    "--warm-throughput ReadUnitsPerSecond=12000,WriteUnitsPerSecond=8000",
    "--global-secondary-index-updates '${jsonencode([{ Update = { IndexName = "StateIndex", WarmThroughput = { ReadUnitsPerSecond = 12000, WriteUnitsPerSecond = 8000 } } }])}'",
  ])
}

output "queue_urls" {
  description = "The four queues, by name without the prefix."
  value = merge(
    { for name, queue in aws_sqs_queue.this : name => queue.url },
    { for name, queue in aws_sqs_queue.dead_letters : "${name}-dlq" => queue.url },
  )
}

output "secret_arns" {
  description = "The secrets to put tokens into, before the first task can start."
  value       = { for name, secret in aws_secretsmanager_secret.this : name => secret.arn }
}

output "cluster_name" {
  description = "The ECS cluster; its services are called api and worker."
  value       = aws_ecs_cluster.this.name
}

output "log_groups" {
  description = "Log groups by service."
  value       = { for name, group in aws_cloudwatch_log_group.this : name => group.name }
}

output "dashboard_name" {
  description = "The CloudWatch dashboard."
  value       = aws_cloudwatch_dashboard.this.dashboard_name
}

output "task_security_group_ids" {
  description = "Security groups of the tasks, by service, for what else they should reach."
  value       = { for name, group in aws_security_group.task : name => group.id }
}

output "operator_policy_arn" {
  description = "What the broker command needs; attach it to the roles of operators."
  value       = aws_iam_policy.operator.arn
}

output "policies" {
  description = "The policy documents of api, worker and operator, as they are attached."
  value       = local.policies
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
