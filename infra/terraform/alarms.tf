# When somebody has to come. Each alarm says what it means and where in the runbook (infra/README.md) to look.

locals {
  queue_dimensions = { for name in ["requests", "maintenance"] : name => { QueueName = aws_sqs_queue.this[name].name } }
  api_dimensions   = { LoadBalancer = aws_lb.this.arn_suffix, TargetGroup = aws_lb_target_group.api.arn_suffix }

  # One metric against one threshold.
  alarms = merge(
    {
      oldest-request = {
        text       = "Requests wait: see Backlog growing", namespace = "AWS/SQS", metric = "ApproximateAgeOfOldestMessage", stat = "Maximum",
        dimensions = local.queue_dimensions["requests"], above = var.alarms.oldest_request_s, periods = 3
      }
      oldest-maintenance = {
        text       = "Jobs wait: see Backlog growing", namespace = "AWS/SQS", metric = "ApproximateAgeOfOldestMessage", stat = "Maximum",
        dimensions = local.queue_dimensions["maintenance"], above = var.alarms.oldest_maintenance_s, periods = 3
      }
      pool-empty = {
        text       = "Allocations were refused because no sandbox was free: see Pool low", namespace = local.namespace, metric = "PoolEmpty", stat = "Sum",
        dimensions = {}, above = 0, periods = 1
      }
      breaker = {
        text       = "The provider fails and is left alone for a while: see Provider down", namespace = local.namespace, metric = "BreakerOpened", stat = "Sum",
        dimensions = {}, above = 0, periods = 1
      }
      shed = {
        text       = "Requests were refused because too many were pending: see Backlog growing", namespace = local.namespace, metric = "Shed", stat = "Sum",
        dimensions = {}, above = 0, periods = 2
      }
      worker-away = {
        text       = "Workers lost their table or trust in their clock: see Nothing works", namespace = local.namespace, metric = "Unhealthy", stat = "Sum",
        dimensions = {}, above = 0, periods = 3
      }
      latency = {
        text       = "One answer in a hundred is slower than it should be: see Slow answers", namespace = "AWS/ApplicationELB", metric = "TargetResponseTime", stat = "p99",
        dimensions = local.api_dimensions, above = var.alarms.latency_p99_s, periods = 5
      }
      unhealthy-api = {
        text       = "API tasks are not ready: see Nothing works", namespace = "AWS/ApplicationELB", metric = "UnHealthyHostCount", stat = "Minimum",
        dimensions = local.api_dimensions, above = 0, periods = 5
      }
      table-throttled = {
        text       = "The table refuses writes: see Slow answers", namespace = "AWS/DynamoDB", metric = "WriteThrottleEvents", stat = "Sum",
        dimensions = { TableName = aws_dynamodb_table.this.name }, above = 0, periods = 2
      }
      table-read-throttled = {
        text       = "The table refuses reads: see Slow answers", namespace = "AWS/DynamoDB", metric = "ReadThrottleEvents", stat = "Sum",
        dimensions = { TableName = aws_dynamodb_table.this.name }, above = 0, periods = 2
      }
      index-throttled = {
        text       = "The index refuses writes, and with it the table: see Slow answers", namespace = "AWS/DynamoDB", metric = "WriteThrottleEvents", stat = "Sum",
        dimensions = { TableName = aws_dynamodb_table.this.name, GlobalSecondaryIndexName = "StateIndex" }, above = 0, periods = 2
      }
    },
    merge([for service in ["api", "worker"] : {
      "${service}-cpu" = {
        text       = "The ${service} tasks are short of CPU: see Slow answers", namespace = "AWS/ECS", metric = "CPUUtilization", stat = "Average",
        dimensions = { ClusterName = aws_ecs_cluster.this.name, ServiceName = service }, above = var.alarms.cpu_percent, periods = 10
      }
      "${service}-memory" = {
        text       = "The ${service} tasks are short of memory: see Slow answers", namespace = "AWS/ECS", metric = "MemoryUtilization", stat = "Maximum",
        dimensions = { ClusterName = aws_ecs_cluster.this.name, ServiceName = service }, above = var.alarms.memory_percent, periods = 5
      }
    }]...),
  )

  # What falls too low.
  low_alarms = {
    pool-low = {
      text       = "Few sandboxes are left: see Pool low", namespace = local.namespace, metric = "PoolAvailable", stat = "Minimum",
      dimensions = {}, below = var.alarms.pool_available_min, periods = 2
    }
    few-api = {
      text       = "Fewer API tasks run than should: see Nothing works", namespace = "ECS/ContainerInsights", metric = "RunningTaskCount", stat = "Maximum",
      dimensions = { ClusterName = aws_ecs_cluster.this.name, ServiceName = "api" }, below = local.desired.api, periods = 5
    }
    few-workers = {
      text       = "Fewer workers run than should: see Nothing works", namespace = "ECS/ContainerInsights", metric = "RunningTaskCount", stat = "Maximum",
      dimensions = { ClusterName = aws_ecs_cluster.this.name, ServiceName = "worker" }, below = local.desired.worker, periods = 5
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "high" {
  for_each = local.alarms

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.text
  namespace           = each.value.namespace
  metric_name         = each.value.metric
  dimensions          = each.value.dimensions
  statistic           = startswith(each.value.stat, "p") ? null : each.value.stat
  extended_statistic  = startswith(each.value.stat, "p") ? each.value.stat : null
  period              = 60
  evaluation_periods  = each.value.periods
  comparison_operator = "GreaterThanThreshold"
  threshold           = each.value.above
  # Nothing was counted: nothing happened.
  treat_missing_data = "notBreaching"
  actions_enabled    = !var.paused
  alarm_actions      = var.alarms.actions
  ok_actions         = var.alarms.ok_actions
  tags               = local.tags
}

resource "aws_cloudwatch_metric_alarm" "low" {
  for_each = local.low_alarms

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.text
  namespace           = each.value.namespace
  metric_name         = each.value.metric
  dimensions          = each.value.dimensions
  statistic           = each.value.stat
  period              = 60
  evaluation_periods  = each.value.periods
  comparison_operator = "LessThanThreshold"
  threshold           = each.value.below
  # A level that nobody tells is not known to be fine.
  treat_missing_data = "missing"
  actions_enabled    = !var.paused
  alarm_actions      = var.alarms.actions
  ok_actions         = var.alarms.ok_actions
  tags               = local.tags
}

# Dead letters are moved on into the table, so their queue may be empty again within the minute: what was taken out of
# it counts as well. (NumberOfMessagesSent does not: SQS leaves out what redrive moved.)
resource "aws_cloudwatch_metric_alarm" "dead_letters" {
  for_each = aws_sqs_queue.dead_letters

  alarm_name          = "${var.name}-dead-letters-${each.key}"
  alarm_description   = "Messages of ${each.key} could not be processed: see Dead letters"
  evaluation_periods  = 1
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  treat_missing_data  = "notBreaching"
  actions_enabled     = !var.paused
  alarm_actions       = var.alarms.actions
  ok_actions          = var.alarms.ok_actions
  tags                = local.tags

  metric_query {
    id          = "letters"
    label       = "Dead letters waiting or moved"
    expression  = "FILL(waiting, 0) + FILL(moved, 0)"
    return_data = true
  }

  dynamic "metric_query" {
    for_each = { waiting = ["ApproximateNumberOfMessagesVisible", "Maximum"], moved = ["NumberOfMessagesDeleted", "Sum"] }
    content {
      id          = metric_query.key
      return_data = false

      metric {
        namespace   = "AWS/SQS"
        metric_name = metric_query.value[0]
        stat        = metric_query.value[1]
        period      = 60
        dimensions  = { QueueName = each.value.name }
      }
    }
  }
}

# A share, not a count: one failure in a quiet night is not an incident, and needs ten requests to be a share at all.
resource "aws_cloudwatch_metric_alarm" "errors" {
  alarm_name          = "${var.name}-errors"
  alarm_description   = "More than ${var.alarms.error_percent} % of requests fail with 5xx: see Nothing works"
  evaluation_periods  = 3
  datapoints_to_alarm = 2
  comparison_operator = "GreaterThanThreshold"
  threshold           = var.alarms.error_percent
  treat_missing_data  = "notBreaching"
  actions_enabled     = !var.paused
  alarm_actions       = var.alarms.actions
  ok_actions          = var.alarms.ok_actions
  tags                = local.tags

  metric_query {
    id          = "percent"
    label       = "Requests that failed, %"
    expression  = "IF(FILL(requests, 0) >= 10, 100 * (FILL(target, 0) + FILL(balancer, 0)) / FILL(requests, 1), 0)"
    return_data = true
  }

  dynamic "metric_query" {
    for_each = { requests = "RequestCount", target = "HTTPCode_Target_5XX_Count", balancer = "HTTPCode_ELB_5XX_Count" }
    content {
      id          = metric_query.key
      return_data = false

      metric {
        namespace   = "AWS/ApplicationELB"
        metric_name = metric_query.value
        stat        = "Sum"
        period      = 60
        dimensions  = { LoadBalancer = aws_lb.this.arn_suffix }
      }
    }
  }
}
