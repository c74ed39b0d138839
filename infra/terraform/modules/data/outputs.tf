output "table_name" {
  description = "BROKER_TABLE."
  value       = aws_dynamodb_table.this.name
}

output "table_arn" {
  description = "ARN of the table."
  value       = aws_dynamodb_table.this.arn
}

output "prefix" {
  description = "BROKER_PREFIX."
  value       = var.name
}

output "queue_names" {
  description = "Names of the four queues, by name without the prefix."
  value = merge(
    { for name, queue in aws_sqs_queue.this : name => queue.name },
    { for name, queue in aws_sqs_queue.dead_letters : "${name}-dlq" => queue.name },
  )
}

output "queue_urls" {
  description = "URLs of the four queues, by name without the prefix."
  value = merge(
    { for name, queue in aws_sqs_queue.this : name => queue.url },
    { for name, queue in aws_sqs_queue.dead_letters : "${name}-dlq" => queue.url },
  )
}

output "policies" {
  description = "Policy documents of api, worker and operator."
  value       = local.policies
}

output "operator_policy_arn" {
  description = "Managed policy of the broker command; attach it to the roles of operators."
  value       = aws_iam_policy.operator.arn
}

output "environment" {
  description = "Settings that API and workers need for these resources: environment variables of a container, or the chart's value settings."
  value = merge(
    {
      AWS_REGION           = local.region
      BROKER_TABLE         = aws_dynamodb_table.this.name
      BROKER_PREFIX        = var.name
      BROKER_STATE_SHARDS  = tostring(var.state_shards)
      BROKER_PROVIDER_RATE = tostring(var.provider_rate)
      BROKER_VISIBILITY_S  = tostring(var.visibility_s)
    },
    local.interval_settings,
    # The API makes its reply queues itself.
    { for arn in var.kms_key_arn[*] : "BROKER_REPLY_QUEUE_KMS_KEY" => arn },
    length(local.schedule) > 0 ? { BROKER_SCHEDULER = "external" } : {},
  )
}

output "census_minutes" {
  description = "Minutes between two censuses, of a pool up to 100,000 sandboxes: for modules/observability. 1 where a cron(...) starts it."
  value       = local.census_minutes
}

output "warm_throughput_command" {
  description = "To be run once before an expected rush on a new table: provider 5 has no argument for warm throughput. The index needs as much as the table, because its throttling fails the table's writes."
  value = join(" ", [
    "aws dynamodb update-table --region ${local.region} --table-name ${aws_dynamodb_table.this.name}",
    "--warm-throughput ReadUnitsPerSecond=${var.warm_throughput.read},WriteUnitsPerSecond=${var.warm_throughput.write}",
    "--global-secondary-index-updates '${jsonencode([{ Update = { IndexName = "StateIndex", WarmThroughput = { ReadUnitsPerSecond = var.warm_throughput.read, WriteUnitsPerSecond = var.warm_throughput.write } } }])}'",
  ])
}
