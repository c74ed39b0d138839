# One page for 3 a.m.: what clients feel on top, then the queue and its workers, the pool, the parts below.

locals {
  widgets = [
    { title = "Answers", stat = "Sum", metrics = [
      ["AWS/ApplicationELB", "HTTPCode_Target_2XX_Count", "LoadBalancer", aws_lb.this.arn_suffix],
      ["AWS/ApplicationELB", "HTTPCode_Target_4XX_Count", "LoadBalancer", aws_lb.this.arn_suffix],
      ["AWS/ApplicationELB", "HTTPCode_Target_5XX_Count", "LoadBalancer", aws_lb.this.arn_suffix],
      ["AWS/ApplicationELB", "HTTPCode_ELB_5XX_Count", "LoadBalancer", aws_lb.this.arn_suffix],
    ] },
    { title = "Seconds to answer", stat = "p50", metrics = [
      ["AWS/ApplicationELB", "TargetResponseTime", "LoadBalancer", aws_lb.this.arn_suffix, { stat = "p50", label = "p50" }],
      ["AWS/ApplicationELB", "TargetResponseTime", "LoadBalancer", aws_lb.this.arn_suffix, { stat = "p99", label = "p99" }],
      ["AWS/ApplicationELB", "TargetResponseTime", "LoadBalancer", aws_lb.this.arn_suffix, { stat = "Maximum", label = "worst" }],
    ] },
    { title = "Pool", stat = "Minimum", metrics = [
      [local.namespace, "PoolAvailable", { label = "available" }],
      [local.namespace, "Allocated", { stat = "Sum", label = "allocated this minute", yAxis = "right" }],
      [local.namespace, "PoolEmpty", { stat = "Sum", label = "refused: none free", yAxis = "right" }],
    ] },
    { title = "Requests queue", stat = "Maximum", metrics = [
      ["AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", aws_sqs_queue.this["requests"].name, { label = "visible" }],
      ["AWS/SQS", "ApproximateNumberOfMessagesNotVisible", "QueueName", aws_sqs_queue.this["requests"].name, { label = "in flight" }],
      ["AWS/SQS", "ApproximateAgeOfOldestMessage", "QueueName", aws_sqs_queue.this["requests"].name, { label = "oldest, s", yAxis = "right" }],
    ] },
    { title = "Workers and backlog per worker", stat = "Average", metrics = concat(
      [[{ id = "backlog_per_task", label = "backlog per worker", expression = local.backlog_expression, yAxis = "right" }]],
      [for id, metric in local.backlog_metrics : concat(
        [metric.namespace, metric.name], flatten([for key in sort(keys(metric.dimensions)) : [key, metric.dimensions[key]]]),
        [{ id = id, stat = metric.stat, visible = id == "running", label = id }],
      )],
    ) },
    { title = "Dead letters", stat = "Maximum", metrics = concat(
      [for name, queue in aws_sqs_queue.dead_letters : ["AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", queue.name, { label = name }]],
      [[local.namespace, "DeadLetters", { stat = "Sum", label = "dead-lettered this minute" }]],
    ) },
    { title = "Jobs queue", stat = "Maximum", metrics = [
      ["AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", aws_sqs_queue.this["maintenance"].name, { label = "visible" }],
      ["AWS/SQS", "ApproximateAgeOfOldestMessage", "QueueName", aws_sqs_queue.this["maintenance"].name, { label = "oldest, s", yAxis = "right" }],
      [local.namespace, "BreakerOpened", { stat = "Sum", label = "breaker opened", yAxis = "right" }],
    ] },
    { title = "Table", stat = "Sum", metrics = [
      ["AWS/DynamoDB", "ConsumedWriteCapacityUnits", "TableName", aws_dynamodb_table.this.name],
      ["AWS/DynamoDB", "ConsumedReadCapacityUnits", "TableName", aws_dynamodb_table.this.name],
      ["AWS/DynamoDB", "WriteThrottleEvents", "TableName", aws_dynamodb_table.this.name, { yAxis = "right" }],
      ["AWS/DynamoDB", "WriteThrottleEvents", "TableName", aws_dynamodb_table.this.name, "GlobalSecondaryIndexName", "StateIndex", { label = "index throttled", yAxis = "right" }],
    ] },
    { title = "CPU and memory, %", stat = "Average", metrics = flatten([for service in ["api", "worker"] : [
      for metric in ["CPUUtilization", "MemoryUtilization"] : { row = ["AWS/ECS", metric, "ClusterName", aws_ecs_cluster.this.name, "ServiceName", service, { label = "${service} ${metric}" }] }
    ]])[*].row },
  ]
}

resource "aws_cloudwatch_dashboard" "this" {
  dashboard_name = var.name
  dashboard_body = jsonencode({
    widgets = [for index, widget in local.widgets : {
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
