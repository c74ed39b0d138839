output "url_host" {
  description = "The load balancer's DNS name, for the API's own name to point at; null with an existing load balancer."
  value       = module.ecs.url_host
}

output "load_balancer_zone_id" {
  description = "Zone id of the load balancer for an alias record; null with an existing load balancer."
  value       = module.ecs.load_balancer_zone_id
}

output "table_name" {
  description = "BROKER_TABLE for the broker command."
  value       = module.data.table_name
}

output "prefix" {
  description = "BROKER_PREFIX for the broker command."
  value       = module.data.prefix
}

output "warm_throughput_command" {
  description = "To be run once before an expected rush on a new table; see modules/data."
  value       = module.data.warm_throughput_command
}

output "queue_urls" {
  description = "URLs of the four queues, by name without the prefix."
  value       = module.data.queue_urls
}

output "secret_arns" {
  description = "The secrets to put tokens into, before the first task can start."
  value       = module.ecs.secret_arns
}

output "cluster_name" {
  description = "The ECS cluster."
  value       = module.ecs.cluster_name
}

output "service_names" {
  description = "Names of the two ECS services."
  value       = module.ecs.service_names
}

output "log_groups" {
  description = "Log groups by service."
  value       = module.ecs.log_groups
}

output "dashboard_name" {
  description = "The CloudWatch dashboard."
  value       = module.observability.dashboard_name
}

output "alarm_names" {
  description = "Names of all alarms that notify."
  value       = module.observability.alarm_names
}

output "task_security_group_ids" {
  description = "Security groups of the tasks, by service, for what else they should reach."
  value       = module.ecs.task_security_group_ids
}

output "operator_policy_arn" {
  description = "Managed policy of the broker command; attach it to the roles of operators."
  value       = module.data.operator_policy_arn
}

output "policies" {
  description = "Policy documents of api, worker and operator, as they are attached."
  value       = module.data.policies
}

output "worker_scaling" {
  description = "The workers' scaling rule as rendered: expression, its metrics, target and bounds."
  value       = module.ecs.worker_scaling
}
