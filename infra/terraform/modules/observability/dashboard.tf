# One page for 3 a.m.: what clients feel on top, then the queue and its workers, the pool, the parts below.

locals {
  alb_suffix = try(var.load_balancer.arn_suffix, "")
  # As the alarms count: of a shared balancer what reached our targets.
  answered_by = flatten([for key in sort(keys(local.answers_dimensions)) : [key, local.answers_dimensions[key]]])

  widgets = [
    { when = local.has_alb, title = "Answers", stat = "Sum", metrics = concat(
      [for status in ["2XX", "4XX", "5XX"] : concat(["AWS/ApplicationELB", "HTTPCode_Target_${status}_Count"], local.answered_by)],
      [for row in [["AWS/ApplicationELB", "HTTPCode_ELB_5XX_Count", "LoadBalancer", local.alb_suffix]] : row if local.own_balancer],
    ) },
    { when = local.has_alb, title = "Seconds to answer", stat = "p50", metrics = [
      for stat, label in { p50 = "p50", p99 = "p99", Maximum = "worst" } : concat(["AWS/ApplicationELB", "TargetResponseTime"], local.answered_by, [{ stat = stat, label = label }])
    ] },
    { when = local.has_logs, title = "Pool", stat = "Minimum", metrics = [
      [local.namespace, "PoolAvailable", { label = "available" }],
      [local.namespace, "Allocated", { stat = "Sum", label = "allocated this minute", yAxis = "right" }],
      [local.namespace, "PoolEmpty", { stat = "Sum", label = "refused: none free", yAxis = "right" }],
    ] },
    { when = true, title = "Requests queue", stat = "Maximum", metrics = [
      ["AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", var.queue_names["requests"], { label = "visible" }],
      ["AWS/SQS", "ApproximateNumberOfMessagesNotVisible", "QueueName", var.queue_names["requests"], { label = "in flight" }],
      ["AWS/SQS", "ApproximateAgeOfOldestMessage", "QueueName", var.queue_names["requests"], { label = "oldest, s", yAxis = "right" }],
    ] },
    { when = var.worker_scaling != null, title = "Workers and backlog per worker", stat = "Average", metrics = concat(
      [[{ id = "backlog_per_task", label = "backlog per worker", expression = try(var.worker_scaling.expression, ""), yAxis = "right" }]],
      [for id, metric in try(var.worker_scaling.metrics, {}) : concat(
        [metric.namespace, metric.name], flatten([for key in sort(keys(metric.dimensions)) : [key, metric.dimensions[key]]]),
        [{ id = id, stat = metric.stat, visible = id == "running", label = id }],
      )],
    ) },
    { when = true, title = "Dead letters", stat = "Maximum", metrics = concat(
      [for name in ["requests", "maintenance"] : ["AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", var.queue_names["${name}-dlq"], { label = name }]],
      [[local.namespace, "DeadLetters", { stat = "Sum", label = "dead-lettered this minute" }]],
    ) },
    { when = true, title = "Jobs queue", stat = "Maximum", metrics = [
      ["AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", var.queue_names["maintenance"], { label = "visible" }],
      ["AWS/SQS", "ApproximateAgeOfOldestMessage", "QueueName", var.queue_names["maintenance"], { label = "oldest, s", yAxis = "right" }],
      [local.namespace, "BreakerOpened", { stat = "Sum", label = "breaker opened", yAxis = "right" }],
    ] },
    { when = true, title = "Table", stat = "Sum", metrics = [
      ["AWS/DynamoDB", "ConsumedWriteCapacityUnits", "TableName", var.table_name],
      ["AWS/DynamoDB", "ConsumedReadCapacityUnits", "TableName", var.table_name],
      ["AWS/DynamoDB", "WriteThrottleEvents", "TableName", var.table_name, { yAxis = "right" }],
      ["AWS/DynamoDB", "WriteThrottleEvents", "TableName", var.table_name, "GlobalSecondaryIndexName", "StateIndex", { label = "index throttled", yAxis = "right" }],
    ] },
    { when = local.has_ecs, title = "CPU and memory, %", stat = "Average", metrics = flatten([for service in ["api", "worker"] : [
      for metric in ["CPUUtilization", "MemoryUtilization"] : { row = ["AWS/ECS", metric, "ClusterName", try(var.ecs.cluster_name, ""), "ServiceName", try(var.ecs.service_names[service], ""), { label = "${service} ${metric}" }] }
    ]])[*].row },
  ]
}

resource "aws_cloudwatch_dashboard" "this" {
  dashboard_name = var.name
  dashboard_body = jsonencode({
    widgets = [for index, widget in [for widget in local.widgets : widget if widget.when] : {
      type   = "metric"
      x      = index % 3 * 8
      y      = floor(index / 3) * 6
      width  = 8
      height = 6
      properties = {
        title   = widget.title
        region  = local.region
        view    = "timeSeries"
        stacked = false
        period  = 60
        stat    = widget.stat
        metrics = widget.metrics
      }
    }]
  })
}
